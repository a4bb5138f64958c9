"""Two hundred clients send a byte a second: they are cut off, and others hardly notice."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.load.generator import Address, Answer, Load, percentile_ms, run
from tests.support.load.measurements import Measurements
from tests.support.load.soak import address, choose
from tests.support.load.traffic import form, get
from tests.support.process import holdings
from tests.support.service.server import Server

SLOW = choose(60, 200)
BODY_TIMEOUT_S = choose(1.5, 10)
BYTE_EVERY_S = choose(0.2, 1.0)
SECONDS = choose(1, 9)
OTHERS = 4


@dataclass
class End:
    """How and when a slow client's connection ended."""

    answer: bytes
    closed: bool
    seconds: float


async def received(reader: asyncio.StreamReader) -> bytes:
    """Read until the connection is closed, or reset because a byte crossed its closing."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while part := await reader.read(4096):
            got += part
    return got


async def send_slowly(where: Address, request: bytes, at_once: int) -> End:
    """Send the start of a request at once and the rest byte by byte, until cut off."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(*where)
    answer = asyncio.create_task(received(reader))
    writer.write(request[:at_once])
    for byte in request[at_once:]:
        done, _ = await asyncio.wait([answer], timeout=BYTE_EVERY_S)
        if done or time.monotonic() - began > 4 * BODY_TIMEOUT_S:
            break
        writer.write(bytes([byte]))
    closed, _ = await asyncio.wait([answer], timeout=1)
    seconds = time.monotonic() - began
    writer.transport.abort()
    return End(await answer, bool(closed), seconds)


async def asked_beside(
    server: Server, picture: bytes
) -> tuple[list[Answer], list[Answer], list[End], list[int]]:
    """Return answers without and with slow clients, their ends, and descriptors before and amid."""
    where = address(server)
    request = form("/predict", picture)
    without = await Load(where, [request]).closed_loop(OTHERS, seconds=SECONDS)
    await asyncio.sleep(0.3)
    before = len(holdings(server.process.pid).descriptors)
    # Half are slow with their headers, half with their body.
    requests = [(get("/health/live", "X-Slow: " + 200 * "x"), 20), (request, 400)]
    slow = [asyncio.create_task(send_slowly(where, *requests[i % 2])) for i in range(SLOW)]
    await asyncio.sleep(0.5)
    amid = len(holdings(server.process.pid).descriptors)
    beside = await Load(where, [request]).closed_loop(OTHERS, seconds=SECONDS)
    ends = await asyncio.gather(*slow)
    return without, beside, ends, [before, amid]


def test_slow_clients_are_cut_off_and_delay_no_others(
    make_server: Callable[..., Server], seven_png: bytes, measure: Callable[[str], Measurements]
) -> None:
    found = measure(f"{SLOW} clients sending a byte every {BYTE_EVERY_S:g} s")
    server = make_server(device="cpu", body_timeout_s=BODY_TIMEOUT_S)
    without, beside, ends, (before, amid) = run(asked_beside(server, seven_png))
    deadline = time.monotonic() + 10
    while (after := len(holdings(server.process.pid).descriptors)) > before:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    code = server.stop()

    failed = sum(answer.status != 200 for answer in without + beside)
    found.require("others' requests that failed", failed, "0", failed == 0)
    alone_ms, beside_ms = percentile_ms(without, 99), percentile_ms(beside, 99)
    found.note("others' p99 alone, ms", alone_ms)
    reached = beside_ms <= 2 * alone_ms
    found.require(
        "others' p99 beside, ms", beside_ms, f"≤ {2 * alone_ms:.0f}", reached, strict=False
    )
    told = sum(end.answer.startswith(b"HTTP/1.1 408 ") for end in ends)
    found.require("slow ones told 408", told, str(SLOW), told == SLOW)
    closed = sum(end.closed for end in ends)
    found.require("slow ones' connections closed", closed, str(SLOW), closed == SLOW)
    found.note("until they were, s at most", max(end.seconds for end in ends))
    found.require("descriptors amid them", amid, f"≥ {SLOW}", amid >= SLOW)
    found.require("descriptors afterwards", after, f"≤ {before}", after <= before)
    found.require("exit code", code, "0", code == 0)
    found.check()

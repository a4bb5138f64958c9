"""The load generator accounts for every request, whatever the server does."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest

from tests.support.load.generator import Abandoned, Address, End, Load, counted, percentile_ms, run
from tests.support.load.measurements import Measurements, Row, growth_per_item
from tests.support.load.traffic import form, get, mixed
from tests.support.service.server import free_port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\nno"
CLOSING = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"

Handler: TypeAlias = Callable[[bytes], Coroutine[Any, Any, bytes]]


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[tuple[Address, list[int]]]:
    """A server that answers requests without a body; and how many each connection has sent.

    An answer that is not whole is followed by the end of the connection.
    """
    connections: list[int] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = len(connections)
        connections.append(0)
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                connections[mine] += 1
                answer = await handler(request)
                for i in range(0, len(answer), 30):  # in pieces, as a network may deliver it
                    writer.write(answer[i : i + 30])
                    await asyncio.sleep(0)
                if answer not in (OK, BUSY):
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname(), connections
        for writer in writers:
            writer.close()
        await asyncio.sleep(0.01)  # in which they close


def saying(answer: bytes, after_s: float = 0.0) -> Handler:
    async def handler(_request: bytes) -> bytes:
        await asyncio.sleep(after_s)
        return answer

    return handler


def test_a_closed_loop_keeps_its_connections_and_asks_each_request_in_turn() -> None:
    async def scenario() -> None:
        seen: list[bytes] = []

        async def handler(request: bytes) -> bytes:
            seen.append(request.split()[1])
            return OK if len(seen) % 2 else BUSY

        async with answering(handler) as (where, connections):
            load = Load(where, [get("/a"), get("/b"), get("/c")])
            answers = await load.closed_loop(2, number=12)
        assert counted(answers) == {"200": 6, "429": 6}
        assert sorted(seen) == sorted([b"/a", b"/b", b"/c"] * 4)
        assert len(connections) == 2
        assert sum(answer.new for answer in answers) == 2
        assert {answer.end for answer in answers} == {End.KEPT}
        assert sorted(answer.index for answer in answers) == list(range(12))
        assert len({answer.kept for answer in answers if answer.status == 200}) == 1

    run(scenario())


def test_without_keep_alive_each_request_opens_a_connection() -> None:
    async def scenario() -> None:
        async with answering(saying(OK)) as (where, connections):
            await Load(where, [get("/")], keep_alive=False).closed_loop(1, number=5)
        assert connections == [1] * 5

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (CLOSING, (200, End.CLOSED)),
        (CLOSING[:-1], (0, End.LOST)),
        (CLOSING[:20], (0, End.LOST)),
        (b"", (0, End.LOST)),
    ],
    ids=["closed", "cut in its body", "cut in its head", "none"],
)
def test_an_answer_is_whole_or_lost(answer: bytes, expected: tuple[int, End]) -> None:
    async def scenario() -> None:
        async with answering(saying(answer)) as (where, connections):
            answers = await Load(where, [get("/")]).closed_loop(1, number=3)
        assert [(each.status, each.end) for each in answers] == [expected] * 3
        assert len(connections) == 3

    run(scenario())


def test_a_closed_port_is_refused() -> None:
    (answer,) = run(Load(("127.0.0.1", free_port()), [get("/")]).closed_loop(1, number=1))
    assert (answer.status, answer.end) == (0, End.REFUSED)
    assert math.isnan(answer.connected)
    assert counted([answer]) == {"refused": 1}


def test_an_answer_that_never_comes_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.load.generator._TIMEOUT_S", 0.1)

    async def scenario() -> None:
        async with answering(saying(OK, after_s=0.5)) as (where, _):
            (answer,) = await Load(where, [get("/")]).closed_loop(1, number=1)
        assert (answer.status, answer.end) == (0, End.LATE)

    run(scenario())


def test_an_open_loop_sends_on_schedule_and_counts_waiting_from_when_it_was_due() -> None:
    async def scenario() -> None:
        async with answering(saying(OK, after_s=0.05)) as (where, connections):
            load = Load(where, [get("/")])
            began = time.monotonic()
            answers = await load.open_loop(50, 0.6, connections=1)  # which can do 20 a second
            seconds = time.monotonic() - began
        assert len(connections) == 1
        assert len(answers) == 30
        assert seconds >= 30 * 0.05
        assert [answer.due - began for answer in answers] == pytest.approx(
            [i / 50 for i in range(30)], abs=0.01
        )
        # The last was due after 0.58 s and had to wait for all the others.
        assert answers[-1].latency_s >= 30 * 0.05 - 0.58
        assert percentile_ms(answers, 99) == 1000 * answers[-1].latency_s

    run(scenario())


def test_a_client_that_leaves_is_not_counted_as_lost() -> None:
    async def scenario() -> None:
        request = get("/abandoned")
        async with answering(saying(OK, after_s=0.5)) as (where, connections):
            parts = [Abandoned(request, 10, 0.0), Abandoned(request, len(request), 0.05)]
            answers = await Load(where, parts).closed_loop(1, number=2)
            assert [answer.end for answer in answers] == [End.LEFT] * 2
            assert connections == [0, 1]

    run(scenario())


def test_percentiles_are_answers_that_were_given() -> None:
    async def scenario() -> None:
        async with answering(saying(OK)) as (where, _):
            answers = await Load(where, [get("/")]).closed_loop(1, number=10)
        latencies = sorted(answer.latency_s for answer in answers)
        assert percentile_ms(answers, 50) == 1000 * latencies[4]
        assert percentile_ms(answers, 99) == 1000 * latencies[9]
        assert math.isnan(percentile_ms([], 99))

    run(scenario())


def test_requests_are_whole_and_their_lengths_are_right() -> None:
    for asked in [*mixed(), *mixed(numbered=True)]:
        head, _, body = asked.request.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
    assert form("/predict", b"x").count(b'name="file"') == 1
    assert form("/predict/batch?samples=50", b"x", b"y").count(b'name="files"') == 2


def test_a_missed_bar_fails_but_one_of_time_only_in_the_long_form() -> None:
    for long in (False, True):
        measured = Measurements("something", long)
        measured.note("seconds", 3.0)
        measured.require("lost", 0, "0", True)
        measured.check()
        measured.require("p99, ms", 250.0, "≤ 100", False, strict=False)
        if long:
            with pytest.raises(AssertionError, match="p99, ms: 250, must be ≤ 100"):
                measured.check()
        else:
            measured.check()
        measured.rows.append(Row("lost", 1, "0", reached=False))
        with pytest.raises(AssertionError, match=r"something: .*lost: 1, must be 0"):
            measured.check()


def test_growth_is_estimated_after_the_warm_up_and_never_from_too_little() -> None:
    def memory(leak_kb: int) -> list[int]:
        """After every tenth of 200 reloads; the first few take some for good."""
        return [200_000 + 2_000 * min(i, 4) + 10 * leak_kb * i for i in range(20)]

    assert abs(growth_per_item(memory(0), window=10)) < 1
    assert growth_per_item(memory(100), window=10) == pytest.approx(100, rel=0.05)
    warming, growing = [100, 900, 950, 990], [1000 + 500 * i for i in range(12)]
    assert growth_per_item(warming + growing, window=10) == pytest.approx(50)
    with pytest.raises(ValueError, match="1 samples"):
        growth_per_item([1000], window=10)

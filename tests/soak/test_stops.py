"""SIGTERM under load: whoever was accepted is answered."""

import asyncio
import math
import signal
import time
from collections.abc import Callable

import pytest
import yaml

from tests.conftest import ROOT, Server
from tests.soak.conftest import address, choose, progress
from tests.soak.figures import Figures
from tests.soak.load import Answer, End, Load, counted
from tests.soak.traffic import form, get

pytestmark = pytest.mark.soak

STOPS = choose(2, 20)
DRAIN_WAIT_S = 1.0
CLIENTS = 24


def grace_s() -> float:
    """How long Docker waits for a stop before it kills."""
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return float(composed["services"]["service"]["stop_grace_period"].removesuffix("s"))


async def stopped_under_load(server: Server, request: bytes) -> tuple[list[Answer], float, float]:
    """Load from before the stop until nobody is let in any more.

    Returns:
        The answers, when the signal was sent, and the seconds until the process had ended.
    """
    refused = asyncio.Event()

    def seen(answer: Answer) -> None:
        if answer.end is End.REFUSED:
            refused.set()

    # Those that keep their connections, and those that come anew each time.
    keeping = Load(address(server), [request, get("/health/ready")], seen=seen)
    anew = Load(address(server), [request], seen=seen, keep_alive=False)
    loads = [
        asyncio.create_task(keeping.closed_loop(CLIENTS // 2, until=refused)),
        asyncio.create_task(anew.closed_loop(CLIENTS // 2, until=refused)),
    ]
    await asyncio.sleep(0.5)
    signalled = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(server.process.wait, 60)
    ended_s = time.monotonic() - signalled
    refused.set()
    answers = [answer for load in loads for answer in await load]
    return answers, signalled, ended_s


def accepted(answers: list[Answer]) -> list[Answer]:
    """Those that were sent while the listener was open for certain.

    It was, as long as anybody could still connect.
    """
    open_until = max(answer.connected for answer in answers if answer.new)
    return [answer for answer in answers if answer.sent <= open_until]


def test_a_stop_under_load_loses_no_request_that_was_accepted(
    make_server: Callable[..., Server], seven_png: bytes, figures: Callable[[str], Figures]
) -> None:
    found = figures(f"{STOPS} stops under load, drain wait {DRAIN_WAIT_S:g} s")
    lost, codes, longest_s, during, undecided = 0, set[int](), 0.0, 0, 0
    answers: list[Answer] = []
    with progress(STOPS, "stops") as bar:
        for _ in range(STOPS):
            server = make_server(device="cpu", drain_wait_s=DRAIN_WAIT_S)
            each, signalled, ended_s = asyncio.run(
                stopped_under_load(server, form("/predict", seven_png))
            )
            taken = accepted(each)
            lost += sum(answer.status not in (200, 429, 503) for answer in taken)
            during += sum(answer.sent > signalled for answer in taken)
            rest = [a for a in each if a not in taken and not math.isnan(a.sent)]
            undecided += sum(answer.status == 0 for answer in rest)
            codes.add(server.process.returncode)
            longest_s = max(longest_s, ended_s)
            answers += each
            bar.update()
    found.note("statuses", str(counted(answers)))
    found.note("accepted after the signal", during)
    found.require("accepted and lost", lost, "0", lost == 0)
    found.note("sent after the last that could connect, and not answered", undecided)
    found.require("exit codes", str(sorted(codes)), "[0]", codes == {0})
    grace = grace_s()
    found.require("longest stop, s", longest_s, f"≤ {grace:g}", longest_s <= grace)
    found.check()

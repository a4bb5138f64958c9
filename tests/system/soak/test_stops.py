"""SIGTERM under load: every accepted request is answered."""

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import yaml

from tests.support.load.generator import Address, Answer, End, Load, counted, run
from tests.support.load.measurements import Measurements
from tests.support.load.soak import address, choose, progress
from tests.support.load.traffic import form, get
from tests.support.paths import ROOT
from tests.support.service.server import Server

STOPS = choose(1, 20)
DRAIN_DELAY_S = 1.0
CLIENTS = 24


def grace_s() -> float:
    """Return how long Docker waits before it kills a stopping container."""
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return float(composed["services"]["service"]["stop_grace_period"].removesuffix("s"))


@dataclass
class Stop:
    """One stop and the answers around it.

    Attributes:
        predictions: Answers to images, of all clients.
        probes: Answers to readiness probes.
        signalled: When the signal was sent.
        open_until: The last time at which the listener was certainly open.
        ended_s: Seconds from the signal until the process had ended.
    """

    predictions: list[Answer]
    probes: list[Answer]
    signalled: float
    open_until: float
    ended_s: float

    def accepted(self, answers: list[Answer]) -> list[Answer]:
        """Return those whose requests were complete while the listener was certainly open."""
        return [answer for answer in answers if answer.sent <= self.open_until]

    @property
    def lost(self) -> list[Answer]:
        """Accepted requests without a proper answer: 200 or 429, and for probes 200 or 503."""
        return [a for a in self.accepted(self.predictions) if a.status not in (200, 429)] + [
            a for a in self.accepted(self.probes) if a.status not in (200, 503)
        ]

    @property
    def warned(self) -> int:
        """How many probes learned that the service is about to stop."""
        return sum(answer.status == 503 for answer in self.probes)

    @property
    def undecided(self) -> list[Answer]:
        """Requests that were complete when the listener may have been closed."""
        return [a for a in self.predictions + self.probes if a.sent > self.open_until]


async def open_until(where: Address) -> float:
    """Connect every few milliseconds until it fails; returns when the last success began."""
    heard = 0.0
    while True:
        began = time.monotonic()
        try:
            _, writer = await asyncio.open_connection(*where)
        except OSError:
            return heard
        heard = began
        writer.transport.abort()
        await asyncio.sleep(0.004)


async def stopped_under_load(server: Server, request: bytes) -> Stop:
    """Send load from before the stop until connections are refused."""
    refused = asyncio.Event()

    def seen(answer: Answer) -> None:
        if answer.end is End.REFUSED:
            refused.set()

    # Half of the clients keep their connections.
    where = address(server)
    keeping = Load(where, [request, get("/health/ready")], seen=seen)
    anew = Load(where, [request], seen=seen, keep_alive=False)
    loads = [
        asyncio.create_task(keeping.closed_loop(CLIENTS // 2, until=refused)),
        asyncio.create_task(anew.closed_loop(CLIENTS // 2, until=refused)),
    ]
    await asyncio.sleep(0.5)
    signalled = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    until = await open_until(where)
    await asyncio.to_thread(server.process.wait, 60)
    ended_s = time.monotonic() - signalled
    refused.set()
    kept = await loads[0]
    predictions = [answer for answer in kept if answer.index % 2 == 0] + await loads[1]
    probes = [answer for answer in kept if answer.index % 2 == 1]
    return Stop(predictions, probes, signalled, until, ended_s)


def test_a_stop_under_load_loses_no_accepted_request(
    make_server: Callable[..., Server], seven_png: bytes, measure: Callable[[str], Measurements]
) -> None:
    found = measure(f"{STOPS} stops under load, drain delay {DRAIN_DELAY_S:g} s")
    stops, codes = list[Stop](), set[int]()
    with progress(STOPS, "stops") as bar:
        for _ in range(STOPS):
            server = make_server(device="cpu", drain_delay_s=DRAIN_DELAY_S)
            stops.append(run(stopped_under_load(server, form("/predict", seven_png))))
            codes.add(server.process.returncode)
            bar.update()
    predictions = [answer for stop in stops for answer in stop.predictions]
    found.note("statuses", str(counted(predictions)))
    found.note("statuses of probes", str(counted([a for stop in stops for a in stop.probes])))
    during = sum(a.sent > stop.signalled for stop in stops for a in stop.accepted(stop.predictions))
    found.require("accepted after the signal", during, "> 0", during > 0)
    warned = min(stop.warned for stop in stops)
    found.require("probes told of a stop, at least", warned, "> 0", warned > 0)
    lost = [answer for stop in stops for answer in stop.lost]
    found.require("accepted and lost", len(lost), "0", not lost)
    if lost:
        found.note("those by status", str(counted(lost)))
    unanswered = sum(answer.status == 0 for stop in stops for answer in stop.undecided)
    found.note("sent as the listener was closed, and not answered", unanswered)
    found.require("exit codes", str(sorted(codes)), "[0]", codes == {0})
    longest_s, grace = max(stop.ended_s for stop in stops), grace_s()
    found.require("longest stop, s", longest_s, f"≤ {grace:g}", longest_s <= grace)
    found.check()

"""Three times the capacity: the service answers what it can and rejects the rest."""

import asyncio
import time
from collections.abc import Callable

from tests.support.load.generator import Answer, Load, counted, percentile_ms, run
from tests.support.load.measurements import Measurements
from tests.support.load.soak import address, choose, progress
from tests.support.load.traffic import form, get
from tests.support.process import rss_kb
from tests.support.service.server import Server

SECONDS = choose(2, 60)
MEASURING_S = choose(1, 15)
QUEUE = choose(64, 1024)  # the default takes two seconds to fill
TIMES = 3
PROBES_PER_S = 20


async def sampled(pid: int, samples: list[int], over: asyncio.Event) -> None:
    """Read the memory of a process twice a second."""
    while not over.is_set():
        samples.append(rss_kb(pid))
        await asyncio.sleep(0.5)


async def overload(
    server: Server, request: bytes, per_second: float
) -> tuple[list[Answer], list[Answer], list[int]]:
    """Answers, answers to probes, and the memory meanwhile."""
    over, memory = asyncio.Event(), list[int]()
    with progress(round(per_second * SECONDS), "overload") as bar:
        load = Load(address(server), [request], seen=lambda _: bar.update())
        probes = Load(address(server), [get("/health/live"), get("/health/ready")])
        watch = asyncio.create_task(sampled(server.process.pid, memory, over))
        asked, probed = await asyncio.gather(
            load.open_loop(per_second, SECONDS, connections=QUEUE + 1000),
            probes.open_loop(PROBES_PER_S, SECONDS, connections=50),
        )
        over.set()
        await watch
    return asked, probed, memory


def test_at_three_times_the_capacity_accepted_requests_are_answered(
    make_server: Callable[..., Server], seven_png: bytes, measure: Callable[[str], Measurements]
) -> None:
    found = measure(f"{TIMES} × capacity for {SECONDS} s, at most {QUEUE:,} queued")
    server = make_server(device="cpu", max_queued_images=QUEUE)
    request = form("/predict", seven_png)
    run(Load(address(server), [request]).closed_loop(32, number=200))  # warm
    alone = run(Load(address(server), [request]).closed_loop(32, seconds=MEASURING_S))
    capacity = len(alone) / MEASURING_S
    began = time.monotonic()
    asked, probed, memory = run(overload(server, request, TIMES * capacity))
    server.stop()

    good = [answer for answer in asked if answer.status == 200]
    rejected = [answer for answer in asked if answer.status == 429]
    in_time = sum(answer.due + answer.latency_s <= began + SECONDS for answer in good)
    share = 100 * in_time / SECONDS / capacity
    found.note("capacity, requests/s", capacity)
    found.note("offered, requests/s", len(asked) / SECONDS)
    found.note("p99 of 200, ms", percentile_ms(good, 99))
    found.note("p50 of 429, ms", percentile_ms(rejected, 50))
    found.note("statuses", str(counted(asked)))
    found.require("goodput, % of capacity", share, "≥ 75", share >= 75, strict=False)
    others = len(asked) - len(good) - len(rejected)
    found.require("neither 200 nor 429", others, "0", others == 0)
    found.require("rejected", len(rejected), "> 0", bool(rejected))
    different = len({answer.kept for answer in good})
    found.require("different answers to one picture", different, "1", different == 1)
    late_ms = percentile_ms(rejected, 99)
    found.require("p99 of 429, ms", late_ms, "≤ 100", late_ms <= 100, strict=False)
    bad_probes = sum(answer.status != 200 for answer in probed)
    found.require("probes that failed", bad_probes, "0", bad_probes == 0)
    late_ms = percentile_ms(probed, 99)
    found.require("p99 of probes, ms", late_ms, "≤ 100", late_ms <= 100, strict=False)
    half = len(memory) // 2
    grown = (max(memory[half:]) - max(memory[:half])) / 1000
    found.note("memory before, MB", memory[0] / 1000)
    found.require("memory at most, MB", max(memory) / 1000, "≤ 500", max(memory) <= 500_000)
    found.require("growth in the second half, MB", grown, "≤ 20", grown <= 20, strict=False)
    found.check()

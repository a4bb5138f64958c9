"""CPU cost of the engine alone, in this process: the part of a request that no server can save."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from benchmarks.serving.uploads import example_digit
from model import load, open_bytes
from model.system import granted_cpus

_CALLS = 20  # of each measurement


def engine_costs(repeats: int) -> dict[str, list[float]]:
    """Measure CPU milliseconds per image, `repeats` times for each way to call the engine."""
    classifier = load(device="cpu", threads=1)
    engine, n, file = classifier.engine, classifier.engine.n_draws, example_digit()
    one = open_bytes(file).pixels[None]
    eight = np.repeat(one, 8, axis=0)
    cpus = granted_cpus()
    ways: dict[str, tuple[Callable[[], object], int, int]] = {  # call, images, threads
        "engine, one image": (partial(engine.logits, one, n), 1, 1),
        f"engine, one image on each of {cpus} CPUs": (partial(engine.logits, one, n), 1, cpus),
        "engine, a batch of eight": (partial(engine.logits, eight, n), 8, 1),
        "`predict`: preprocessing, engine, summary": (lambda: classifier.predict(file), 1, 1),
    }
    costs: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(1 + repeats):  # the first round warms up
        for way, (call, images, threads) in ways.items():
            costs[way].append(1000 * _cpu_s(call, threads) / images)
    return {way: numbers[1:] for way, numbers in costs.items()}


def _cpu_s(call: Callable[[], object], threads: int) -> float:
    """CPU seconds of one call while `threads` threads call at once."""

    def calls(_thread: int) -> None:
        for _ in range(_CALLS):
            call()

    with ThreadPoolExecutor(threads) as pool:
        began = time.process_time()
        list(pool.map(calls, range(threads)))
        return (time.process_time() - began) / (_CALLS * threads)

"""What the engine alone costs, in this process: the part of a request that no server can save."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from model import load, open_bytes
from model.system.cpu import granted_cpus

__all__ = ["engine_costs"]

_CALLS = 20  # between two looks at the clock


def engine_costs(example: Path, repeats: int) -> dict[str, list[float]]:
    """CPU milliseconds per picture, `repeats` measurements of each way to ask.

    Args:
        example: A picture.
        repeats: Number of measurements.
    """
    classifier = load(device="cpu", threads=1)
    engine, picture = classifier.engine, example.read_bytes()
    one = open_bytes(picture).pixels[None]
    eight = np.repeat(one, 8, axis=0)
    cores = granted_cpus()
    ways: dict[str, tuple[Callable[[], object], int, int]] = {
        "engine, one picture": (lambda: engine.logits(one, engine.n_draws), 1, 1),
        f"engine, one on each of {cores} cores": (
            lambda: engine.logits(one, engine.n_draws), 1, cores,
        ),
        "engine, eight pictures at once": (lambda: engine.logits(eight, engine.n_draws), 8, 1),
        "`predict`: door, engine, summary": (lambda: classifier.predict(picture), 1, 1),
    }  # fmt: skip
    costs: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(1 + repeats):  # the first warms up; interleaved, so that all meet the same noise
        for way, (call, pictures, threads) in ways.items():
            costs[way].append(1000 * _cpu_s(call, threads) / pictures)
    return {way: numbers[1:] for way, numbers in costs.items()}


def _cpu_s(call: Callable[[], object], threads: int) -> float:
    """CPU seconds of one call, while as many threads do nothing but call."""

    def calls(_thread: int) -> None:
        for _ in range(_CALLS):
            call()

    with ThreadPoolExecutor(threads) as pool:
        began = time.process_time()
        list(pool.map(calls, range(threads)))
        return (time.process_time() - began) / (_CALLS * threads)

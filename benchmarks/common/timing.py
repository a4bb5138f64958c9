"""Interleaved timing: contenders take turns, so that noise of the machine affects all alike."""

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

_MIN_SAMPLE_S = 0.02  # faster calls are repeated to last so long


@dataclass(frozen=True)
class Contender:
    """A call to be timed."""

    name: str
    call: Callable[[int], object]  # its argument is the number of draws
    threads: int  # CPU threads that it uses; PyTorch's thread count is set to it
    n_draws: int = 1
    requests: int = 1  # that one call answers


def interleaved(contenders: Sequence[Contender], *, rounds: int, title: str) -> list[float]:
    """Return the median seconds per request of each contender.

    Each round measures every contender once, in random order.
    """
    for contender in contenders:
        _measure(contender, 1)  # warm-up
    repeats = [math.ceil(_MIN_SAMPLE_S / _measure(contender, 1)) for contender in contenders]
    samples: list[list[float]] = [[] for _ in contenders]
    order = list(range(len(contenders)))
    shuffle = random.Random(0).shuffle  # noqa: S311 - not for secrets
    with tqdm(total=rounds * len(order), desc=title, disable=None, leave=False) as bar:
        for _ in range(rounds):
            shuffle(order)
            for i in order:
                bar.set_postfix_str(contenders[i].name)
                samples[i].append(_measure(contenders[i], repeats[i]))
                bar.update()
    pairs = zip(contenders, samples, strict=True)
    return [statistics.median(times) / contender.requests for contender, times in pairs]


def _measure(contender: Contender, repeats: int) -> float:
    """Return the mean seconds of a few calls."""
    torch.set_num_threads(contender.threads)
    contender.call(1)  # starts the threads and refills the caches
    started = time.perf_counter()
    for _ in range(repeats):
        contender.call(contender.n_draws)
    return (time.perf_counter() - started) / repeats

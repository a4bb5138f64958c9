"""Contenders timed in one run, taking turns, so that whatever disturbs the machine hits all."""

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

__all__ = ["Contender", "interleaved"]

_SHORTEST_S = 0.02  # one measurement; what is faster is repeated


@dataclass(frozen=True)
class Contender:
    """Something to be timed.

    Attributes:
        name: What the table calls it.
        call: What is timed, for a number of draws.
        threads: CPU threads it uses; PyTorch's number is set to it.
        n_draws: Draws that `call` is asked for.
        requests: Requests that one `call` answers.
    """

    name: str
    call: Callable[[int], object]
    threads: int
    n_draws: int = 1
    requests: int = 1


def interleaved(contenders: Sequence[Contender], *, rounds: int, title: str) -> list[float]:
    """Median seconds per request of each contender.

    In every round each is measured once, in an order of its own.

    Args:
        contenders: What to time.
        rounds: Measurements of each.
        title: What the progress bar says.
    """
    # A first call of each is thrown away; the second decides about repetitions.
    for contender in contenders:
        _measure(contender, 1)
    repeats = [math.ceil(_SHORTEST_S / _measure(contender, 1)) for contender in contenders]
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
    """Seconds of one call, the mean of a few."""
    torch.set_num_threads(contender.threads)
    contender.call(1)  # wakes the threads, and fetches code that the one before has displaced
    started = time.perf_counter()
    for _ in range(repeats):
        contender.call(contender.n_draws)
    return (time.perf_counter() - started) / repeats

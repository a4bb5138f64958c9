"""A parallel map over images, with a progress bar."""

import multiprocessing
import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from training.distributed import SINGLE_PROCESS, World
from training.interruption import check_interrupted

T = TypeVar("T")
R = TypeVar("R")

_CHUNK = 250  # images sent to a process at once
_MIN_FOR_PROCESSES = 2000  # images; below, starting processes takes longer than it saves


def stream(seed: int, index: int) -> np.random.Generator:
    """The random numbers of one task; they depend on its seed and index alone."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))


def parallel_map(
    work: Callable[[T], R],
    tasks: Sequence[T],
    title: str,
    *,
    processes: int = 1,
    world: World = SINGLE_PROCESS,
) -> list[R]:
    """The results of all tasks, in order.

    Args:
        work: A module's function of one task.
        tasks: The tasks, one for each image.
        title: Title of the progress bar.
        processes: How many worker processes to use.
        world: The processes that share the tasks; each gets all results.
    """
    own = tasks[world.rank :: world.size]
    done = _map(work, own, processes if len(tasks) > _MIN_FOR_PROCESSES else 1)
    silent = None if world.is_main else True
    own_results = []
    with (
        closing(done),
        tqdm(done, desc=title, total=len(own), unit="image", disable=silent, leave=False) as bar,
    ):
        for result in bar:
            check_interrupted()
            own_results.append(result)
    by_rank = world.all_gather(own_results)
    return [by_rank[i % world.size][i // world.size] for i in range(len(tasks))]


def _map(work: Callable[[T], R], tasks: Sequence[T], processes: int) -> Generator[R, None, None]:
    if processes == 1:
        yield from map(work, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _ignore_sigint) as pool:
        yield from pool.imap(work, tasks, _CHUNK)


def _ignore_sigint() -> None:
    """Leave Ctrl-C to the parent, which then terminates this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

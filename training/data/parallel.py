"""A parallel map over chunks of images, with a progress bar."""

import multiprocessing
import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TypeVar

from tqdm import tqdm

from training.distributed import SINGLE_PROCESS, World

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 250
"""Images in one task."""

_MIN_FOR_PROCESSES = 2000  # images; below, starting processes takes longer than it saves


def parallel_map(
    work: Callable[[T], Sequence[R]],
    tasks: Sequence[T],
    *,
    total: int,
    processes: int = 1,
    check_interrupted: Callable[[], None] = lambda: None,
    title: str,
    world: World = SINGLE_PROCESS,
) -> list[R]:
    """The results of all tasks, in order.

    Args:
        work: A module's function that takes a task and returns one result per image.
        tasks: The tasks, each for some images.
        total: Number of images in all tasks.
        processes: How many worker processes to use.
        check_interrupted: Called after each task; may raise to stop.
        title: Title of the progress bar.
        world: The processes that share the tasks; each gets all results.
    """
    own = tasks[world.rank :: world.size]
    done = _map(work, own, processes if total > _MIN_FOR_PROCESSES else 1)
    silent = None if world.is_main else True
    with (
        closing(done),
        tqdm(total=total, desc=title, unit="image", disable=silent, leave=False) as bar,
    ):
        own_results = []
        for results in done:
            check_interrupted()
            bar.update(len(results) * world.size)
            own_results.append(results)
    by_rank = world.all_gather(own_results)
    return [
        result for i in range(len(tasks)) for result in by_rank[i % world.size][i // world.size]
    ]


def _map(
    work: Callable[[T], Sequence[R]], tasks: Sequence[T], processes: int
) -> Generator[Sequence[R], None, None]:
    if processes == 1:
        yield from map(work, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _ignore_sigint) as pool:
        yield from pool.imap(work, tasks)


def _ignore_sigint() -> None:
    """Leave Ctrl-C to the parent, which then terminates this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

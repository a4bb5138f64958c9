"""Work on many pictures in several processes, with a progress bar."""

import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import TypeVar

from tqdm import tqdm

from training.distributed import ALONE, Ranks

__all__ = ["CHUNK", "in_processes"]

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 250
"""Pictures that a process should be given at a time."""

_WORTH_PROCESSES = 2000  # pictures; below, starting processes takes longer than they save


def in_processes(
    work: Callable[[T], Sequence[R]],
    tasks: Sequence[T],
    *,
    total: int,
    processes: int = 1,
    check_interrupted: Callable[[], None] = lambda: None,
    title: str,
    ranks: Ranks = ALONE,
) -> Iterator[R]:
    """The results of all tasks, in their order.

    Args:
        work: A function of a module, applied to every task; returns one result per picture.
        tasks: Its arguments, each for some pictures.
        total: How many pictures there are.
        processes: How many work at once.
        check_interrupted: Called now and then; may raise to end it.
        title: What the progress bar says.
        ranks: Processes, of several machines perhaps, that share the tasks out; each is given all
            results.
    """
    own = tasks[ranks.rank :: ranks.count]
    done = _work_off(work, own, processes if total > _WORTH_PROCESSES else 1)
    silent = None if ranks.is_first else True
    with (
        closing(done),
        tqdm(total=total, desc=title, unit="picture", disable=silent, leave=False) as bar,
    ):
        mine = []
        for results in done:
            check_interrupted()
            bar.update(len(results) * ranks.count)
            if ranks.count == 1:
                yield from results
            else:
                mine.append(results)
    if ranks.count > 1:
        of_rank = ranks.gather(mine)
        for i in range(len(tasks)):
            yield from of_rank[i % ranks.count][i // ranks.count]


def _work_off(
    work: Callable[[T], Sequence[R]], tasks: Sequence[T], processes: int
) -> Generator[Sequence[R], None, None]:
    """The results of each task, in their order."""
    if processes == 1:
        yield from map(work, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _ignore_interruptions) as pool:
        yield from pool.imap(work, tasks)


def _ignore_interruptions() -> None:
    """Leave Ctrl-C to the process that waits for this one, and end when that one says so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

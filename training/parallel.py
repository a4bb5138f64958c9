"""Work on many pictures in several processes, with a progress bar."""

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TypeVar

from tqdm import tqdm

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
) -> Iterator[R]:
    """The results of all tasks, in their order.

    Args:
        work: A function of a module, applied to every task; returns one result per picture.
        tasks: Its arguments, each for some pictures.
        total: How many pictures there are.
        processes: How many work at once.
        check_interrupted: Called now and then; may raise to end it.
        title: What the progress bar says.
    """
    with ExitStack() as stack:
        bar = tqdm(total=total, desc=title, unit="picture", disable=None, leave=False)
        stack.enter_context(bar)
        results: Iterable[Sequence[R]] = map(work, tasks)
        if processes > 1 and total > _WORTH_PROCESSES:
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(context.Pool(processes, _ignore_interruptions))
            results = pool.imap(work, tasks)
        for result in results:
            check_interrupted()
            yield from result
            bar.update(len(result))


def _ignore_interruptions() -> None:
    """Leave Ctrl-C to the process that waits for this one, and end when that one says so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

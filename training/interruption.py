"""SIGTERM and Ctrl-C as a `KeyboardInterrupt` that cannot be lost.

An exception raised in a destructor is ignored, so long loops also call `check_interrupted`.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_received: set[int] = set()


def check_interrupted() -> None:
    """Raise `KeyboardInterrupt` if the process has been asked to stop."""
    if _received:
        raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """Handle SIGTERM and Ctrl-C within the context."""
    before = {
        number: signal.signal(number, _interrupt)
        for number in (signal.SIGTERM, signal.SIGINT)
        if signal.getsignal(number) is not signal.SIG_IGN  # as a shell's background jobs have it
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    _received.add(number)
    raise KeyboardInterrupt

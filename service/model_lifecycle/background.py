"""One thread for work that may take long, and that nothing waits for at the end of the process."""

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

__all__ = ["BackgroundThread", "is_busy"]

T = TypeVar("T")

_Work: TypeAlias = tuple["Future[Any]", Callable[[], Any]]


_busy: set[int] = set()


def is_busy() -> bool:
    """Whether any of these threads is at work."""
    return bool(_busy)


class BackgroundThread:
    """Works off what it is given, in order. It ends with this object, or with the process.

    An executor's threads are joined when the interpreter ends, however long they still take.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        """Start the thread; see the class."""
        self._waiting: SimpleQueue[_Work | None] = SimpleQueue()
        threading.Thread(target=_work_off, args=(self._waiting,), name=name, daemon=True).start()
        weakref.finalize(self, self._waiting.put, None).atexit = False

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Have it do something; the future is done when that is."""
        future: Future[T] = Future()
        self._waiting.put((future, work))
        return future


def _work_off(waiting: "SimpleQueue[_Work | None]") -> None:
    while (given := waiting.get()) is not None:
        future, work = given
        if future.set_running_or_notify_cancel():
            _busy.add(threading.get_ident())
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits for it
                future.set_exception(error)
            finally:
                _busy.discard(threading.get_ident())
        del given, future, work  # while it waits, it holds on to no model

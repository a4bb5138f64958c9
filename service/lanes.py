"""Lanes: threads that decode and infer, so that neither ever runs on the event loop."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.problems import ProblemError

__all__ = ["Done", "Lanes"]

T = TypeVar("T")


@dataclass(frozen=True)
class Done(Generic[T]):
    """What came of one piece of work: its result or its exception, and its times in ms."""

    result: T | None
    error: Exception | None
    queue_ms: float
    compute_ms: float


class Lanes:
    """A fixed number of threads behind one bounded queue, counted in pictures.

    Args:
        n_lanes: Pictures worked on at once.
        queue: Most pictures waiting.
        timeout_s: Seconds within which a request must be answered.
    """

    def __init__(self, n_lanes: int, queue: int, timeout_s: float) -> None:
        """Make the lanes; threads start with the first work."""
        self.n_lanes = n_lanes
        self._queue = queue
        self._timeout_s = timeout_s
        self._executor = ThreadPoolExecutor(n_lanes, thread_name_prefix="lane")
        self._lock = threading.Lock()
        self._waiting = 0
        self._usual_s = 0.05  # running mean of the time one picture takes

    async def run(self, works: Sequence[Callable[[], T]]) -> list[Done[T]]:
        """Do all pieces of work and wait for them.

        An exception of one piece is its own outcome and touches nothing else.

        Raises:
            ProblemError: 413 if there can never be room for all of them; 429 if there is none
                now; 504 if they were not all done in time, in which case those still waiting are
                dropped.
        """
        futures = self._admit(works)
        tasks = [asyncio.wrap_future(future) for future in futures]
        try:
            async with asyncio.timeout(self._timeout_s):
                return list(await asyncio.gather(*tasks))
        except TimeoutError:
            raise ProblemError(
                504,
                f"Not answered within {self._timeout_s:g} s; try again later, or ask for fewer "
                "samples.",
            ) from None
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """Finish what is being worked on and stop the threads."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _admit(self, works: Sequence[Callable[[], T]]) -> list[Future[Done[T]]]:
        room = self._queue + self.n_lanes
        if len(works) > room:
            raise ProblemError(
                413, f"{len(works)} pictures at once are more than {room}; send smaller batches."
            )
        with self._lock:
            if self._waiting + len(works) > room:
                retry_s = math.ceil(self._waiting * self._usual_s / self.n_lanes)
                raise ProblemError(
                    429,
                    f"{self._waiting:,} pictures are waiting and {self._queue:,} may; try again "
                    "after the seconds in Retry-After.",
                    {"Retry-After": str(min(max(retry_s, 1), 60))},
                )
            self._waiting += len(works)
        return [self._submit(work) for work in works]

    def _submit(self, work: Callable[[], T]) -> Future[Done[T]]:
        submitted = time.perf_counter()

        def measured() -> Done[T]:
            began = time.perf_counter()
            result, error = None, None
            try:
                result = work()
            except Exception as caught:  # noqa: BLE001 - handed to the request that it belongs to
                error = caught
            ended = time.perf_counter()
            self._usual_s += 0.05 * (ended - began - self._usual_s)
            return Done(result, error, 1000 * (began - submitted), 1000 * (ended - began))

        future = self._executor.submit(measured)
        # Runs once, whether the work was done or dropped while waiting.
        future.add_done_callback(self._release)
        return future

    def _release(self, _future: Future[Done[T]]) -> None:
        with self._lock:
            self._waiting -= 1

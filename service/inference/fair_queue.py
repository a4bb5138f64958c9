"""A queue of jobs in which requests take turns."""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence

from service.inference.jobs import Job

_MAX_BATCH_BYTES = 256 * 1024  # larger files may take longer to decode than to compute


class FairQueue:
    """Jobs that wait for a thread; a request with many images does not block the others."""

    def __init__(self) -> None:
        self._requests: deque[deque[Job]] = deque()  # none of them empty
        self._n_jobs = 0
        self._changed = threading.Condition()
        self._n_idle = 0
        self._is_closed = False

    def put(self, jobs: Sequence[Job]) -> None:
        """Add the jobs of one request."""
        if not jobs:
            return
        with self._changed:
            self._requests.append(deque(jobs))
            self._n_jobs += len(jobs)
            self._changed.notify(len(jobs))

    def discard(self, jobs: Sequence[Job]) -> None:
        """Remove these jobs, if they still wait."""
        unwanted = set(jobs)
        with self._changed:
            left = (deque(job for job in turn if job not in unwanted) for turn in self._requests)
            self._requests = deque(turn for turn in left if turn)
            self._n_jobs = sum(map(len, self._requests))

    def close(self) -> None:
        """Drop all jobs and wake all threads, whose `take` returns None from now on."""
        with self._changed:
            self._is_closed = True
            self._requests.clear()
            self._n_jobs = 0
            self._changed.notify_all()

    def take(self, most: int) -> list[Job] | None:
        """Wait for jobs and return this thread's share, at most `most`; None once closed.

        Idle threads share alike. Jobs past their deadline are dropped.
        """
        with self._changed:
            self._n_idle += 1
            try:
                while not self._is_closed:
                    if jobs := self._take_share(min(most, math.ceil(self._n_jobs / self._n_idle))):
                        return jobs
                    if not self._n_jobs:
                        self._changed.wait()
                return None
            finally:
                self._n_idle -= 1

    def _take_share(self, most: int) -> list[Job]:
        share: list[Job] = []
        n_bytes, last_turn = 0, None
        while self._requests and len(share) < most:
            turn = self._requests[0]
            n_bytes += turn[0].n_bytes
            if share and n_bytes > _MAX_BATCH_BYTES:
                break
            job, now, last_turn = turn.popleft(), time.monotonic(), turn
            self._n_jobs -= 1
            if not turn:
                self._requests.popleft()
            if now < job.deadline and not job.is_released:
                job.started = job.started or now
                share.append(job)
        if self._requests and self._requests[0] is last_turn:
            self._requests.rotate(-1)
        return share

"""Admission: one bounded queue, counted in pictures, and the lanes that work it off.

Neither decoding nor inference runs on the event loop. A *lane* is a thread that takes what waits:
on a CPU its share of it, so that no lane idles while another holds a pile; on CUDA all of it, up
to a batch, whenever the device is free, with pictures decoded beforehand by threads of their own.
No lane waits for a batch to fill.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from starlette.requests import ClientDisconnect

from service.errors import ProblemError

__all__ = ["Done", "Lanes", "too_late"]

Q = TypeVar("Q")  # what is asked about one picture
P = TypeVar("P")  # a decoded picture
A = TypeVar("A")  # an answer

_log = logging.getLogger("service")

# What would wait for longer is refused at once: where lanes are slow, a long queue would otherwise
# let in more than can be answered in time, and whoever waits in vain keeps others out.
_MOST_OF_TIMEOUT = 0.5


def too_late(timeout_s: float) -> ProblemError:
    """What is answered when the time for an answer is over."""
    return ProblemError(
        504, f"Not answered within {timeout_s:g} s; try again later, or ask for fewer samples."
    )


@dataclass(frozen=True)
class Done(Generic[A]):
    """What came of one picture: its answer or its exception, and its times in ms."""

    answer: A | None
    error: Exception | None
    queue_ms: float
    compute_ms: float

    def result(self) -> A:
        """The answer.

        Raises:
            Exception: What there is in place of it.
        """
        if self.error is not None:
            raise self.error
        if self.answer is None:
            raise RuntimeError("a lane returned neither an answer nor an error")
        return self.answer


@dataclass(eq=False, repr=False)
class _Job(Generic[Q, P, A]):
    """One picture on its way. The event loop drops it; a lane fills it in."""

    question: Q
    future: asyncio.Future[Done[A]]
    deadline: float
    submitted: float = field(default_factory=time.monotonic)
    began: float = 0.0
    prepared: P | None = None
    answer: A | None = None
    error: Exception | None = None
    released: bool = False

    def done(self) -> Done[A]:
        """What came of it, at this moment."""
        waited, worked = self.began - self.submitted, time.monotonic() - self.began
        return Done(self.answer, self.error, 1000 * waited, 1000 * worked)


class Lanes(Generic[Q, P, A]):
    """Threads behind one bounded queue. To be used from one event loop.

    Args:
        prepare: Decodes the picture of a question.
        compute: Answers questions that belong together, given with their decoded pictures.
        belongs: Questions for which this gives the same value may be computed together.
        size: Bytes of a question's file; large ones are not put together with others.
        n_lanes: Threads that compute.
        n_decoders: Threads that decode for the lanes; if 0, each lane decodes for itself.
        batch: Most pictures computed together.
        queue: Most pictures waiting.
        timeout_s: Seconds within which a request must be answered.
        worked: Told by each lane how many seconds it was at work on what it took, from its thread.
    """

    def __init__(
        self,
        prepare: Callable[[Q], P],
        compute: Callable[[Sequence[tuple[Q, P]]], Sequence[A]],
        *,
        belongs: Callable[[Q], Hashable],
        size: Callable[[Q], int] = lambda _: 0,
        n_lanes: int,
        n_decoders: int = 0,
        batch: int = 1,
        queue: int,
        timeout_s: float,
        worked: Callable[[float], object] = lambda _: None,
    ) -> None:
        """Start the threads; see the class."""
        self.n_lanes = n_lanes
        self._prepare, self._compute, self._belongs = prepare, compute, belongs
        self._queue, self._timeout_s, self._worked = queue, timeout_s, worked
        self._pending = 0  # admitted and not yet answered or dropped; the event loop's alone
        self._usual_s, self._n_takes = 0.0, 0  # running mean of the time that one picture takes
        self._arrived: _Waiting[Q, P, A] = _Waiting(size)
        self._decoded: _Waiting[Q, P, A] = _Waiting(size) if n_decoders else self._arrived
        self._threads = [
            *(self._thread(f"decoder-{i}", self._decode) for i in range(n_decoders)),
            *(self._thread(f"lane-{i}", self._lane, batch) for i in range(n_lanes)),
        ]
        for thread in self._threads:
            thread.start()

    async def run(
        self,
        questions: Sequence[Q],
        client_left: "asyncio.Future[Any] | None" = None,
        *,
        since: float | None = None,
    ) -> list[Done[A]]:
        """Answer all questions of one request.

        An exception at one picture is its own outcome and touches nothing else.

        Args:
            questions: One for each picture.
            client_left: Done when nobody waits for the answer any more.
            since: When the time for an answer began, by `time.monotonic`; now if None.

        Raises:
            ProblemError: 413 if there can never be room for all of them; 429 if there is none
                now; 504 if they were not all done in time.
            ClientDisconnect: If the client has left. In either case those that still wait are
                dropped.
        """
        now = time.monotonic()
        left_s = self._timeout_s - (now - since if since is not None else 0)
        jobs = self._admit(questions, now + left_s)
        if client_left is not None:
            client_left.add_done_callback(lambda _: self._leave(jobs))
        try:
            async with asyncio.timeout(left_s):
                return [await job.future for job in jobs]
        except TimeoutError:
            raise too_late(self._timeout_s) from None
        finally:
            self._drop(jobs)

    @property
    def n_pending(self) -> int:
        """How many pictures are waiting or being answered."""
        return self._pending

    def refusal(self, n: int, before: int = 0) -> ProblemError | None:
        """What so many pictures are refused with, if there is no room for them.

        Args:
            n: How many pictures.
            before: How many others have arrived and have yet to ask for their places.

        Returns:
            413 if there can never be; 429 if there is none now, or if what waits already takes too
            much of the time in which an answer is due.

        Returned and not raised: in a crowd there are thousands a second, and an exception that was
        raised leads, by its traceback, to the frames that lead to it. The collector of such circles
        would stop everything for a tenth of a second and more, every second.
        """
        room = self._queue + self.n_lanes
        if n > room:
            return ProblemError(
                413, f"{n} pictures at once are more than {room}; send smaller batches."
            )
        wait_s = self._pending * self._usual_s / self.n_lanes
        waiting = self._pending + before
        if waiting + n > room:
            told = f"{self._queue:,} may"
        elif wait_s > _MOST_OF_TIMEOUT * self._timeout_s:
            told = f"that takes {wait_s:.1f} s of the {self._timeout_s:g} s for an answer"
        else:
            return None
        return ProblemError(
            429,
            f"{waiting:,} pictures are waiting and {told}; try again after the seconds in "
            "Retry-After.",
            {"Retry-After": str(min(max(math.ceil(wait_s), 1), 60))},
        )

    def close(self) -> None:
        """Finish what is being worked on, drop what waits and stop the threads."""
        self._arrived.close()
        self._decoded.close()
        for thread in self._threads:
            thread.join()

    # On the event loop

    def _admit(self, questions: Sequence[Q], deadline: float) -> list[_Job[Q, P, A]]:
        refused = self.refusal(len(questions))
        if refused is not None:
            raise refused
        loop = asyncio.get_running_loop()
        jobs = [_Job[Q, P, A](question, loop.create_future(), deadline) for question in questions]
        self._pending += len(jobs)
        self._arrived.put(jobs)
        return jobs

    def _leave(self, jobs: Sequence[_Job[Q, P, A]]) -> None:
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(ClientDisconnect())
                # Looked at: of many it is the first alone that is waited for, and asyncio would
                # report the others as never retrieved.
                job.future.exception()

    def _drop(self, jobs: Sequence[_Job[Q, P, A]]) -> None:
        """Whatever a lane has not begun will cost nothing any more, and its place is free."""
        if all(job.released for job in jobs):
            return
        self._arrived.discard(jobs)
        self._decoded.discard(jobs)
        for job in jobs:
            self._release(job)
            job.future.cancel()

    def _deliver(self, jobs: Sequence[_Job[Q, P, A]], dones: Sequence[Done[A]]) -> None:
        for job, done in zip(jobs, dones, strict=True):
            self._release(job)
            if not job.future.done():
                job.future.set_result(done)

    def _release(self, job: _Job[Q, P, A]) -> None:
        if not job.released:
            job.released = True
            self._pending -= 1

    # In the threads

    def _thread(self, name: str, work: Callable[..., None], *arguments: object) -> threading.Thread:
        return threading.Thread(target=work, args=arguments, name=name, daemon=True)

    def _decode(self) -> None:
        while (jobs := self._arrived.take(1)) is not None:
            for job in jobs:
                self._prepare_one(job)
            self._decoded.put([job for job in jobs if not job.released])
            del job, jobs  # while it waits, a thread holds on to no model that has been replaced

    def _lane(self, batch: int) -> None:
        while (jobs := self._decoded.take(batch)) is not None:
            taken = time.monotonic()  # later than a job's own beginning, if it was decoded before
            try:
                self._work_off(jobs)
            except Exception as error:  # noqa: BLE001 - a lane must survive whatever comes
                _log.exception("a lane failed")
                for job in jobs:
                    job.error = job.error or error
            dones = [job.done() for job in jobs]
            seconds = time.monotonic() - taken
            self._worked(seconds)
            self._learn(seconds / len(jobs))
            with suppress(RuntimeError):  # a loop that is closed has nobody left to wait
                jobs[0].future.get_loop().call_soon_threadsafe(self._deliver, jobs, dones)
            del jobs, dones  # while it waits, a thread holds on to no model that has been replaced

    def _learn(self, picture_s: float) -> None:
        """Note how long a picture took.

        The first takes weigh as much as each other: a guess in their place would have a service
        that has just started refuse what it could answer.
        """
        self._n_takes += 1
        self._usual_s += max(0.05, 1 / self._n_takes) * (picture_s - self._usual_s)

    def _work_off(self, jobs: Sequence[_Job[Q, P, A]]) -> None:
        together: dict[Hashable, list[_Job[Q, P, A]]] = {}
        for job in jobs:
            if job.prepared is None and job.error is None:
                self._prepare_one(job)
            if job.error is None:
                together.setdefault(self._belongs(job.question), []).append(job)
        for group in together.values():
            self._answer(group)

    def _prepare_one(self, job: _Job[Q, P, A]) -> None:
        try:
            job.prepared = self._prepare(job.question)
        except Exception as error:  # noqa: BLE001 - handed to the request that it belongs to
            job.error = error

    def _answer(self, group: Sequence[_Job[Q, P, A]]) -> None:
        """Compute a group; if that fails, one by one, so that a fault harms only its own."""
        try:
            pairs = [(job.question, job.prepared) for job in group]
            answers = self._compute(pairs)  # type: ignore[arg-type]  # prepared: no None among them
            for job, answer in zip(group, answers, strict=True):
                job.answer = answer
        except Exception as error:  # noqa: BLE001 - handed to the request that it belongs to
            if len(group) == 1:
                group[0].error = error
            else:
                for job in group:
                    self._answer([job])


class _Waiting(Generic[Q, P, A]):
    """Jobs that wait for a thread: requests take turns, each with its jobs in order.

    A request of many pictures does not have those of others wait until all of its own are taken.
    """

    _LARGE_BYTES = 256 * 1024  # files that together may take longer to decode than to compute

    def __init__(self, size: Callable[[Q], int]) -> None:
        self._size = size
        self._requests: deque[deque[_Job[Q, P, A]]] = deque()  # none of them empty
        self._n_jobs = 0
        self._change = threading.Condition()
        self._idle = 0
        self._closed = False

    def put(self, jobs: Sequence[_Job[Q, P, A]]) -> None:
        """Add the jobs of a request."""
        if not jobs:
            return
        with self._change:
            self._requests.append(deque(jobs))
            self._n_jobs += len(jobs)
            self._change.notify(len(jobs))

    def discard(self, jobs: Sequence[_Job[Q, P, A]]) -> None:
        """Take these out, if they are still here."""
        unwanted = set(jobs)
        with self._change:
            left = (deque(job for job in turn if job not in unwanted) for turn in self._requests)
            self._requests = deque(turn for turn in left if turn)
            self._n_jobs = sum(map(len, self._requests))

    def close(self) -> None:
        with self._change:
            self._closed = True
            self._requests.clear()
            self._n_jobs = 0
            self._change.notify_all()

    def take(self, most: int) -> list[_Job[Q, P, A]] | None:
        """Wait for jobs and take this thread's share, at most `most`; None once it is closed.

        Threads that wait here at the same time share alike. Jobs that are past their deadline are
        passed over.
        """
        with self._change:
            self._idle += 1
            try:
                while not self._closed:
                    if taken := self._share(min(most, math.ceil(self._n_jobs / self._idle))):
                        return taken
                    if not self._n_jobs:
                        self._change.wait()
                return None
            finally:
                self._idle -= 1

    def _share(self, most: int) -> list[_Job[Q, P, A]]:
        taken: list[_Job[Q, P, A]] = []
        n_bytes, begun = 0, None
        while self._requests and len(taken) < most:
            turn = self._requests[0]
            n_bytes += self._size(turn[0].question)
            if taken and n_bytes > self._LARGE_BYTES:
                break
            job, now, begun = turn.popleft(), time.monotonic(), turn
            self._n_jobs -= 1
            if not turn:
                self._requests.popleft()
            if now < job.deadline and not job.released:
                job.began = job.began or now
                taken.append(job)
        if self._requests and self._requests[0] is begun:
            self._requests.rotate(-1)  # it has had its turn
        return taken

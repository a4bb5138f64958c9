"""Worker threads behind one bounded queue, counted in images.

Neither decoding nor inference runs on the event loop. On a CPU a worker takes its share of the
waiting images, so that none idles while another has a pile. On CUDA the single worker takes whole
batches, and separate threads decode for it. No worker waits for a batch to fill.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any

from starlette.requests import ClientDisconnect

from model.system.cpu import granted_cpus
from service.errors import deadline_exceeded
from service.inference.admission import AdmissionController
from service.inference.decode_budget import DecodeBudget
from service.inference.fair_queue import FairQueue
from service.inference.jobs import Job, JobResult
from service.request_state import Reservation
from service.settings import Settings

_log = logging.getLogger("service")

# A CPU gains little from larger batches; a GPU is filled by them.
_CPU_BATCH, _CUDA_BATCH = 8, 64


class WorkerPool:
    """Threads that answer jobs. To be used from one event loop.

    Args:
        n_workers: Threads that compute.
        n_decoders: Threads that decode for them; if 0, each worker decodes for itself.
        max_batch: The most images computed together.
        max_queued: The most images that wait.
        timeout_s: Seconds within which a request must be answered.
        max_pixels: The most pixels of one picture.
        max_decoding_pixels: The most pixels decoded at the same time.
        on_batch_done: Called by each worker with the seconds it spent on a batch.
    """

    def __init__(
        self,
        *,
        n_workers: int,
        max_queued: int,
        timeout_s: float,
        n_decoders: int = 0,
        max_batch: int = 1,
        max_pixels: int = 25_000_000,
        max_decoding_pixels: int = 100_000_000,
        on_batch_done: Callable[[float], object] = lambda _: None,
    ) -> None:
        self.n_workers = n_workers
        self.admission = AdmissionController(
            max_queued=max_queued, n_workers=n_workers, timeout_s=timeout_s
        )
        self._timeout_s, self._max_batch, self._max_pixels = timeout_s, max_batch, max_pixels
        self._decode_budget = DecodeBudget(max_decoding_pixels)
        self._on_batch_done = on_batch_done
        self._arrived = FairQueue()
        self._decoded = FairQueue() if n_decoders else self._arrived
        self._threads = [
            threading.Thread(target=target, name=f"{name}-{i}", daemon=True)
            for name, n, target in (
                ("decoder", n_decoders, self._decode),
                ("worker", n_workers, self._work),
            )
            for i in range(n)
        ]
        for thread in self._threads:
            thread.start()

    async def run(
        self,
        jobs: Sequence[Job],
        *,
        reservation: Reservation | None = None,
        client_left: "asyncio.Future[Any] | None" = None,
        since: float | None = None,
    ) -> list[JobResult]:
        """Answer all jobs of one request.

        An exception for one image is its own result and does not affect the others.

        Args:
            jobs: One for each image.
            reservation: The place that the request holds; the jobs take it over.
            client_left: Done when nobody waits for the answer any more.
            since: When the time for the answer began, by `time.monotonic`; default: now.

        Raises:
            ProblemError: 413 if there can never be room for all jobs; 429 if there is none now;
                504 if they are not all done in time.
            ClientDisconnect: If the client has left. In both cases waiting jobs are dropped.
        """
        now = time.monotonic()
        left_s = self._timeout_s - (now - since if since is not None else 0)
        if reservation is not None:
            reservation.release()
        self._admit(jobs, now, now + left_s)
        if client_left is not None:
            client_left.add_done_callback(lambda _: self._leave(jobs))
        try:
            async with asyncio.timeout(left_s):
                return [await job.future for job in jobs]
        except TimeoutError:
            raise deadline_exceeded(timeout_s=self._timeout_s) from None
        finally:
            self._drop(jobs)

    def close(self) -> None:
        """Finish the current batches, drop what waits, and stop the threads."""
        self._arrived.close()
        self._decoded.close()
        for thread in self._threads:
            thread.join()

    # On the event loop

    def _admit(self, jobs: Sequence[Job], now: float, deadline: float) -> None:
        error = self.admission.check_capacity(len(jobs))
        if error is not None:
            raise error
        loop = asyncio.get_running_loop()
        for job in jobs:
            job.submitted, job.deadline, job.future = now, deadline, loop.create_future()
        self.admission.pending.count += len(jobs)
        self._arrived.put(jobs)

    def _leave(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(ClientDisconnect())
                job.future.exception()  # else asyncio reports all but the first as never retrieved

    def _drop(self, jobs: Sequence[Job]) -> None:
        """Remove the jobs that no worker has begun; their places are free."""
        if all(job.is_released for job in jobs):
            return
        self._arrived.discard(jobs)
        self._decoded.discard(jobs)
        for job in jobs:
            self._release(job)
            job.future.cancel()

    def _deliver(self, jobs: Sequence[Job], results: Sequence[JobResult]) -> None:
        for job, result in zip(jobs, results, strict=True):
            self._release(job)
            if not job.future.done():
                job.future.set_result(result)

    def _release(self, job: Job) -> None:
        if not job.is_released:
            job.is_released = True
            self.admission.pending.count -= 1

    # In the threads

    def _decode(self) -> None:
        while (jobs := self._arrived.take(1)) is not None:
            for job in jobs:
                job.prepare(self._max_pixels, self._decode_budget)
            self._decoded.put([job for job in jobs if not job.is_released])
            del job, jobs  # a waiting thread must not keep a replaced model alive

    def _work(self) -> None:
        while (jobs := self._decoded.take(self._max_batch)) is not None:
            started = time.monotonic()
            try:
                self._answer(jobs)
            except Exception as error:  # noqa: BLE001 - a worker must survive everything
                _log.exception("a worker failed")
                for job in jobs:
                    job.error = job.error or error
            results = [job.result() for job in jobs]
            seconds = time.monotonic() - started
            self._on_batch_done(seconds)
            self.admission.record_service_time(seconds / len(jobs))
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                jobs[0].future.get_loop().call_soon_threadsafe(self._deliver, jobs, results)
            del jobs, results  # a waiting thread must not keep a replaced model alive

    def _answer(self, jobs: Sequence[Job]) -> None:
        batches: dict[Hashable, list[Job]] = {}
        for job in jobs:
            if job.input is None and job.error is None:
                job.prepare(self._max_pixels, self._decode_budget)
            if job.error is None:
                batches.setdefault(job.batch_key, []).append(job)
        for batch in batches.values():
            _predict(batch)


def _predict(batch: Sequence[Job]) -> None:
    """Compute a batch; if that fails, one job at a time, so that a fault harms only its own."""
    first = batch[0]
    try:
        predictions = first.classifier.predict_inputs(
            [job.input for job in batch if job.input is not None],
            samples=first.samples,
            levels=[job.level for job in batch],
        )
        for job, prediction in zip(batch, predictions, strict=True):
            job.prediction = prediction
    except Exception as error:  # noqa: BLE001 - the request that it belongs to gets it
        if len(batch) == 1:
            first.error = error
        else:
            for job in batch:
                _predict([job])


def make_pool(
    settings: Settings, device: str, on_batch_done: Callable[[float], object]
) -> WorkerPool:
    """Make the pool for a device: on a CPU one worker per granted core, on CUDA one in all.

    Args:
        settings: The settings of the service.
        device: `cpu` or `cuda`.
        on_batch_done: Called by each worker with the seconds it spent on a batch.
    """
    cuda = device == "cuda"
    return WorkerPool(
        n_workers=settings.worker_threads or (1 if cuda else granted_cpus()),
        n_decoders=granted_cpus() if cuda else 0,
        max_batch=_CUDA_BATCH if cuda else _CPU_BATCH,
        max_queued=settings.max_queued_images,
        timeout_s=settings.request_timeout_s,
        max_pixels=settings.max_pixels,
        max_decoding_pixels=settings.max_decoding_pixels,
        on_batch_done=on_batch_done,
    )

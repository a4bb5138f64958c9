"""Admission control: how many images may be pending, and how long they would wait."""

import math

from service import errors
from service.errors import ProblemError
from service.request_state import PendingImages, Reservation

# Estimated waits beyond this share of the timeout are rejected; they would time out anyway.
_MAX_WAIT_SHARE = 0.5

_EWMA_WEIGHT = 0.05


class AdmissionController:
    """Count pending images and reject what would find no place or wait too long.

    Args:
        max_queued: The most images that wait.
        n_workers: Threads that compute; as many images more may be pending.
        timeout_s: Seconds within which a request must be answered.
    """

    def __init__(self, *, max_queued: int, n_workers: int, timeout_s: float) -> None:
        self.pending = PendingImages()
        self._max_pending = max_queued + n_workers
        self._max_queued, self._n_workers, self._timeout_s = max_queued, n_workers, timeout_s
        self._service_time_ewma, self._n_batches = 0.0, 0

    def reserve(self) -> Reservation:
        """Make a reservation for a request; it counts once it is entered."""
        return Reservation(self.pending)

    def check_capacity(self, n_images: int = 1) -> ProblemError | None:
        """Return the error for so many more images, or None if there is room for them.

        Returned and not raised: under overload, tracebacks of thousands of exceptions a second
        form reference cycles, and collecting them stops everything for 0.1 s at a time.

        Returns:
            413 if there can never be room; 429 if there is none now, or if the estimated wait
            takes too much of the time in which an answer is due.
        """
        if n_images > self._max_pending:
            return errors.batch_exceeds_queue(n_images=n_images, limit=self._max_pending)
        n_pending = self.pending.count
        wait_s = n_pending * self._service_time_ewma / self._n_workers
        retry_after_s = min(max(math.ceil(wait_s), 1), 60)
        if n_pending + n_images > self._max_pending:
            return errors.queue_full(
                n_pending=n_pending, limit=self._max_queued, retry_after_s=retry_after_s
            )
        if wait_s > _MAX_WAIT_SHARE * self._timeout_s:
            return errors.wait_too_long(
                n_pending=n_pending,
                wait_s=wait_s,
                timeout_s=self._timeout_s,
                retry_after_s=retry_after_s,
            )
        return None

    def record_service_time(self, seconds: float) -> None:
        """Update the mean time that a worker spends on one image. Any thread may call it.

        The first batches weigh alike: a guess instead would make a service that has just started
        reject what it could answer.
        """
        self._n_batches += 1
        weight = max(_EWMA_WEIGHT, 1 / self._n_batches)
        self._service_time_ewma += weight * (seconds - self._service_time_ewma)

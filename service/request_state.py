"""What the service knows of one request while it is answered."""

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from starlette.types import Scope

_KEY = "request_state"


@dataclass
class PendingImages:
    """The number of images admitted and not yet answered. The event loop alone changes it."""

    count: int = 0


class Reservation:
    """One place among the pending images, from a complete body until its jobs are queued.

    Without it, every request that arrives while forms are parsed would be admitted for the same
    free place. The middleware enters it; `WorkerPool.run` releases it when the jobs take over.
    """

    def __init__(self, pending: PendingImages) -> None:
        self._pending = pending
        self._is_held = False

    def __enter__(self) -> Self:
        """Count as a pending image; again does nothing."""
        if not self._is_held:
            self._is_held = True
            self._pending.count += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the place up."""
        self.release()

    def release(self) -> None:
        """Give the place up; later calls do nothing."""
        if self._is_held:
            self._is_held = False
            self._pending.count -= 1


@dataclass
class RequestState:
    """One request: its ID, route and timing, and what the log and the metrics record of it.

    Attributes:
        request_id: The value of `X-Request-ID`.
        route: The route template, or `none` for an unknown path.
        started: When the request's headers were complete, by `time.perf_counter`.
        queue_ms: Milliseconds until a worker took the last image.
        compute_ms: Milliseconds from then until all images were answered.
        rejection: The reason of the error that was sent, if it has one.
        reservation: The place that the request holds among the pending images, if any.
        log_fields: Further fields of the request's line in the log.
    """

    request_id: str
    route: str
    started: float = field(default_factory=time.perf_counter)
    queue_ms: float = 0.0
    compute_ms: float = 0.0
    rejection: str | None = None
    reservation: Reservation | None = None
    log_fields: dict[str, object] = field(default_factory=dict)

    def attach(self, scope: Scope) -> None:
        """Make this the state of a request."""
        scope.setdefault("state", {})[_KEY] = self

    @property
    def server_timing(self) -> str:
        """The value of the header `Server-Timing` at this moment."""
        total_ms = 1000 * (time.perf_counter() - self.started)
        return (
            f"queue;dur={self.queue_ms:.2f}, compute;dur={self.compute_ms:.2f}, "
            f"total;dur={total_ms:.2f}"
        )


def request_state(scope: Scope) -> RequestState:
    """Return the state that the request middleware attached."""
    state: RequestState = scope["state"][_KEY]
    return state

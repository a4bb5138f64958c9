"""Connections: uvicorn's, with bounded request headers and deadlines for slow clients.

uvicorn buffers headers of any size. It waits for ever for the rest of a request's headers, for the
rest of a body whose answer has gone out, and for clients that read no answers. A client could fill
the memory, or keep connections until no more can be opened. `BodyLimitsMiddleware` bounds the body
of a request that is being answered.

Only public names of uvicorn's protocol are overridden. A test drives each of them, and fails when
the base class no longer calls it.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable
from enum import Enum, auto
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service import errors
from service.errors import ProblemError
from service.observability.metrics import Metrics

MAX_HEADERS = 100
MAX_HEADER_BYTES = 64 * 1024
MAX_PIPELINED = 100  # requests of one connection that wait for the one before

_log = logging.getLogger("service.access")


class _Rejection:
    """A constant answer in plain text, which ends the connection."""

    def __init__(self, error: ProblemError) -> None:
        self.status, self.reason = error.status_code, error.reason
        body = f"{error.detail}\n".encode()
        self._head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            "content-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n"
        ).encode()
        self._body = b"\r\n" + body

    def to_bytes(self, default_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        headers = b"".join(b"%b: %b\r\n" % pair for pair in default_headers)
        return self._head + headers + self._body


_MALFORMED = _Rejection(errors.malformed_request())
_TIMEOUT = _Rejection(errors.headers_timeout())
_TOO_LARGE = _Rejection(
    errors.headers_too_large(max_headers=MAX_HEADERS, max_bytes=MAX_HEADER_BYTES)
)


class _State(Enum):
    """What the client is doing."""

    IDLE = auto()  # nothing is under way
    HEADERS = auto()  # it is sending the headers of a request
    BODY = auto()  # it is sending a body
    RESPONDING = auto()  # it waits for the answer


def make_connection_class(timeout_s: float, metrics: Metrics) -> type[asyncio.Protocol]:
    """Make the class of connections that uvicorn is to use.

    Args:
        timeout_s: Seconds within which headers, and the rest of a body that is no longer needed,
            must arrive, and within which a client must read.
        metrics: Count what is rejected here.
    """
    return type("Connection", (_Connection,), {"_timeout_s": timeout_s, "_metrics": metrics})


class _Connection(HttpToolsProtocol):
    """One connection, with a timer that checks whether the client is late."""

    _timeout_s: float
    _metrics: Metrics
    _state = _State.IDLE
    _is_ended = False  # nothing more is read
    _since = 0.0  # when the client began to owe what the timer bounds
    _unread_since = 0.0  # when the client stopped reading answers
    _n_unparsed = 0  # bytes since the last complete message or body
    _n_headers = _n_header_bytes = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._cycles: deque[RequestResponseCycle] = deque()  # unanswered, the oldest first
        self._since = time.monotonic()
        self._check_in(self._timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # uvicorn tells only the newest request; an older one would go on for nobody.
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_ended:
            return
        self._n_unparsed += len(data)
        super().data_received(data)
        if self._n_unparsed > MAX_HEADER_BYTES or self._headers_too_large():
            self._reject(_TOO_LARGE)

    def on_message_begin(self) -> None:
        self._state = _State.HEADERS
        self._n_headers = self._n_header_bytes = 0
        self._since = time.monotonic()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._state is not _State.HEADERS:
            return  # a trailer, which nothing here reads
        self._n_headers += 1
        self._n_header_bytes += len(name) + len(value)
        if not self._headers_too_large():
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._headers_too_large():
            self._reject(_TOO_LARGE)
        if self._is_ended or self.transport.is_closing():
            self._is_ended = True
            return
        self._state = _State.BODY
        super().on_headers_complete()
        self._cycles.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        self._n_unparsed = 0
        if not self._is_ended:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._n_unparsed = 0
        if self._is_ended:
            return
        self._state = _State.RESPONDING if self._cycles else _State.IDLE
        super().on_message_complete()
        if len(self.pipeline) >= MAX_PIPELINED:
            self._end_after(self.cycle)

    def on_response_complete(self) -> None:
        self._cycles.popleft()
        self._since = time.monotonic()
        if self._state is _State.RESPONDING and not self._cycles:
            self._state = _State.IDLE
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._unread_since = time.monotonic()
        super().pause_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer what is no HTTP request."""
        self._reject(_MALFORMED)

    def _headers_too_large(self) -> bool:
        return self._n_headers > MAX_HEADERS or self._n_header_bytes > MAX_HEADER_BYTES

    def _check_in(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._check)

    def _check(self) -> None:
        """Check whether the client is late; check again when it could be."""
        self._timer = None
        if self.transport.is_closing():
            return
        now = time.monotonic()
        if self.flow.write_paused and now - self._unread_since > self._timeout_s:
            self.transport.abort()
            return
        left_s = self._since + self._timeout_s - now
        if self._cycles or left_s > 0:  # BodyLimitsMiddleware bounds a request being answered
            self._check_in(left_s if left_s > 0 else self._timeout_s)
        elif self._state is _State.HEADERS:
            self._reject(_TIMEOUT)
        else:
            self.transport.close()

    def _end_after(self, cycle: RequestResponseCycle) -> None:
        """Read nothing more, and close the connection after this request's answer."""
        self._is_ended = True
        cycle.keep_alive = False

    def _reject(self, rejection: _Rejection) -> None:
        """Answer what did not become a request, read nothing more, and close.

        Requests before it are answered first; the connection then closes without this answer.
        """
        if self._is_ended:
            return
        self._is_ended = True
        if self._cycles:
            newest = self._cycles[-1]
            if not newest.more_body or newest.response_started or len(self._cycles) > 1:
                self._end_after(newest)
                return
        if self.transport.is_closing():
            return
        self.transport.write(rejection.to_bytes(self.server_state.default_headers))
        self.transport.close()
        status, reason = rejection.status, rejection.reason
        seconds = time.monotonic() - self._since
        self._metrics.record_request("none", "other", status, seconds, rejection=reason)
        fields = {"method": "none", "route": "none", "status": status, "reason": reason}
        _log.info("rejected a connection: %s", reason, extra={"fields": fields})

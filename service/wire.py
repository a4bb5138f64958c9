"""Connections: uvicorn's, with a bound on how long a request may take to arrive.

uvicorn waits for ever for the rest of a head, and for the rest of a body that is read no more
because its answer has been given; `service.guard` bounds what lies between. Without, clients that
send a byte a second would keep their connections until no more can be opened.
"""

import asyncio
import uuid

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service import problems
from service.admission import ENTRY
from service.express import Express, Refusal
from service.metrics import Metrics

__all__ = ["connections"]


def connections(
    timeout_s: float, metrics: Metrics, express: Express | None = None
) -> type[asyncio.Protocol]:
    """The class of connections on which neither a head nor an unread rest takes longer than this.

    A head that is late is answered 408 and counted; a connection on which nothing is under way, or
    whose request has been answered already, is only closed.

    Args:
        timeout_s: Seconds within which a head, or the rest of a body, must arrive.
        metrics: Where late heads are counted.
        express: Refuses requests by their heads.
    """
    settings = {"_timeout_s": timeout_s, "_metrics": metrics, "_express": express}
    return type("Connection", (_Connection,), settings)


class _Connection(HttpToolsProtocol):
    """One connection. Its timer runs while something is awaited that nothing else bounds."""

    _timeout_s: float
    _metrics: Metrics
    _express: Express | None
    _refusal: Refusal | None = None
    _timer: asyncio.TimerHandle | None = None
    _in_head = False
    _in_request = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._in_head = self._in_request = True
        self._start_timer()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        express = self._express
        if express is not None and (self.cycle is None or self.cycle.response_complete):
            found = express.ask(self.parser.get_method(), self.url, self.headers)
            if isinstance(found, Refusal):
                self._refusal = found
            elif found is not None:
                self.scope["state"][ENTRY] = found
        if self._refusal is None:
            super().on_headers_complete()
        else:
            self._start_timer()

    def on_body(self, body: bytes) -> None:
        if self._refusal is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_request = False
        self._stop_timer()
        if self._refusal is None:
            super().on_message_complete()
        elif self._express is not None:
            self._refuse(self._express, self._refusal)
            self._refusal = None

    def _refuse(self, express: Express, refusal: Refusal) -> None:
        """Answer by the head alone, and be ready for the next request."""
        keep = (
            self.parser.get_http_version() != "1.0"
            and self.parser.should_keep_alive()
            and not express.draining
        )
        default = self.server_state.default_headers
        self.transport.write(express.answer(refusal, default, keep=keep))
        if not keep:
            self.transport.close()
        super().on_response_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_request and not self._in_head:
            self._start_timer()

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self._timeout_s, self._on_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_late(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._start_timer()  # the request before this one is being answered still
            return
        if self._in_head:
            self.transport.write(_late_head(self._timeout_s))
            self._metrics.saw_request("none", "other", 408, self._timeout_s)
        self.transport.close()


def _late_head(timeout_s: float) -> bytes:
    """The answer to a request whose head does not come to its end."""
    request_id = uuid.uuid4().hex
    detail = f"The request's head did not arrive within {timeout_s:g} s; send it faster."
    body = problems.problem(request_id, 408, detail).model_dump_json().encode()
    total = f"queue;dur=0.00, compute;dur=0.00, total;dur={1000 * timeout_s:.2f}"
    lines = [
        "HTTP/1.1 408 Request Timeout",
        f"Content-Type: {problems.MEDIA_TYPE}",
        f"Content-Length: {len(body)}",
        f"X-Request-ID: {request_id}",
        f"Server-Timing: {total}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body

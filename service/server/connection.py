"""Connections: uvicorn's, with bounds on how much a request's head holds and how late it may be.

uvicorn keeps whatever comes before a body, however much it is, and waits for ever for the rest of a
head, and for the rest of a body that is read no more because its answer has been given;
`service.middleware.request_context` bounds what lies between. Without, one client could fill the memory, and clients
that send a byte a second would keep their connections until no more can be opened.
"""

import asyncio
import time

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.middleware.load_shedding import ENTRY, Entry
from service.middleware.request_context import Timing, choose_request_id, log_answer
from service.observability.logging import REQUEST_ID
from service.observability.metrics import Metrics
from service.server.express import Express, Refusal
from service.server.raw import raw_answer

__all__ = ["MOST_BEHIND", "MOST_FIELDS", "MOST_HEAD_BYTES", "connections"]

MOST_HEAD_BYTES = 64 * 1024
MOST_FIELDS = 100
# Requests of one connection that wait for the one before them; uvicorn reads on, however many.
MOST_BEHIND = 100


def connections(
    timeout_s: float, metrics: Metrics, express: Express | None = None
) -> type[asyncio.Protocol]:
    """The class of connections on which neither a head nor an unread rest takes longer than this.

    What is no request is answered 400, a head that is late 408, one that is too large 431; each is
    counted and logged. A connection on which nothing is under way, or whose request has been
    answered already, is only closed, and so is one whose client reads no answers.

    Args:
        timeout_s: Seconds within which a head, or the rest of a body, must arrive.
        metrics: Where these are counted.
        express: Refuses requests by their heads.
    """
    settings = {"_timeout_s": timeout_s, "_metrics": metrics, "_express": express}
    return type("Connection", (_Connection,), settings)


class _Connection(HttpToolsProtocol):
    """One connection. Its timer looks whether the client is late with what it owes."""

    _timeout_s: float
    _metrics: Metrics
    _express: Express | None
    _refusal: Refusal | None = None
    _active: RequestResponseCycle | None = None  # the one that is being answered
    _timer: asyncio.TimerHandle | None = None
    _since = 0.0  # since when the client owes what the timer bounds
    _unread_since = 0.0  # since when the client leaves its answers unread, if it does
    _in_head = _in_request = False
    _ended = False  # nothing more is read
    _may_refuse = True
    _n_bytes = 0  # received one after another without a byte of a body among them
    _n_fields = _n_field_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = time.monotonic()
        self._look_in(self._timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # uvicorn tells the newest request alone; one before it would write where nobody is.
        active = self._active
        if active is not None and not active.response_complete:
            active.disconnected = True
            active.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._n_bytes += len(data)
        # More of them at once take their turns as tasks, among the requests of others.
        self._may_refuse = True
        super().data_received(data)
        too_large = self._n_bytes > MOST_HEAD_BYTES or self._head_is_too_large()
        if too_large and not self._ended:
            self._end_too_large()

    def on_message_begin(self) -> None:
        self._in_head = self._in_request = True
        self._n_fields = self._n_field_bytes = 0
        self._since = time.monotonic()
        self._unset_keepalive_if_required()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer, which nothing here reads
        self._n_fields += 1
        self._n_field_bytes += len(name) + len(value)
        if not self._head_is_too_large():
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._ended:
            return
        if self._head_is_too_large():
            self._end_too_large()
        self._in_head = False
        if self._ended or self.transport.is_closing():
            self._ended = True
            return
        express = self._express
        if (
            express is not None
            and self._may_refuse
            and not self._is_answering()
            and not self.flow.write_paused  # else its answers would pile up
        ):
            found = express.ask(self.parser.get_method(), self.url, self.headers)
            if isinstance(found, Refusal):
                self._refusal, self._may_refuse = found, False
                return
            if found is not None:
                self.scope["state"][ENTRY] = found
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._n_bytes = 0
        if self._refusal is None and not self._ended:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_request = False
        self._n_bytes = 0
        if self._ended:
            return
        if self._refusal is not None:
            self._refuse(self._refusal)
            return
        entry = self.scope["state"].get(ENTRY)
        if isinstance(entry, Entry):
            entry.arrive()
        super().on_message_complete()
        if len(self.pipeline) >= MOST_BEHIND:
            self._end_with(self.cycle)

    def on_response_complete(self) -> None:
        self._since = time.monotonic()
        super().on_response_complete()
        if self._in_request:
            self._unset_keepalive_if_required()  # that is for connections without a request

    def pause_writing(self) -> None:
        self._unread_since = time.monotonic()
        super().pause_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request."""
        self._end(400, f"{msg} Send HTTP/1.1 as RFC 9112 has it.")

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _head_is_too_large(self) -> bool:
        return self._n_fields > MOST_FIELDS or self._n_field_bytes > MOST_HEAD_BYTES

    def _end_too_large(self) -> None:
        self._end(
            431,
            f"The request's head has more than {MOST_FIELDS} lines or {MOST_HEAD_BYTES:,} bytes; "
            "send less in it.",
        )

    def _refuse(self, refusal: Refusal, *, close: bool = False) -> None:
        """Answer by the head alone, and be ready for the next request."""
        self._refusal, express = None, self._express
        if express is None:
            raise RuntimeError("refused without anything that refuses")
        keep = (
            not close
            and self.parser.get_http_version() != "1.0"
            and self.parser.should_keep_alive()
            and not express.draining
        )
        default = self.server_state.default_headers
        self.transport.write(express.answer(refusal, default, keep=keep))
        if not keep:
            self._ended = True
            self.transport.close()
        self.on_response_complete()

    def _look_in(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """See whether the client is late; look again when it could be."""
        self._timer = None
        if self.transport.is_closing():
            return
        if self.flow.write_paused and time.monotonic() - self._unread_since > self._timeout_s:
            self.transport.abort()
            return
        # The guard bounds what a request takes that is being answered.
        left_s = self._since + self._timeout_s - time.monotonic()
        if self._is_answering() or left_s > 0:
            self._look_in(left_s if left_s > 0 else self._timeout_s)
        elif self._refusal is not None:
            self._refuse(self._refusal, close=True)
        elif self._in_head:
            self._end(
                408,
                f"The request's head did not arrive within {self._timeout_s:g} s; send it faster.",
            )
        else:
            self.transport.close()

    def _end_with(self, cycle: RequestResponseCycle) -> None:
        """Read nothing more, and close once this request, which is the last, has its answer."""
        self._ended = True
        cycle.keep_alive = False

    def _end(self, status: int, detail: str) -> None:
        """Answer what did not become a request, read nothing more, and close.

        Requests before it are answered first, the last of them with the news that the connection
        ends with it.
        """
        self._ended = True
        cycle = self.cycle
        if cycle is not None and self._is_answering():
            whole = not cycle.more_body
            if whole or cycle.response_started or self.pipeline:
                self._end_with(cycle)
                return
        if self.transport.is_closing():
            return
        headers = dict(self.headers or ()) if self._in_request else {}
        url = self.url if self._in_request else b""
        request_id = choose_request_id(headers.get(b"x-request-id", b"").decode("latin-1"))
        path, seconds = url.partition(b"?")[0].decode("latin-1"), time.monotonic() - self._since
        default = self.server_state.default_headers
        answer = raw_answer(
            path, request_id, status, detail, default=default, seconds=seconds, close=True
        )
        self.transport.write(answer)
        self.transport.close()
        self._metrics.saw_request("none", "other", status, seconds)
        token = REQUEST_ID.set(request_id)
        scope = {"method": "none", "path": path, "root_path": self.root_path, "client": self.client}
        log_answer(scope, status, Timing(), {}, seconds)
        REQUEST_ID.reset(token)

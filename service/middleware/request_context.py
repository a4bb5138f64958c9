"""What surrounds every request: its id, its timing, the bounds of its body, and the last net.

Plain ASGI rather than a Starlette middleware class, because it must stand outside everything else
and count the body's bytes as they arrive, before any form is parsed.
"""

import asyncio
import logging
import random
import re
import time
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors as problems
from service.errors import ProblemError
from service.inference.decode_budget import ByteBudget
from service.model_lifecycle.provider import ModelHolder
from service.observability.logging import ANSWERED, REQUEST_ID, with_fields
from service.observability.metrics import Metrics
from service.open_inference import codec as tensors
from service.paths import has_control, own_path

__all__ = ["Guard", "Timing", "choose_request_id", "log_answer", "server_timing", "stamp"]

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FORM_OVERHEAD = 64 * 1024  # boundaries and part headers around one file
_LINGER_BYTES = 64 * 2**20

# Ids are no secrets. The system's source of randomness would have the event loop wait for the lanes
# to hand back Python's lock, once a request.
_IDS = random.Random()  # noqa: S311

_log = logging.getLogger("service")
_answers = logging.getLogger(ANSWERED)
# Asked every few seconds by machines: their lines would bury the others.
_PROBES = frozenset({"/health/live", "/health/ready", "/metrics"})
_PROBES_BELOW = "/v2/health/"


@dataclass
class Timing:
    """Where a request's time went, in milliseconds; routes fill in what they know."""

    queue_ms: float = 0.0
    compute_ms: float = 0.0


def choose_request_id(given: str) -> str:
    """The client's id for its request, if it gave a sane one, else a new one."""
    return given if _SANE_ID.fullmatch(given) else f"{_IDS.getrandbits(128):032x}"


def stamp(
    headers: MutableHeaders, request_id: str, timing: Timing, seconds: float, *, close: bool
) -> None:
    """Set the headers that every answer carries; `close` has the next request go elsewhere."""
    headers["X-Request-ID"] = request_id
    headers["Server-Timing"] = server_timing(timing, seconds)
    if close:
        headers["Connection"] = "close"


def server_timing(timing: Timing, seconds: float) -> str:
    """The header that tells where a request's time went."""
    return (
        f"queue;dur={timing.queue_ms:.2f}, compute;dur={timing.compute_ms:.2f}, "
        f"total;dur={1000 * seconds:.2f}"
    )


class Guard:
    """Wrap an ASGI application.

    Args:
        app: The application.
        max_upload_bytes: Largest file; a body may be larger by the form around it.
        max_body_bytes: Largest body of a batch.
        max_inflight_bytes: Most bytes of all bodies together, from their arrival to their answers.
        body_timeout_s: Seconds within which a body must arrive.
        metrics: Where requests are counted.
        holder: Knows whether the service is about to stop: then connections are not kept.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_upload_bytes: int,
        max_body_bytes: int,
        max_inflight_bytes: int,
        body_timeout_s: float,
        metrics: Metrics,
        holder: ModelHolder,
    ) -> None:
        """Wrap the application; see the class."""
        self._app = app
        self._max_upload_bytes = max_upload_bytes
        self._max_body_bytes = max_body_bytes
        self._held = ByteBudget(max_inflight_bytes)
        self._body_timeout_s = body_timeout_s
        self._metrics, self._holder = metrics, holder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (other ASGI events pass through)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = choose_request_id(headers.get("x-request-id", ""))
        token = REQUEST_ID.set(request_id)
        try:
            await self._serve(scope, receive, send, headers, request_id)
        finally:
            REQUEST_ID.reset(token)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers, request_id: str
    ) -> None:
        started = time.perf_counter()
        timing, told = Timing(), dict[str, object]()
        scope.setdefault("state", {}).update(request_id=request_id, timing=timing, log_fields=told)
        status: int | None = None
        lingers = False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, lingers
            if message["type"] == "http.response.start":
                status = message["status"]
                seconds = time.perf_counter() - started
                self._metrics.saw_request(_route(scope), scope["method"], status, seconds)
                out = MutableHeaders(scope=message)
                close = self._holder.draining or body.is_waited_for
                stamp(out, request_id, timing, seconds, close=close)
                lingers = body.is_coming and (
                    out.get("connection") == "close" or _asks_to_close(scope, headers)
                )
            await (_send_and_linger(message, body, send) if lingers else send(message))

        limit = self._limit(scope["path"])
        body = _BoundedBody(receive, limit, self._body_timeout_s, headers, self._held)
        app = _nothing_there if has_control(scope["path"]) else self._app
        try:
            await app(scope, body.receive, send_with_headers)
        except ClientDisconnect:
            pass  # nobody is left to be told
        except Exception:
            # Whatever went wrong is ours to find by its id; the client learns no more than that.
            _log.exception("request %s failed", request_id)
            if status is not None:
                raise
            answer = problems.response(scope, 500, problems.FAULT)
            await answer(scope, receive, send_with_headers)
        finally:
            body.release()
            log_answer(scope, status, timing, told, time.perf_counter() - started)

    def _limit(self, path: str) -> int:
        if path.rstrip("/").endswith("/batch"):
            return self._max_body_bytes
        if path.rstrip("/").endswith("/infer"):
            return min(tensors.MAX_BODY_BYTES, self._max_body_bytes)
        return min(self._max_upload_bytes + _FORM_OVERHEAD, self._max_body_bytes)


async def _nothing_there(scope: Scope, receive: Receive, send: Send) -> None:
    await problems.response(scope, 404, problems.NOTHING_THERE)(scope, receive, send)


def _asks_to_close(scope: Scope, headers: Headers) -> bool:
    """Whether the client would have its connection closed after the answer."""
    options = ",".join(headers.getlist("connection")).lower().split(",")
    return scope.get("http_version") == "1.0" or "close" in map(str.strip, options)


async def _send_and_linger(message: Message, body: "_BoundedBody", send: Send) -> None:
    """Send what an answer consists of, but close its connection only once the body has come.

    A server that closes while the client writes resets the connection, and the client may never
    see the answer. So the answer goes out at once, whole but for the news that it is over.
    """
    if message["type"] == "http.response.body" and not message.get("more_body", False):
        await send({**message, "more_body": True})
        await body.drop()
        message = {"type": "http.response.body", "body": b"", "more_body": False}
    await send(message)


def _route(scope: Scope) -> str:
    """The address as it is declared, without what varies in it; `none` for any other."""
    route = scope.get("route")
    return str(getattr(route, "path_format", None) or getattr(route, "path", "none"))


def log_answer(
    scope: Scope, status: int | None, timing: Timing, told: dict[str, object], seconds: float
) -> None:
    """One line for a request: where it went, what came of it, where its time went."""
    path, route = own_path(scope), _route(scope)
    probe = path in _PROBES or path.startswith(_PROBES_BELOW)
    level = logging.DEBUG if probe else logging.INFO
    if not _answers.isEnabledFor(level):
        return
    client = scope.get("client")
    outcome = f"{status}" if status is not None else "nobody left to answer"
    # The address as it is declared: what a client makes up does not go to the log.
    _answers.log(
        level,
        "%s %s: %s in %.1f ms",
        scope["method"],
        route,
        outcome,
        1000 * seconds,
        extra=with_fields(
            method=scope["method"],
            route=route,
            status=status,
            client=client[0] if client else None,
            queue_ms=round(timing.queue_ms, 2),
            compute_ms=round(timing.compute_ms, 2),
            total_ms=round(1000 * seconds, 2),
            **told,
        ),
    )


class _BoundedBody:
    """The receive channel of one request, counting bytes and time."""

    def __init__(
        self, receive: Receive, limit: int, timeout_s: float, headers: Headers, budget: ByteBudget
    ) -> None:
        self._receive = receive
        self._limit = limit
        self._deadline = asyncio.get_running_loop().time() + timeout_s
        self._timeout_s = timeout_s
        self._budget = budget
        self._received = self._held = 0
        self._declared = _read_length(headers.get("content-length", ""))
        self._has_one = bool(self._declared) or "transfer-encoding" in headers
        self._begun = self._complete = False
        self._waits_for_go_ahead = headers.get("expect", "").lower() == "100-continue"

    @property
    def is_coming(self) -> bool:
        """Whether the client has more of it to send."""
        return self._has_one and not self._complete

    @property
    def is_waited_for(self) -> bool:
        """Whether the client waits to be told to send it, and has not been.

        Once it has its answer instead, it may send the body or the next request: nobody could tell
        which of them comes.
        """
        return self._waits_for_go_ahead and not self._begun and self.is_coming

    async def receive(self) -> Message:
        """The next message.

        Raises:
            ProblemError: 413 if the body is too large, 408 if it comes too slowly, 429 if there is
                no room for it beside the others.
        """
        if self._complete:
            return await self._receive()  # only the news that the client has left
        if self._declared is not None and self._declared > self._limit:
            raise self._too_large(f"{self._declared:,} bytes")
        self._begun = True
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise ProblemError(
                408,
                f"The body did not arrive within {self._timeout_s:g} s; send it faster or smaller.",
                {"Connection": "close"},
            ) from None
        if message["type"] == "http.request":
            n_bytes = len(message.get("body", b""))
            self._received += n_bytes
            self._complete = not message.get("more_body", False)
            if self._received > self._limit:
                raise self._too_large("too many bytes")
            if not self._budget.take(n_bytes):
                raise ProblemError(
                    429,
                    "Too many bytes are being uploaded at this moment; try again after the seconds "
                    "in Retry-After.",
                    {"Retry-After": "1", "Connection": "close"},
                )
            self._held += n_bytes
        return message

    def release(self) -> None:
        """Whatever came of it, none of the body is held any more."""
        self._budget.give_back(self._held)
        self._held = 0

    def _too_large(self, size: str) -> ProblemError:
        return ProblemError(
            413,
            f"The body has {size}; at most {self._limit:,} are allowed. Send less at once.",
            {"Connection": "close"},
        )

    async def drop(self) -> None:
        """Read and drop what the client is still sending, within bounds."""
        if self.is_waited_for or (self._declared or 0) > _LINGER_BYTES:
            return
        dropped = 0
        try:
            async with asyncio.timeout_at(self._deadline):
                while not self._complete and dropped <= _LINGER_BYTES:
                    message = await self._receive()
                    dropped += len(message.get("body", b""))
                    self._complete = not message.get("more_body", False)
        except TimeoutError:
            return


def _read_length(header: str) -> int | None:
    """Bytes that a head says will follow; of a number that nothing could have, its first digits."""
    if not header.isdecimal():
        return None
    return int(header.lstrip("0")[:19] or "0")

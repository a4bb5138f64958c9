"""Bound request bodies: size by route, time to arrive, and bytes in flight of all together."""

import asyncio
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors
from service.paths import own_path

_DEFAULT_LIMIT = 64 * 1024  # for routes that declare none: they read no body
_MAX_DISCARDED = 64 * 2**20


class BodyLimitsMiddleware:
    """Limit the bodies of requests, counted while they arrive and before any form is parsed.

    It is the outermost middleware: it also sees the final headers of every answer. If an answer
    goes out before its request has arrived, and the connection is to close, the rest of the body
    is read and dropped first. A server that closes while the client still writes resets the
    connection, and the client may never see the answer.

    Args:
        app: The application.
        limits: The most bytes of a body by route template; other routes get 64 KiB.
        match_route: Finds the template of a path.
        max_inflight_bytes: The most bytes of all bodies, from their arrival to their answers.
        timeout_s: Seconds within which a body must arrive.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Mapping[str, int],
        match_route: Callable[[str], str],
        max_inflight_bytes: int,
        timeout_s: float,
    ) -> None:
        self._app = app
        self._limits, self._match_route = limits, match_route
        self._inflight = _ByteBudget(max_inflight_bytes)
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (other ASGI events pass through)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self._limits.get(self._match_route(own_path(scope)), _DEFAULT_LIMIT)
        body = _BoundedBody(receive, headers, limit, self._timeout_s, self._inflight)
        discards = False

        async def send_then_discard(message: Message) -> None:
            nonlocal discards
            if message["type"] == "http.response.start" and body.is_incoming:
                answer = MutableHeaders(scope=message)
                if body.awaits_continue:
                    # The client may now send the body or its next request: nobody can tell which.
                    answer["Connection"] = "close"
                discards = answer.get("connection") == "close" or _wants_close(scope, headers)
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            if discards and is_last:
                await send({**message, "more_body": True})
                await body.discard()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        try:
            await self._app(scope, body.receive, send_then_discard)
        finally:
            body.release()


class _ByteBudget:
    """Bytes held at the same time; the event loop alone uses it."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0

    def take(self, n_bytes: int) -> bool:
        """Hold more bytes if there is room for them; return whether there was."""
        if self._held + n_bytes > self._limit:
            return False
        self._held += n_bytes
        return True

    def give(self, n_bytes: int) -> None:
        self._held -= n_bytes


class _BoundedBody:
    """The receive channel of one request, which counts bytes and time."""

    def __init__(
        self,
        receive: Receive,
        headers: Headers,
        limit: int,
        timeout_s: float,
        inflight: _ByteBudget,
    ) -> None:
        self._receive = receive
        self._limit = limit
        self._timeout_s = timeout_s
        self._deadline = asyncio.get_running_loop().time() + timeout_s
        self._inflight = inflight
        self._received = self._held = 0
        self._declared = _content_length(headers.get("content-length", ""))
        self._has_body = bool(self._declared) or "transfer-encoding" in headers
        self._expects_continue = headers.get("expect", "").lower() == "100-continue"
        self._is_begun = self._is_complete = False

    @property
    def is_incoming(self) -> bool:
        """Whether the client still has to send some of the body."""
        return self._has_body and not self._is_complete

    @property
    def awaits_continue(self) -> bool:
        """Whether the client waits for `100 Continue`, which it has not been sent."""
        return self._expects_continue and not self._is_begun and self.is_incoming

    async def receive(self) -> Message:
        """Return the next message.

        Raises:
            ProblemError: 413 if the body is too large, 408 if it is too slow, 429 if all bodies
                together are too large.
        """
        if self._is_complete:
            return await self._receive()  # only the disconnect of the client
        if self._declared is not None and self._declared > self._limit:
            raise errors.body_too_large(size=f"{self._declared:,}", limit=self._limit)
        self._is_begun = True
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise errors.body_timeout(timeout_s=self._timeout_s) from None
        if message["type"] == "http.request":
            n_bytes = len(message.get("body", b""))
            self._received += n_bytes
            self._is_complete = not message.get("more_body", False)
            if self._received > self._limit:
                raise errors.body_too_large(size="too many", limit=self._limit)
            if not self._inflight.take(n_bytes):
                raise errors.inflight_bytes()
            self._held += n_bytes
        return message

    async def discard(self) -> None:
        """Read and drop the rest of the body, within bounds."""
        if self.awaits_continue or (self._declared or 0) > _MAX_DISCARDED:
            return
        n_dropped = 0
        try:
            async with asyncio.timeout_at(self._deadline):
                while not self._is_complete and n_dropped <= _MAX_DISCARDED:
                    message = await self._receive()
                    n_dropped += len(message.get("body", b""))
                    self._is_complete = not message.get("more_body", False)
        except TimeoutError:
            return

    def release(self) -> None:
        """Stop holding the body's bytes."""
        self._inflight.give(self._held)
        self._held = 0


def _content_length(header: str) -> int | None:
    """Parse `Content-Length`; digits beyond 19 are cut, since nothing is that long."""
    return int(header.lstrip("0")[:19] or "0") if header.isdecimal() else None


def _wants_close(scope: Scope, headers: Headers) -> bool:
    """Whether the client asks to close the connection after the answer."""
    options = ",".join(headers.getlist("connection")).lower().split(",")
    return scope.get("http_version") == "1.0" or "close" in map(str.strip, options)

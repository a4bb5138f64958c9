"""Request middleware: ID, route, timing, access log, metrics, error fallback.

Plain ASGI, since it must stand outside the form parser and costs every rejected request.
"""

import logging
import random
import re
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import error_response, internal_error, not_found
from service.model_lifecycle.provider import ModelProvider
from service.observability.logging import REQUEST_ID, log_access
from service.observability.metrics import Metrics
from service.paths import has_control_characters, own_path
from service.request_state import RequestState

_VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# IDs are no secrets, and the system's random source would release the interpreter lock each time.
_RANDOM = random.Random()  # noqa: S311

_log = logging.getLogger("service")


class RequestContextMiddleware:
    """Give each request its state, and record what becomes of it.

    Args:
        app: The application.
        match_route: Finds the route template of a path.
        metrics: Count the requests.
        provider: Knows whether the service is draining; connections are then not kept.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        match_route: Callable[[str], str],
        metrics: Metrics,
        provider: ModelProvider,
    ) -> None:
        self._app = app
        self._match_route, self._metrics, self._provider = match_route, metrics, provider

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (other ASGI events pass through)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = own_path(scope)
        state = RequestState(
            request_id=_choose_id(Headers(scope=scope).get("x-request-id", "")),
            route=self._match_route(path),
        )
        state.attach(scope)
        token = REQUEST_ID.set(state.request_id)
        status: int | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._metrics.record_request(
                    state.route,
                    scope["method"],
                    status,
                    time.perf_counter() - state.started,
                    rejection=state.rejection,
                )
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = state.request_id
                headers["Server-Timing"] = state.server_timing
                if self._provider.is_draining:
                    headers["Connection"] = "close"
            await send(message)

        try:
            if has_control_characters(path):
                await error_response(scope, not_found())(scope, receive, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            pass  # nobody is left to be answered
        except Exception:
            # The client learns only the ID, by which the log has the rest.
            _log.exception("request %s failed", state.request_id)
            if status is not None:
                raise
            answer = error_response(scope, internal_error())
            await answer(scope, receive, send_with_headers)
        finally:
            client = scope.get("client")
            log_access(state, scope["method"], path, status, client[0] if client else None)
            REQUEST_ID.reset(token)


def _choose_id(given: str) -> str:
    """Return the client's request ID if it is valid, else a new one."""
    return given if _VALID_ID.fullmatch(given) else f"{_RANDOM.getrandbits(128):032x}"

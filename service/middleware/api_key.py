"""The API key: who may reload the model, and, if the operator wants it, who may ask at all."""

import hmac
from collections.abc import Sequence

from fastapi import Request
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service import errors as problems
from service.errors import ProblemError
from service.paths import own_path

__all__ = ["RELOAD", "Keys", "is_open", "needs_key"]

RELOAD = "/model/reload"

# What stays open whatever is guarded: probes have no key, and the page and the documents are for
# who has yet to get one.
_OPEN = frozenset({"/", "/openapi.json", "/docs", "/health/live", "/health/ready"})
_OPEN_BELOW = ("/web/", "/docs/", "/v2/health/")


def is_open(path: str) -> bool:
    """Whether an address stays open whatever is guarded."""
    return path in _OPEN or path.startswith(_OPEN_BELOW)


async def needs_key(request: Request) -> None:
    """What a route depends on that is for holders of the key alone, whatever led to it.

    Raises:
        ProblemError: 403 if the service has no key, 401 if the request has another or none.
    """
    key: SecretStr | None = request.app.state.settings.api_key
    if key is None:
        raise ProblemError(
            403, "Reloading needs a key, and this service was started without MNN_API_KEY."
        )
    if not _matches(request.headers, key):
        raise _wrong_key()


class Keys:
    """Wrap an ASGI application: everything but probes, page and documents needs the key.

    What is refused is refused by address and header, before anything of a body is read.

    Args:
        app: The application.
        api_key: The key.
        routes: Those of the application, by which refusals are counted and logged.
    """

    def __init__(self, app: ASGIApp, *, api_key: SecretStr, routes: Sequence[BaseRoute]) -> None:
        """Wrap the application; see the class."""
        self._app, self._key = app, api_key
        self._routes = [route for route in routes if isinstance(route, Route)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (other ASGI events pass through)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = own_path(scope)
        if is_open(path) or _matches(Headers(scope=scope), self._key):
            await self._app(scope, receive, send)
            return
        route = next((route for route in self._routes if route.path_regex.match(path)), None)
        if route is not None:
            scope["route"] = route
        refused = _wrong_key()
        answer = problems.response(scope, refused.status_code, refused.detail, refused.headers)
        await answer(scope, receive, send)


def _wrong_key() -> ProblemError:
    return ProblemError(
        401,
        "The key is missing or wrong; send it as 'Authorization: Bearer <key>'.",
        {"WWW-Authenticate": "Bearer"},
    )


def _matches(headers: Headers, key: SecretStr) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    # Takes as long whatever was guessed: no key can be felt out character by character.
    return hmac.compare_digest(given.strip().encode(), key.get_secret_value().encode())

"""Require the API key except for health, page and docs (`MNN_REQUIRE_API_KEY`)."""

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import error_response, wrong_key
from service.paths import own_path
from service.security import is_public, key_matches


class APIKeyMiddleware:
    """Reject requests without the API key, before anything of their body is read.

    Args:
        app: The application.
        api_key: The key.
    """

    def __init__(self, app: ASGIApp, *, api_key: SecretStr) -> None:
        self._app, self._key = app, api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (other ASGI events pass through)."""
        if (
            scope["type"] != "http"
            or is_public(own_path(scope))
            or key_matches(Headers(scope=scope), self._key)
        ):
            await self._app(scope, receive, send)
            return
        await error_response(scope, wrong_key())(scope, receive, send)

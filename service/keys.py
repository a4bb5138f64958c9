"""The API key: who may reload the model, and, if the operator wants it, who may ask at all."""

import hmac

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service import problems
from service.address import own_path
from service.problems import ProblemError

__all__ = ["RELOAD", "Keys", "is_open"]

RELOAD = "/model/reload"

# What stays open whatever is guarded: probes have no key, and the page and the documents are for
# who has yet to get one.
_OPEN = frozenset({"/", "/openapi.json", "/docs", "/health/live", "/health/ready"})
_OPEN_BELOW = ("/web/", "/docs/", "/v2/health/")


def is_open(path: str) -> bool:
    """Whether an address stays open whatever is guarded."""
    return path in _OPEN or path.startswith(_OPEN_BELOW)


class Keys:
    """Wrap an ASGI application: refuse by address and header, before anything of a body is read.

    Args:
        app: The application.
        api_key: The key; None if there is none.
        for_all: Whether everything but probes, page and documents needs it.
    """

    def __init__(self, app: ASGIApp, *, api_key: SecretStr | None, for_all: bool) -> None:
        """Wrap the application; see the class."""
        self._app = app
        self._key = api_key.get_secret_value().encode() if api_key is not None else None
        self._for_all = for_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (other ASGI events pass through)."""
        refused = self._refuse(scope) if scope["type"] == "http" else None
        if refused is None:
            await self._app(scope, receive, send)
            return
        answer = problems.response(scope, refused.status_code, refused.detail, refused.headers)
        await answer(scope, receive, send)

    def _refuse(self, scope: Scope) -> ProblemError | None:
        path = own_path(scope)
        reload = path == RELOAD
        if reload and self._key is None:
            return ProblemError(
                403, "Reloading needs a key, and this service was started without MNN_API_KEY."
            )
        guarded = reload or (self._for_all and not is_open(path))
        if not guarded or self._matches(Headers(scope=scope).get("authorization", "")):
            return None
        return ProblemError(
            401,
            "The key is missing or wrong; send it as 'Authorization: Bearer <key>'.",
            {"WWW-Authenticate": "Bearer"},
        )

    def _matches(self, header: str) -> bool:
        scheme, _, given = header.partition(" ")
        if self._key is None or scheme.lower() != "bearer":
            return False
        # Takes as long whatever was guessed: no key can be felt out character by character.
        return hmac.compare_digest(given.strip().encode(), self._key)

"""The API key: who may reload the model, and, if the operator wants it, who may ask at all."""

import hmac

from pydantic import SecretStr
from starlette.datastructures import Headers

from service.problems import ProblemError

__all__ = ["RELOAD", "Keys"]

RELOAD = "/model/reload"

# What stays open whatever is guarded: probes have no key, and the page and the documents are for
# who has yet to get one.
_OPEN = frozenset({"/", "/openapi.json", "/docs", "/health/live", "/health/ready"})
_OPEN_BELOW = ("/web/", "/docs/", "/v2/health/")


class Keys:
    """Decides by address and `Authorization` header, before anything of a body is read.

    Args:
        api_key: The key; None if there is none.
        for_all: Whether everything but probes, page and documents needs it.
    """

    def __init__(self, api_key: SecretStr | None, *, for_all: bool) -> None:
        """Take the key; see the class."""
        self._key = api_key.get_secret_value().encode() if api_key is not None else None
        self._for_all = for_all

    def check(self, path: str, method: str, headers: Headers) -> ProblemError | None:
        """What to answer instead, or None if the request may pass.

        Args:
            path: The address that is asked for.
            method: Its method; a browser's `OPTIONS` carries no key and tells nothing.
            headers: The request's headers.
        """
        if method == "OPTIONS":
            return None
        reload = path == RELOAD
        if reload and self._key is None:
            return ProblemError(
                403, "Reloading needs a key, and this service was started without MNN_API_KEY."
            )
        guarded = reload or (
            self._for_all and path not in _OPEN and not path.startswith(_OPEN_BELOW)
        )
        if not guarded or self._matches(headers.get("authorization", "")):
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

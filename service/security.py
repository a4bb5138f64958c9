"""The API key policy: which paths need the key, and whether a request carries it."""

import hmac

from pydantic import SecretStr
from starlette.datastructures import Headers

RELOAD = "/model/reload"

# Public even with MNN_REQUIRE_API_KEY: health probes have no key; page and docs explain it.
_PUBLIC = frozenset({"/", "/openapi.json", "/docs", "/health/live", "/health/ready"})
_PUBLIC_BELOW = ("/web/", "/docs/", "/v2/health/")


def is_public(path: str) -> bool:
    """Whether a path needs no key, whatever the settings."""
    return path in _PUBLIC or path.startswith(_PUBLIC_BELOW)


def key_matches(headers: Headers, key: SecretStr) -> bool:
    """Whether a request carries the key as `Authorization: Bearer <key>`."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    # Constant time: the duration must not reveal how many characters are right.
    return hmac.compare_digest(given.strip().encode(), key.get_secret_value().encode())

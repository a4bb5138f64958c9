"""Files that pages are made of, held in memory and sent under a policy."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from fastapi import Request, Response

from service.encoding import chosen_encoding
from service.errors import ProblemError

__all__ = ["PAGE_POLICY", "Asset", "read_assets", "send", "shield"]

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, and nothing inline but pictures."""

_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
_PACKED = ".gz"


@dataclass(frozen=True)
class Asset:
    """One file; `packed` is the same, compressed, for files that are kept so."""

    body: bytes
    media_type: str
    tag: str
    packed: bytes | None = None


def read_assets(folder: str) -> dict[str, Asset]:
    """The files of a folder of this package by name; nothing else can be asked for.

    A file whose name ends in `.gz` is known by the name before.
    """
    assets = {}
    for file in resources.files("service").joinpath("static", folder).iterdir():
        name = file.name.removesuffix(_PACKED)
        suffix = "." + name.rpartition(".")[2]
        if suffix in _TYPES:
            data = file.read_bytes()
            packed = data if file.name.endswith(_PACKED) else None
            body = data if packed is None else gzip.decompress(packed)
            tag = hashlib.sha256(body).hexdigest()[:16]
            assets[name] = Asset(body, f"{_TYPES[suffix]}; charset=utf-8", tag, packed)
    return assets


def shield(policy: str) -> dict[str, str]:
    """The headers of everything that a browser shows."""
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",  # asked about each time, sent only when it has changed
    }


def send(request: Request, assets: Mapping[str, Asset], name: str) -> Response:
    """The answer to who asks for a file of these.

    Raises:
        ProblemError: 404 if there is none of that name.
    """
    found = assets.get(name)
    if found is None:
        raise ProblemError(404, "There is no such part of the page.")
    body, tag, headers = found.body, f'"{found.tag}"', shield(PAGE_POLICY)
    if found.packed is not None:
        headers["Vary"] = "Accept-Encoding"
        if chosen_encoding(request.headers.get("Accept-Encoding", ""), ["gzip"]) == "gzip":
            body, tag = found.packed, f'"{found.tag}-gzip"'
            headers["Content-Encoding"] = "gzip"
    headers["ETag"] = tag
    if _is_named(tag, request.headers.get("If-None-Match", "")):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=found.media_type, headers=headers)


def _is_named(tag: str, header: str) -> bool:
    """Whether an `If-None-Match` names this tag, as weak ones do that proxies have made of it."""
    return any(
        given in {"*", tag}
        for each in header.split(",")
        if (given := each.strip().removeprefix("W/"))
    )

"""Compressed bodies, both ways: bounded when they are read, the same bytes whenever written.

Nothing here knows of HTTP beyond what its headers `Content-Encoding` and `Accept-Encoding` hold.
"""

import re
import zlib
from collections.abc import Sequence
from typing import Literal

__all__ = ["CompressionError", "Encoding", "chosen_encoding", "compress", "decompress"]

Encoding = Literal["gzip", "deflate"]

# What zlib calls the two: gzip's own header, or its own, which HTTP calls `deflate`.
_WINDOW_BITS: dict[Encoding, int] = {"gzip": 31, "deflate": 15}
_ALIASES = {"x-gzip": "gzip"}
_MOST_MEMBERS = 16  # of a gzip file; each costs time, however little it holds
_QUALITY = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")


class CompressionError(ValueError):
    """A compressed body cannot be read.

    Attributes:
        status: The HTTP status that says so: 400, 413 or 415.
    """

    def __init__(self, status: Literal[400, 413, 415], message: str) -> None:
        """Keep the status beside the message."""
        super().__init__(message)
        self.status = status


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """What a body was before it was compressed.

    Args:
        body: The body.
        encoding: What its header `Content-Encoding` says; empty if there is none.
        limit: Most bytes that may come of it; no more than that is ever held.

    Raises:
        CompressionError: 415 for an encoding that is not known here, 413 if more than `limit`
            bytes would come of it, 400 if it is damaged.
    """
    named = _ALIASES.get(encoding.strip().lower(), encoding.strip().lower())
    if named in ("", "identity"):
        return body
    name = next((known for known in _WINDOW_BITS if known == named), None)
    if name is None:
        raise CompressionError(
            415,
            f"The Content-Encoding {ascii(encoding)[:40]} is not read here; use gzip, deflate or "
            "none.",
        )
    parts: list[bytes] = []
    left, room = body, limit
    while left or not parts:
        if len(parts) == _MOST_MEMBERS:
            raise CompressionError(400, f"The body has more than {_MOST_MEMBERS} gzip members.")
        part, left = _first_member(left, name, room, limit)
        parts.append(part)
        room -= len(part)
        if left and name == "deflate":
            raise CompressionError(400, "There are bytes after the end of the compressed body.")
    return b"".join(parts)


def _first_member(body: bytes, name: Encoding, room: int, limit: int) -> tuple[bytes, bytes]:
    """What comes of the first compressed stream, and the bytes after it."""
    stream = zlib.decompressobj(_WINDOW_BITS[name])
    try:
        part = stream.decompress(body, room + 1)
    except zlib.error:
        raise CompressionError(
            400, f"The body is not what its Content-Encoding says: it cannot be read as {name}."
        ) from None
    if len(part) > room:
        raise CompressionError(
            413,
            f"The body has more than {limit:,} bytes once it is decompressed; send less at once.",
        )
    if not stream.eof:
        raise CompressionError(400, f"The body ends before the {name} stream in it does.")
    return part, stream.unused_data


def compress(body: bytes, encoding: Encoding) -> bytes:
    """The body compressed, without the time in it that gzip files usually have."""
    stream = zlib.compressobj(level=6, wbits=_WINDOW_BITS[encoding])
    return stream.compress(body) + stream.flush()


def chosen_encoding(
    accepted: str, offered: Sequence[Encoding] = ("gzip", "deflate")
) -> Encoding | None:
    """The encoding for an answer that a client with this `Accept-Encoding` would like most.

    None if it named none of those that are offered, or would rather have none.
    """
    wanted: dict[str, float] = {}
    for entry in accepted.lower().split(","):
        name, _, weight = (text.strip() for text in entry.partition(";"))
        found = _QUALITY.fullmatch(weight)
        wanted[_ALIASES.get(name, name)] = float(found[1]) if found else float(not weight)
    plain = wanted.get("identity", 0.0)
    best = max(offered, key=lambda name: wanted.get(name, 0.0))
    return best if wanted.get(best, 0.0) > plain or wanted.get(best) == 1 else None

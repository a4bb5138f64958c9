"""Compressed bodies: bounded decompression, reproducible compression."""

import re
import zlib
from typing import Literal

Encoding = Literal["gzip", "deflate"]

# HTTP's `deflate` is the zlib format.
_WINDOW_BITS: dict[Encoding, int] = {"gzip": 31, "deflate": 15}
_ALIASES = {"x-gzip": "gzip"}
_MAX_MEMBERS = 16  # of a gzip body; each costs time, however little it holds
_QUALITY = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")


class CompressionError(ValueError):
    """A compressed body cannot be read.

    Attributes:
        status: The HTTP status that says so: 400, 413 or 415.
    """

    def __init__(self, status: Literal[400, 413, 415], message: str) -> None:
        super().__init__(message)
        self.status = status


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Decompress a body.

    Args:
        body: The body.
        encoding: The value of its header `Content-Encoding`; empty if there is none.
        limit: The most decompressed bytes; no more are ever held.

    Raises:
        CompressionError: 415 for an unsupported encoding, 413 above `limit`, 400 if it is damaged.
    """
    named = _ALIASES.get(encoding.strip().lower(), encoding.strip().lower())
    if named in ("", "identity"):
        return body
    name = next((known for known in _WINDOW_BITS if known == named), None)
    if name is None:
        raise CompressionError(
            415,
            f"The Content-Encoding {ascii(encoding)[:40]} is not supported; use gzip, deflate or "
            "none.",
        )
    parts: list[bytes] = []
    left, room = body, limit
    while left or not parts:
        if len(parts) == _MAX_MEMBERS:
            raise CompressionError(400, f"The body has more than {_MAX_MEMBERS} gzip members.")
        part, left = _first_member(left, name, room, limit)
        parts.append(part)
        room -= len(part)
        if left and name == "deflate":
            raise CompressionError(400, "There are bytes after the end of the compressed body.")
    return b"".join(parts)


def _first_member(body: bytes, name: Encoding, room: int, limit: int) -> tuple[bytes, bytes]:
    """Decompress the first stream; return its content and the bytes after it."""
    stream = zlib.decompressobj(_WINDOW_BITS[name])
    try:
        part = stream.decompress(body, room + 1)
    except zlib.error:
        raise CompressionError(
            400, f"The body is not what its Content-Encoding says: it is no valid {name} data."
        ) from None
    if len(part) > room:
        raise CompressionError(
            413,
            f"The decompressed body has more than {limit:,} bytes; send less at once.",
        )
    if not stream.eof:
        raise CompressionError(400, f"The body ends before its {name} stream does.")
    return part, stream.unused_data


def compress(body: bytes, encoding: Encoding) -> bytes:
    """Compress a body, without the time stamp that gzip files usually have."""
    stream = zlib.compressobj(level=6, wbits=_WINDOW_BITS[encoding])
    return stream.compress(body) + stream.flush()


def choose_encoding(accepted: str) -> Encoding | None:
    """Choose the encoding of an answer by the client's `Accept-Encoding`.

    Returns:
        The encoding that the client prefers; None if it accepts none or prefers none.
    """
    wanted: dict[str, float] = {}
    for entry in accepted.lower().split(","):
        name, _, weight = (text.strip() for text in entry.partition(";"))
        found = _QUALITY.fullmatch(weight)
        wanted[_ALIASES.get(name, name)] = float(found[1]) if found else float(not weight)
    plain = wanted.get("identity", 0.0)
    best = max(_WINDOW_BITS, key=lambda name: wanted.get(name, 0.0))
    return best if wanted.get(best, 0.0) > plain or wanted.get(best) == 1 else None

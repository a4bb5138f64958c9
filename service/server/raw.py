"""Whole answers as bytes: of what is answered on the wire, before there is a request or without."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus

from service import errors as problems
from service.middleware.request_context import Timing, server_timing

__all__ = ["raw_answer"]

_ID = "0" * 32  # stands in answers that are kept where the request's own id belongs


def raw_answer(
    path: str,
    request_id: str,
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    default: Sequence[tuple[bytes, bytes]],
    seconds: float,
    close: bool,
) -> bytes:
    """An answer other than success, as the service would word it.

    Args:
        path: The address that was asked for, which promises a kind of body.
        request_id: Its id.
        status: The HTTP status.
        detail: What was wrong, what was expected, what to do.
        headers: More headers.
        default: Headers of every answer.
        seconds: How long it took.
        close: Whether the connection ends with it.
    """
    kind = "/v2/" if path == "/v2" or path.startswith("/v2/") else "/"
    told = tuple((headers or {}).items())
    if len(request_id) == len(_ID):
        head, body = _worded(kind, _ID, status, detail, headers=told, close=close)
        place, own = _ID.encode(), request_id.encode()
        head, body = head.replace(place, own), body.replace(place, own)
    else:
        head, body = _worded.__wrapped__(
            kind, request_id, status, detail, headers=told, close=close
        )
    more = b"".join(b"%b: %b\r\n" % field for field in default)
    timing = server_timing(Timing(), seconds).encode()
    return b"%b%bserver-timing: %b\r\n\r\n%b" % (head, more, timing, body)


# In a crowd the same few answers are given a thousand times a second.
@lru_cache(maxsize=256)
def _worded(
    path: str,
    request_id: str,
    status: int,
    detail: str,
    *,
    headers: tuple[tuple[str, str], ...],
    close: bool,
) -> tuple[bytes, bytes]:
    """The lines of an answer's head that do not change, and its body."""
    scope = {"path": path, "state": {"request_id": request_id}}
    response = problems.response(scope, status, detail, dict(headers))
    response.headers["X-Request-ID"] = request_id
    if close:
        response.headers["Connection"] = "close"
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
    lines += [b"%b: %b" % field for field in response.raw_headers]
    return b"\r\n".join([*lines, b""]), bytes(response.body)

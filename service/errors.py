"""Errors of the API: one `ErrorKind` each, for where it is raised and for the OpenAPI document.

A `ProblemError` carries everything an answer needs: status, detail, headers, and the reason under
which the metrics count it. Bodies are RFC 9457 problems; below `/v2`, the Open Inference Protocol
has a body of its own. Every detail says what was wrong, what was expected and what to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from model.errors import (
    CorruptImageError,
    ImageError,
    ImageTooLargeError,
    RequestError,
    UnsupportedFormatError,
)
from service.paths import own_path
from service.request_state import request_state

MEDIA_TYPE = "application/problem+json"

Rejection = Literal[
    "malformed",
    "unauthorized",
    "reload_disabled",
    "body_timeout",
    "headers_timeout",
    "headers_too_large",
    "too_large",
    "unsupported_format",
    "invalid_input",
    "queue_full",
    "inflight_bytes",
    "not_ready",
    "deadline_exceeded",
]
"""Why a request is rejected: the label `reason` of `mnn_rejections_total`."""


class Problem(BaseModel):
    """An error body, `application/problem+json` (RFC 9457)."""

    type: str = Field("about:blank", description="Always `about:blank`; the status is the type.")
    title: str = Field(description="The phrase of the HTTP status.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was wrong, what was expected, what to do.")
    request_id: str = Field(description="The `X-Request-ID` of this request.")


class InferenceError(BaseModel):
    """An error body of the Open Inference Protocol."""

    error: str = Field(description="What was wrong, what was expected, what to do.")


class ProblemError(HTTPException):
    """An error answer.

    It derives from `HTTPException`, which FastAPI passes through its body parsing unchanged.

    Args:
        status: The HTTP status.
        detail: What was wrong, what was expected, what to do.
        headers: Headers of the answer.
        reason: The reason under which the metrics count it, if it is a rejection.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        headers: Mapping[str, str] | None = None,
        *,
        reason: Rejection | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers) if headers else None)
        self.reason = reason


@dataclass(frozen=True)
class ErrorKind:
    """One kind of error; a call makes the error with its values.

    Attributes:
        status: The HTTP status.
        detail: A format string: what was wrong, what was expected, what to do.
        reason: The reason under which the metrics count it, if it is a rejection.
        headers: Headers of the answer, format strings too.
        example: The values of the example in the OpenAPI document.
        scope: Where it occurs: `http` (problems), `v2` (Open Inference Protocol), `both`, or
            `connection`: plain text, for what did not become a request.
    """

    status: int
    detail: str
    reason: Rejection | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    example: Mapping[str, object] = field(default_factory=dict)
    scope: Literal["http", "v2", "both", "connection"] = "http"

    def __call__(self, **values: object) -> ProblemError:
        """Make an error of this kind."""
        headers = {name: value.format(**values) for name, value in self.headers.items()}
        return ProblemError(self.status, self.detail.format(**values), headers, reason=self.reason)


_EXAMPLE_ID = "7f2c1d0e9b8a47659f0e1d2c3b4a5968"
_CLOSE = {"Connection": "close"}
_RETRY = {"Retry-After": "{retry_after_s}"}
_LATER = "; try again after the seconds in Retry-After."

# Keys, paths, the model

wrong_key = ErrorKind(
    401,
    "The API key is missing or wrong; send it as 'Authorization: Bearer <key>'.",
    "unauthorized",
    {"WWW-Authenticate": "Bearer"},
    scope="both",
)
reload_disabled = ErrorKind(
    403,
    "Reloading needs an API key, and this service was started without MNN_API_KEY.",
    "reload_disabled",
)
reload_failed = ErrorKind(
    409,
    "The previous model stays in service: {why}",
    example={"why": "digits.safetensors: truncated or damaged"},
)
externally_managed = ErrorKind(409, "The deployment manages the weights; change them there.")
not_found = ErrorKind(404, "There is nothing at this path; see /docs for what there is.")
no_report = ErrorKind(
    404,
    "There is no report on this model. `python -m training.evaluate CHECKPOINT` writes it beside "
    "the checkpoint.",
)
no_model = ErrorKind(
    404,
    "There is no model {name:.80}; there is {served!r}.",
    example={"name": "'letters'", "served": "digits"},
    scope="v2",
)
no_version = ErrorKind(
    404,
    "Version {version:.80} of {name!r} is not served; {served!r} is.",
    example={"version": "'1'", "name": "digits", "served": "3f2a9c81d0be"},
    scope="v2",
)

# Bodies and parameters

body_timeout = ErrorKind(
    408,
    "The body did not arrive within {timeout_s:g} s; send it faster or smaller.",
    "body_timeout",
    _CLOSE,
    {"timeout_s": 10},
    scope="both",
)
body_too_large = ErrorKind(
    413,
    "The body has {size} bytes; at most {limit:,} are allowed. Send less at once.",
    "too_large",
    _CLOSE,
    {"size": "20,971,706", "limit": 10_551_296},
    scope="both",
)
file_too_large = ErrorKind(
    413,
    "The file has {size:,} bytes; at most {limit:,} are allowed. Send a smaller picture.",
    "too_large",
    example={"size": 10_485_761, "limit": 10_485_760},
)
too_many_files = ErrorKind(
    413,
    "{n_files} files were sent; at most {limit} are allowed. Send several batches.",
    "too_large",
    example={"n_files": 65, "limit": 64},
)
batch_exceeds_queue = ErrorKind(
    413,
    "{n_images} pictures at once are more than {limit}; send smaller batches.",
    "too_large",
    example={"n_images": 60, "limit": 34},
    scope="both",
)
several_files = ErrorKind(
    422,
    "There are {n_files} parts 'file'; send one. /predict/batch takes several.",
    "invalid_input",
    example={"n_files": 2},
)
invalid_form = ErrorKind(
    422,
    "The body is not the multipart form that is expected: {why}",
    "invalid_input",
    example={"why": "Missing boundary in multipart."},
)
too_many_parts = replace(
    invalid_form, status=413, reason="too_large", example={"why": "Too many files."}
)
missing_file = ErrorKind(
    422,
    "The part '{name}' is missing or not a file: send multipart/form-data with the picture in it.",
    "invalid_input",
    example={"name": "file"},
)
invalid_parameter = ErrorKind(
    422,
    "{why}",
    "invalid_input",
    example={"why": "Samples must be from 2 to 100, not 101."},
    scope="both",
)

# Pictures and tensors

image_too_large = ErrorKind(
    413,
    "{error}. Send a smaller picture.",
    "too_large",
    example={"error": "The picture has 9,000 × 9,000 pixels, more than 25,000,000 in all"},
)
unsupported_format = ErrorKind(
    415,
    "{error}. Send PNG, JPEG, WebP, BMP, GIF or TIFF.",
    "unsupported_format",
    example={
        "error": "Not a picture in one of the accepted formats (PNG, JPEG, WEBP, BMP, GIF, TIFF)"
    },
)
corrupt_image = ErrorKind(
    422,
    "{error}. Send the whole picture file in the part 'file'.",
    "invalid_input",
    example={"error": "The file is empty"},
)
malformed_tensors = ErrorKind(
    400,
    "{error}",
    "malformed",
    example={
        "error": "The body is not valid JSON: invalid character (byte 0). If a tensor follows it, "
        "Inference-Header-Content-Length must be the number of bytes of the JSON."
    },
    scope="v2",
)
too_many_tensors = ErrorKind(
    413,
    "{error}",
    "too_large",
    example={"error": "At most 512 images are allowed; send several requests."},
    scope="v2",
)
unsupported_encoding = ErrorKind(
    415,
    "{error}",
    "unsupported_format",
    {"Accept-Encoding": "gzip, deflate"},
    {"error": "The Content-Encoding 'br' is not supported; use gzip, deflate or none."},
    scope="v2",
)

# Connections

malformed_request = ErrorKind(
    400, "This is not an HTTP/1.1 request (RFC 9112).", "malformed", scope="connection"
)
headers_timeout = ErrorKind(
    408,
    "The request headers did not arrive in time; send them faster.",
    "headers_timeout",
    scope="connection",
)
headers_too_large = ErrorKind(
    431,
    "The request has more than {max_headers} headers or {max_bytes:,} bytes of them; send fewer.",
    "headers_too_large",
    example={"max_headers": 100, "max_bytes": 65_536},
    scope="connection",
)

# Load, and the service itself

queue_full = ErrorKind(
    429,
    "{n_pending:,} pictures are waiting, and at most {limit:,} may" + _LATER,
    "queue_full",
    _RETRY,
    {"n_pending": 1_026, "limit": 1_024, "retry_after_s": 3},
    scope="both",
)
wait_too_long = ErrorKind(
    429,
    "{n_pending:,} pictures are waiting, which takes about {wait_s:.1f} s of the {timeout_s:g} s "
    "for an answer" + _LATER,
    "queue_full",
    _RETRY,
    {"n_pending": 1_012, "wait_s": 5.2, "timeout_s": 10, "retry_after_s": 6},
    scope="both",
)
inflight_bytes = ErrorKind(
    429,
    "Too many bytes are being uploaded at this moment" + _LATER,
    "inflight_bytes",
    {"Retry-After": "1", **_CLOSE},
    scope="both",
)
deadline_exceeded = ErrorKind(
    504,
    "Not answered within {timeout_s:g} s; try again later, or ask for fewer samples.",
    "deadline_exceeded",
    example={"timeout_s": 10},
    scope="both",
)
loading = ErrorKind(
    503,
    "The model is being loaded; try again in a second.",
    "not_ready",
    {"Retry-After": "1"},
    scope="both",
)
draining = ErrorKind(
    503,
    "The service is about to stop; ask another one, or try again in a few seconds.",
    "not_ready",
    {"Retry-After": "5"},
    scope="both",
)
internal_error = ErrorKind(
    500,
    "The error has been logged with this request's ID; you may try the request again.",
    scope="both",
)

KINDS = {name: value for name, value in list(globals().items()) if isinstance(value, ErrorKind)}
"""All kinds of errors by name, from which the OpenAPI document follows."""

_OF_IMAGES: dict[type[ImageError], ErrorKind] = {
    ImageTooLargeError: image_too_large,
    UnsupportedFormatError: unsupported_format,
    CorruptImageError: corrupt_image,
}
_OF_TENSORS = {
    400: malformed_tensors,
    413: too_many_tensors,
    415: unsupported_encoding,
    422: invalid_parameter,
}


def image_error(error: ImageError) -> ProblemError:
    """Make the answer to a picture that cannot be read."""
    return _OF_IMAGES[type(error)](error=_capitalized(error))


def tensor_error(status: int, message: str) -> ProblemError:
    """Make the answer to a tensor request that cannot be read."""
    return _OF_TENSORS[status](error=message, why=message)


# Answers


def problem_body(request_id: str, error: HTTPException) -> Problem:
    """Build the body of an error."""
    status = error.status_code
    return Problem(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.detail,
        request_id=request_id,
    )


def error_response(scope: Scope, error: ProblemError) -> JSONResponse:
    """Build the answer to a request, in the form that its path promises, and note its reason."""
    state = request_state(scope)
    state.rejection = error.reason
    headers = dict(error.headers or {})
    path = own_path(scope)
    if path == "/v2" or path.startswith("/v2/"):
        return JSONResponse({"error": str(error.detail)}, error.status_code, headers)
    body = problem_body(state.request_id, error).model_dump()
    return JSONResponse(body, error.status_code, headers, MEDIA_TYPE)


def declaration(status: int, scope: Literal["http", "v2"]) -> dict[str, Any]:
    """Declare an error for the OpenAPI document, with an example of each of its kinds."""
    kinds = {
        name: kind
        for name, kind in KINDS.items()
        if kind.status == status and kind.scope in {scope, "both"}
    }
    headers = sorted({name for kind in kinds.values() for name in kind.headers} - {*_CLOSE})
    errors = {name: kind(**kind.example) for name, kind in kinds.items()}
    if scope == "http":
        media_type, schema = MEDIA_TYPE, "Problem"
        bodies = {name: problem_body(_EXAMPLE_ID, e).model_dump() for name, e in errors.items()}
    else:
        media_type, schema = "application/json", "InferenceError"
        bodies = {name: {"error": error.detail} for name, error in errors.items()}
    return {
        "description": f"{HTTPStatus(status).phrase}.",
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": {
            media_type: {
                "schema": {"$ref": f"#/components/schemas/{schema}"},
                "examples": {name: {"value": body} for name, body in bodies.items()},
            }
        },
    }


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare the errors of a route."""
    return {status: {**declaration(status, "http"), "model": None} for status in statuses}


def inference_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare the errors of a route of the Open Inference Protocol."""
    return {status: {**declaration(status, "v2"), "model": InferenceError} for status in statuses}


def add_handlers(app: FastAPI) -> None:
    """Turn every exception below the application into an error answer."""
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(RequestError, _on_request_error)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise TypeError from error
    if isinstance(error.__cause__, OSError | MemoryError | ClientDisconnect):
        # FastAPI blames the client for whatever happens during form parsing; a full disk is ours.
        raise error.__cause__
    if not isinstance(error, ProblemError):
        error = _from_framework(request.method, error)
    return error_response(request.scope, error)


def _from_framework(method: str, error: HTTPException) -> ProblemError:
    """Reword an error of FastAPI or Starlette."""
    status, detail, headers = error.status_code, str(error.detail), error.headers
    if status == 400:  # a multipart body that Starlette cannot parse
        return (too_many_parts if detail.startswith("Too many") else invalid_form)(why=detail)
    if status == 404:
        return not_found()
    if status == 405:
        allowed = (headers or {}).get("Allow", "another method")
        if allowed == "GET":
            headers = {"Allow": "GET, HEAD"}  # HeadMiddleware answers HEAD
        detail = f"{method} is not possible here; use {allowed}."
    return ProblemError(status, detail, headers)


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise TypeError from error
    details = " ".join(_describe(found) for found in error.errors())
    return error_response(request.scope, invalid_parameter(why=details))


async def _on_request_error(request: Request, error: Exception) -> JSONResponse:
    return error_response(request.scope, invalid_parameter(why=f"{_capitalized(error)}."))


def _describe(found: Mapping[str, Any]) -> str:
    """Describe one validation error of the framework in a sentence that says what to do."""
    place, *path = found["loc"]
    name = str(path[0]) if path else ""
    if place == "body":
        return missing_file.detail.format(name=name or "file")
    return f"The parameter '{name}' is invalid: {found['msg'][0].lower()}{found['msg'][1:]}."


def _capitalized(error: Exception) -> str:
    text = str(error)
    return f"{text[0].upper()}{text[1:]}"

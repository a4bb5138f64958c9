"""Errors of the API: one factory for each, used where it is raised and in the OpenAPI document.

A `ProblemError` carries everything an answer needs: status, detail, headers, and the reason under
which the metrics count it. Bodies are RFC 9457 problems; below `/v2`, the Open Inference Protocol
has a body of its own. Every detail says what was wrong, what was expected and what to do.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Literal, TypeVar

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

__all__ = [
    "MEDIA_TYPE",
    "TITLES",
    "InferenceError",
    "Problem",
    "ProblemError",
    "Rejection",
    "add_handlers",
    "error_response",
    "examples",
    "image_error",
    "inference_responses",
    "problem_body",
    "responses",
]

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

TITLES = {
    400: "Malformed request",
    401: "API key required",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request body timed out",
    409: "Model not reloaded",
    413: "Too large",
    415: "Unsupported format",
    422: "Invalid request",
    429: "Too many requests",
    500: "Internal error",
    503: "Not ready",
    504: "Timed out",
}


class Problem(BaseModel):
    """An error body, `application/problem+json` (RFC 9457)."""

    type: str = Field("about:blank", description="Always `about:blank`; the status is the type.")
    title: str = Field(description="The kind of problem; the same text for the same status.")
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


Factory = TypeVar("Factory", bound=Callable[..., ProblemError])
_examples: list[tuple[str, bool, Callable[[], ProblemError]]] = []


def _example(name: str, *arguments: Any, shared: bool = True) -> Callable[[Factory], Factory]:
    """Register an example of a factory's errors for the OpenAPI document.

    Args:
        name: The name of the example, unique among those of its status.
        *arguments: What to call the factory with.
        shared: Whether routes of the Open Inference Protocol answer this, too.
    """

    def register(factory: Factory) -> Factory:
        _examples.append((name, shared, lambda: factory(*arguments)))
        return factory

    return register


def examples(*, inference: bool) -> dict[str, ProblemError]:
    """Return the examples by name, of the Open Inference Protocol or of all other routes."""
    return {
        name: make()
        for name, shared, make in _examples
        if (inference and (shared or name.startswith("tensors")))
        or (not inference and not name.startswith("tensors"))
    }


# Requests and their keys


@_example("wrong key")
def wrong_key() -> ProblemError:
    """401: the API key is missing or wrong."""
    return ProblemError(
        401,
        "The API key is missing or wrong; send it as 'Authorization: Bearer <key>'.",
        {"WWW-Authenticate": "Bearer"},
        reason="unauthorized",
    )


@_example("no key configured", shared=False)
def reload_disabled() -> ProblemError:
    """403: reloading needs an API key, and none is configured."""
    return ProblemError(
        403,
        "Reloading needs an API key, and this service was started without MNN_API_KEY.",
        reason="reload_disabled",
    )


@_example("damaged file", "digits.safetensors: truncated or damaged", shared=False)
def reload_failed(why: str) -> ProblemError:
    """409: the checkpoint was rejected."""
    return ProblemError(409, f"The previous model stays in service: {why}")


def externally_managed() -> ProblemError:
    """409: the deployment decides which weights are served."""
    return reload_failed("the deployment manages the weights; change them there.")


def not_found() -> ProblemError:
    """404: no route has this path."""
    return ProblemError(404, "There is nothing at this path; see /docs for what there is.")


@_example("no report", shared=False)
def no_report() -> ProblemError:
    """404: no report belongs to the served model."""
    return ProblemError(
        404,
        "There is no report on this model. `python -m training.evaluate CHECKPOINT` writes it "
        "beside the checkpoint.",
    )


@_example("tensors: another model", "letters", "digits")
def no_model(name: str, served: str) -> ProblemError:
    """404: another model is asked for than the served one."""
    return ProblemError(404, f"There is no model {name[:80]!a}; there is {served!r}.")


def no_version(version: str, name: str, served: str) -> ProblemError:
    """404: another version of the model is asked for than the served one."""
    return ProblemError(404, f"Version {version[:80]!a} of {name!r} is not served; {served!r} is.")


# Bodies


@_example("slow body", 10)
def body_timeout(timeout_s: float) -> ProblemError:
    """408: the body did not arrive in time."""
    return ProblemError(
        408,
        f"The body did not arrive within {timeout_s:g} s; send it faster or smaller.",
        {"Connection": "close"},
        reason="body_timeout",
    )


@_example("body", 10_551_296, 20_971_706, shared=False)
def body_too_large(limit: int, size: int | None = None) -> ProblemError:
    """413: the body exceeds the limit of its route."""
    found = "more bytes than allowed" if size is None else f"{size:,} bytes"
    return ProblemError(
        413,
        f"The body has {found}; at most {limit:,} are allowed. Send less at once.",
        {"Connection": "close"},
        reason="too_large",
    )


def file_too_large(size: int, limit: int) -> ProblemError:
    """413: one uploaded file exceeds its limit."""
    return ProblemError(
        413,
        f"The file has {size:,} bytes; at most {limit:,} are allowed. Send a smaller picture.",
        reason="too_large",
    )


@_example("files", 65, 64, shared=False)
def too_many_files(n_files: int, limit: int) -> ProblemError:
    """413: a batch has too many files."""
    return ProblemError(
        413,
        f"{n_files} files were sent; at most {limit} are allowed. Send several batches.",
        reason="too_large",
    )


def batch_exceeds_queue(n_images: int, limit: int) -> ProblemError:
    """413: a request has more images than the queue can ever hold."""
    return ProblemError(
        413,
        f"{n_images} pictures at once are more than {limit}; send smaller batches.",
        reason="too_large",
    )


def several_files(n_files: int) -> ProblemError:
    """422: one file is expected, and several were sent."""
    return ProblemError(
        422,
        f"There are {n_files} parts 'file'; send one. /predict/batch takes several.",
        reason="invalid_input",
    )


def invalid_form(why: str, *, too_many: bool = False) -> ProblemError:
    """422, or 413 for too many parts: the body is not the multipart form that is expected."""
    return ProblemError(
        413 if too_many else 422,
        f"The body is not the multipart form that is expected: {why}",
        reason="too_large" if too_many else "invalid_input",
    )


@_example("no file", shared=False)
def missing_file(name: str = "file") -> ProblemError:
    """422: the form has no file of the expected name."""
    return ProblemError(
        422,
        f"The part '{name}' is missing or not a file: send multipart/form-data with the picture "
        "in it.",
        reason="invalid_input",
    )


@_example("parameter", "Samples must be from 2 to 100, not 101.")
def invalid_request(detail: str) -> ProblemError:
    """422: a parameter is out of range or cannot be read."""
    return ProblemError(422, detail, reason="invalid_input")


@_example(
    "pixels",
    ImageTooLargeError("the picture has 9,000 × 9,000 pixels, more than 25,000,000 in all"),
    shared=False,
)
@_example(
    "text",
    UnsupportedFormatError(
        "not a picture in one of the accepted formats (PNG, JPEG, WEBP, BMP, GIF, TIFF)"
    ),
    shared=False,
)
@_example("empty file", CorruptImageError("the file is empty"), shared=False)
def image_error(error: ImageError) -> ProblemError:
    """413, 415 or 422: the picture cannot be read."""
    cases: dict[type[ImageError], tuple[int, Rejection, str]] = {
        ImageTooLargeError: (413, "too_large", "Send a smaller picture."),
        UnsupportedFormatError: (
            415,
            "unsupported_format",
            "Send PNG, JPEG, WebP, BMP, GIF or TIFF.",
        ),
        CorruptImageError: (
            422,
            "invalid_input",
            "Send the whole picture file in the part 'file'.",
        ),
    }
    status, reason, advice = cases[type(error)]
    return ProblemError(status, f"{_capitalized(error)}. {advice}", reason=reason)


# Load


@_example("queue", 1_026, 1_024)
def queue_full(n_pending: int, limit: int, retry_after_s: int = 1) -> ProblemError:
    """429: the queue has no room."""
    return _overloaded(
        f"{n_pending:,} pictures are waiting, and at most {limit:,} may", retry_after_s
    )


def wait_too_long(n_pending: int, wait_s: float, timeout_s: float, after_s: int) -> ProblemError:
    """429: the estimated wait takes too much of the time in which an answer is due."""
    return _overloaded(
        f"{n_pending:,} pictures are waiting, which takes about {wait_s:.1f} s of the "
        f"{timeout_s:g} s for an answer",
        after_s,
    )


def _overloaded(detail: str, retry_after_s: int) -> ProblemError:
    return ProblemError(
        429,
        f"{detail}; try again after the seconds in Retry-After.",
        {"Retry-After": str(retry_after_s)},
        reason="queue_full",
    )


@_example("bytes")
def inflight_bytes() -> ProblemError:
    """429: the bodies in flight hold too many bytes."""
    return ProblemError(
        429,
        "Too many bytes are being uploaded at this moment; try again after the seconds in "
        "Retry-After.",
        {"Retry-After": "1", "Connection": "close"},
        reason="inflight_bytes",
    )


@_example("late", 10)
def deadline_exceeded(timeout_s: float) -> ProblemError:
    """504: the deadline for an answer has passed."""
    return ProblemError(
        504,
        f"Not answered within {timeout_s:g} s; try again later, or ask for fewer samples.",
        reason="deadline_exceeded",
    )


# The service itself


@_example("loading")
def loading() -> ProblemError:
    """503: there is no model yet."""
    return ProblemError(
        503,
        "The model is being loaded; try again in a second.",
        {"Retry-After": "1"},
        reason="not_ready",
    )


@_example("stopping")
def draining() -> ProblemError:
    """503: the service is about to stop."""
    return ProblemError(
        503,
        "The service is about to stop; ask another one, or try again in a few seconds.",
        {"Retry-After": "5"},
        reason="not_ready",
    )


@_example("internal error")
def internal_error() -> ProblemError:
    """500: a fault of the service, which is in its log."""
    return ProblemError(
        500,
        "The error has been logged with this request's ID; you may try the request again.",
    )


@_example("tensors: images", 413, "513 images are more than 512; send several requests.")
@_example("tensors: no JSON", 400, "The body is not the JSON of an inference request.")
@_example(
    "tensors: brotli",
    415,
    "The Content-Encoding 'br' is not supported; use gzip, deflate or none.",
)
def encoding_error(status: int, detail: str) -> ProblemError:
    """400, 413, 415 or 422: a tensor request or its compression cannot be read."""
    reasons: dict[int, Rejection] = {
        400: "malformed",
        413: "too_large",
        415: "unsupported_format",
        422: "invalid_input",
    }
    headers = {"Accept-Encoding": "gzip, deflate"} if status == 415 else None
    return ProblemError(status, detail, headers, reason=reasons[status])


# Answers


def problem_body(request_id: str, error: HTTPException) -> Problem:
    """Build the body of an error."""
    status = error.status_code
    title = TITLES.get(status, HTTPStatus(status).phrase)
    return Problem(
        type="about:blank",
        title=title,
        status=status,
        detail=str(error.detail),
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


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare problems for the OpenAPI document of a route."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": TITLES[status], "content": content, "model": None}
        for status in statuses
    }


def inference_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare errors for a route of the Open Inference Protocol."""
    return {status: {"description": TITLES[status], "model": InferenceError} for status in statuses}


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
        return invalid_form(detail, too_many=detail.startswith("Too many"))
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
    return error_response(request.scope, invalid_request(details))


async def _on_request_error(request: Request, error: Exception) -> JSONResponse:
    return error_response(request.scope, invalid_request(f"{_capitalized(error)}."))


def _describe(found: Mapping[str, Any]) -> str:
    """Describe one validation error of the framework in a sentence that says what to do."""
    place, *path = found["loc"]
    name = str(path[0]) if path else ""
    if place == "body":
        return str(missing_file(name or "file").detail)
    return f"The parameter '{name}' is invalid: {found['msg'][0].lower()}{found['msg'][1:]}."


def _capitalized(error: Exception) -> str:
    text = str(error)
    return f"{text[0].upper()}{text[1:]}"

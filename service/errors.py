"""Errors: what was wrong, what was expected, what to do.

They are RFC 9457 problems, but for the Open Inference Protocol, which has a body of its own.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

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

__all__ = [
    "FAULT",
    "MEDIA_TYPE",
    "NOTHING_THERE",
    "TITLES",
    "InferenceError",
    "Problem",
    "ProblemError",
    "add_handlers",
    "from_picture",
    "inference_responses",
    "problem",
    "response",
    "responses",
]

MEDIA_TYPE = "application/problem+json"

TITLES = {
    400: "Not a request that is understood",
    401: "A key is needed",
    403: "Not possible here",
    404: "Not found",
    405: "Method not allowed",
    408: "The body came too slowly",
    409: "The model was not reloaded",
    413: "Too large",
    415: "Not a picture format that is read here",
    422: "The request cannot be answered",
    429: "Too many pictures are waiting",
    500: "A fault of this service",
    503: "Not ready",
    504: "Not answered in time",
}

FAULT = "The fault has been logged with this request's id; the request may be tried again."


NOTHING_THERE = "There is nothing at this address; see /docs for what there is."


class Problem(BaseModel):
    """An error body, `application/problem+json`."""

    type: str = Field("about:blank", description="Always `about:blank`: the status says it all.")
    title: str = Field(description="The kind of problem; the same text for the same status.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was wrong, what was expected, what to do.")
    request_id: str = Field(description="The `X-Request-ID` of this request.")


class InferenceError(BaseModel):
    """An error body of the Open Inference Protocol."""

    error: str = Field(description="What was wrong, what was expected, what to do.")


class ProblemError(HTTPException):
    """An answer other than success, raised anywhere below a route.

    It is an `HTTPException` because FastAPI passes those through its body parsing unchanged.
    """


def problem(request_id: str, status: int, detail: str) -> Problem:
    """The body for a status."""
    title = TITLES.get(status, HTTPStatus(status).phrase)
    return Problem(
        type="about:blank", title=title, status=status, detail=detail, request_id=request_id
    )


def response(
    scope: Scope, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The response for a status, as the address that was asked for promises it."""
    path = own_path(scope)
    if path == "/v2" or path.startswith("/v2/"):
        return JSONResponse({"error": detail}, status, dict(headers or {}))
    body = problem(scope["state"]["request_id"], status, detail).model_dump()
    return JSONResponse(body, status, dict(headers or {}), MEDIA_TYPE)


def from_picture(error: ImageError) -> ProblemError:
    """The answer to a picture that cannot be read."""
    statuses: dict[type[ImageError], tuple[int, str]] = {
        ImageTooLargeError: (413, "Send a smaller picture."),
        UnsupportedFormatError: (415, "Send PNG, JPEG, WebP, BMP, GIF or TIFF."),
        CorruptImageError: (422, "Send the whole picture file in the part 'file'."),
    }
    status, advice = statuses[type(error)]
    text = str(error)
    return ProblemError(status, f"{text[0].upper()}{text[1:]}. {advice}")


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The declaration of these problems for the OpenAPI document of a route."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": TITLES[status], "content": content, "model": None}
        for status in statuses
    }


def inference_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The same for a route of the Open Inference Protocol."""
    titles = TITLES | {415: "Not a Content-Encoding that is read here"}
    return {status: {"description": titles[status], "model": InferenceError} for status in statuses}


def add_handlers(app: FastAPI) -> None:
    """Turn every exception below the app into a problem."""
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(RequestError, _on_request_error)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise TypeError from error
    if isinstance(error.__cause__, OSError | MemoryError | ClientDisconnect):
        # FastAPI calls whatever happens while a form is parsed the client's fault; a full disk
        # is ours, and a client that has left is told nothing.
        raise error.__cause__
    status, detail = error.status_code, str(error.detail)
    if status == 400 and not isinstance(error, ProblemError):
        # Starlette's word for a multipart body it cannot parse; the contract knows no 400.
        status = 413 if detail.startswith("Too many") else 422
        detail = f"The body is not the multipart form that is expected: {detail}"
    if status == 404 and detail == "Not Found":
        detail = NOTHING_THERE
    headers = error.headers
    if status == 405:
        allowed = (headers or {}).get("Allow", "another method")
        detail = f"{request.method} is not possible here; use {allowed}."
        if allowed == "GET":
            headers = {"Allow": "GET, HEAD"}  # `service.middleware.head`
    return response(request.scope, status, detail, headers)


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise TypeError from error
    return response(request.scope, 422, " ".join(_describe(fault) for fault in error.errors()))


async def _on_request_error(request: Request, error: Exception) -> JSONResponse:
    text = str(error)
    return response(request.scope, 422, f"{text[0].upper()}{text[1:]}.")


def _describe(fault: Mapping[str, Any]) -> str:
    """One fault found by the framework, as a sentence that says what to do."""
    place, *path = fault["loc"]
    name = str(path[0]) if path else ""
    if place == "body":
        return (
            f"The part '{name or 'file'}' is missing or not a file: send multipart/form-data with "
            "the picture in it."
        )
    return (
        f"The parameter '{name}' is not as expected: {fault['msg'][0].lower()}{fault['msg'][1:]}."
    )

"""The OpenAPI document: what FastAPI reads from the routes, completed by what it cannot know.

A route declares what it answers itself (`problems.responses`, schemas, texts). Added here is what
stands around every route, so that no route repeats it: the key, the fault that nobody foresaw, the
headers of every answer, the bounds that are settings, and examples. Those of successes are answers
that the service has given, kept in `examples.json` by `python -m docs.make_examples`.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from importlib import resources
from typing import Any

from fastapi import FastAPI

from service.keys import RELOAD, is_open
from service.problems import FAULT, MEDIA_TYPE, TITLES, problem
from service.settings import Settings

__all__ = ["INFO", "complete_document", "operations"]

Json = dict[str, Any]

INFO: Json = {
    "title": "Maybe Neural Network",
    "summary": "Reads a handwritten digit and says how sure it is.",
    "description": (
        "Send the picture of a handwritten digit, and get its class with probabilities, credible "
        "intervals, entropies, and whether a person should look:\n\n"
        "    curl -F file=@seven.png http://127.0.0.1:8000/predict\n\n"
        "Probabilities are from 0 to 1, entropies in nats; numbers are rounded to 6 decimals. "
        "Errors are problems (RFC 9457) that say what was wrong, what was expected and what to do."
    ),
    "license_info": {"name": "MIT", "identifier": "MIT"},
    "servers": [{"url": "/", "description": "This service"}],
    "openapi_tags": [
        {"name": "digits", "description": "Pictures in, answers out."},
        {"name": "model", "description": "What is served, how good it is, and its renewal."},
        {"name": "health", "description": "Probes for whoever runs the service."},
        {"name": "operations", "description": "What the service tells of itself."},
    ],
}
"""What FastAPI is told about the document as a whole."""

EXAMPLES: Json = json.loads(resources.files("service").joinpath("examples.json").read_text())
"""Answers by operation (`POST /predict`), status, media type and name of the example."""

PROBLEMS: dict[int, dict[str, str]] = {
    401: {"key": "The key is missing or wrong; send it as 'Authorization: Bearer <key>'."},
    403: {
        "no key": "Reloading needs a key, and this service was started without MNN_API_KEY.",
    },
    404: {
        "no report": "There is no report on this model. `python -m training.evaluate CHECKPOINT` "
        "writes it beside the checkpoint.",
    },
    408: {"slow body": "The body did not arrive within 10 s; send it faster or smaller."},
    409: {
        "damaged file": "The old model is served still: digits.safetensors: not a whole "
        "safetensors file with metadata: it is truncated, damaged or of another kind "
        "(SafetensorError)",
    },
    413: {
        "body": "The body has 20,971,706 bytes; at most 10,551,296 are allowed. Send a smaller "
        "file.",
        "pixels": "The picture has 9,000 × 9,000 pixels, more than 25,000,000 in all. Send a "
        "smaller picture.",
        "files": "65 files, allowed are 64; send several batches.",
    },
    415: {
        "text": "Not a picture in one of the accepted formats (PNG, JPEG, WEBP, BMP, GIF, TIFF). "
        "Send PNG, JPEG, WebP, BMP, GIF or TIFF.",
    },
    422: {
        "no file": "The part 'file' is missing or not a file: send multipart/form-data with the "
        "picture in it.",
        "empty file": "The file is empty. Send the whole picture file in the part 'file'.",
        "parameter": "Samples must be from 2 to 100, not 101.",
    },
    429: {
        "queue": "1,026 pictures are waiting and 1,024 may; try again after the seconds in "
        "Retry-After.",
        "bytes": "Too many bytes are being uploaded at this moment; try again after the seconds in "
        "Retry-After.",
    },
    500: {"fault": FAULT},
    503: {
        "loading": "The model is being loaded; try again in a second.",
        "stopping": "The service is about to stop; ask another one, or try again in a few seconds.",
    },
    504: {
        "late": "Not answered within 10 s; try again later, or ask for fewer samples.",
    },
}
"""What the `detail` of a problem may be, by status and name of the example."""

_REQUEST_ID = "7f2c1d0e9b8a47659f0e1d2c3b4a5968"

_HEADERS: Json = {
    "X-Request-ID": {
        "description": "The caller's own if it was up to 64 letters, digits, `.`, `_` and `-`, "
        "else a new one; it stands in the log of a fault, too.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        "example": _REQUEST_ID,
    },
    "Server-Timing": {
        "description": "Milliseconds: waiting for a lane, working, and in all.",
        "required": True,
        "schema": {"type": "string"},
        "example": "queue;dur=0.06, compute;dur=9.41, total;dur=11.20",
    },
    "Retry-After": {
        "description": "Seconds after which to try again; always there with a 429.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 60},
        "example": 1,
    },
    "WWW-Authenticate": {
        "description": "How the key is to be sent.",
        "required": True,
        "schema": {"type": "string", "const": "Bearer"},
        "example": "Bearer",
    },
}
_EVERYWHERE = ("X-Request-ID", "Server-Timing")
_ONLY_AT = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}

_ID_PARAMETER: Json = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "An id of the caller's for this request; one that is not up to 64 letters, "
    "digits, `.`, `_` and `-` is replaced.",
    "schema": {"type": "string"},
    "example": "form-17",
}
_KEY_SCHEME: Json = {
    "type": "http",
    "scheme": "bearer",
    "description": "The key that the service was started with (`MNN_API_KEY`). Reloading always "
    "needs it; the rest only where the operator wants it so (`MNN_KEY_FOR_ALL`).",
}
_PICTURES = "image/png, image/jpeg, image/webp, image/bmp, image/gif, image/tiff"


def complete_document(app: FastAPI, settings: Settings) -> None:
    """Have an application answer with the completed document, whatever routes it will have."""
    plain = app.openapi
    known: list[Json] = [{}, {}]  # as FastAPI has it, and completed

    def openapi() -> Json:
        document = plain()
        if document is not known[0]:
            known[:] = document, _completed(deepcopy(document), settings)
        return known[1]

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Each operation of a document: its path, its method in capitals, and what is said of it."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method.upper(), operation


def _completed(document: Json, settings: Settings) -> Json:
    components = document["components"]
    components["securitySchemes"] = {"key": _KEY_SCHEME}
    components["headers"] = _HEADERS
    components["parameters"] = {"RequestId": _ID_PARAMETER}
    components["responses"] = {f"Problem{status}": _problem_response(status) for status in PROBLEMS}
    for path, method, operation in operations(document):
        _bound(operation, components["schemas"], settings)
        operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/RequestId"})
        statuses = [500]
        if not is_open(path):
            statuses.append(401)
            must = path == RELOAD or settings.key_for_all
            operation["security"] = [{"key": []}] if must else [{}, {"key": []}]
        for status in statuses:
            operation["responses"].setdefault(str(status), _reference(status))
        _complete_responses(operation["responses"], EXAMPLES.get(f"{method} {path}", {}))
    return document


def _complete_responses(declared: Json, examples: Json) -> None:
    """Headers and examples; what is a problem becomes the problem of that status."""
    for status, response in list(declared.items()):
        if "$ref" in response:
            continue
        if MEDIA_TYPE in response.get("content", {}):
            declared[status] = _reference(int(status))
            continue
        response["headers"] = {**_header_references(int(status)), **response.get("headers", {})}
        for media_type, named in examples.get(status, {}).items():
            response["content"][media_type]["examples"] = named
    for status in sorted(declared):
        declared[status] = declared.pop(status)


def _problem_response(status: int) -> Json:
    examples = {
        name: {
            "summary": name.capitalize(),
            "value": problem(_REQUEST_ID, status, detail).model_dump(),
        }
        for name, detail in PROBLEMS[status].items()
    }
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}
    return {
        "description": f"{TITLES[status]}.",
        "headers": _header_references(status),
        "content": {MEDIA_TYPE: content},
    }


def _reference(status: int) -> Json:
    return {"$ref": f"#/components/responses/Problem{status}"}


def _header_references(status: int) -> Json:
    names = (*_EVERYWHERE, *_ONLY_AT.get(status, ()))
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _bound(operation: Json, schemas: Json, settings: Settings) -> None:
    """Say what FastAPI leaves open: no query is null, and some bounds are settings."""
    for parameter in operation.get("parameters", []):
        schema = parameter["schema"]
        if parameter["in"] == "query":
            if "anyOf" in schema:
                (only,) = (kind for kind in schema.pop("anyOf") if kind != {"type": "null"})
                schema.update(only)
            if parameter["name"] == "samples":
                schema.update(maximum=settings.draws, examples=[settings.draws])
            if parameter["name"] == "level":  # each tail must hold a draw
                del schema["exclusiveMaximum"]
                schema["maximum"] = (10**6 * (settings.draws - 2) // settings.draws) / 10**6
            parameter["example"] = schema.pop("examples", [schema.get("default")])[0]
    form = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data")
    if form is not None:
        properties = schemas[form["schema"]["$ref"].rpartition("/")[2]]["properties"]
        form["encoding"] = {name: {"contentType": _PICTURES} for name in properties}
        for part in properties.values():
            # OpenAPI 3.0's word, which tools still go by.
            part.get("items", part)["format"] = "binary"
        if "files" in properties:
            properties["files"].update(minItems=1, maxItems=settings.max_batch_files)

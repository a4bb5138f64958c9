"""The OpenAPI document: what FastAPI reads from the routes, completed.

A route declares what it answers itself. Added here is what all routes share: the API key, internal
errors, the headers of every answer, the bounds that are settings, and examples. Examples of errors
come from `service.errors`. Those of successes are real answers, kept in
`examples.json` by `python -m docs.make_examples`.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from importlib import resources
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.errors import declaration
from service.security import RELOAD, is_public
from service.settings import Settings

Json = dict[str, Any]

INFO: Json = {
    "title": "Maybe Neural Network",
    "summary": "Reads a handwritten digit and says how sure it is.",
    "description": (
        "Send the picture of a handwritten digit, and get its class with probabilities, credible "
        "intervals, entropies, and whether a person should look:\n\n"
        "    curl -F file=@seven.png http://127.0.0.1:8000/predict\n\n"
        "Probabilities are in [0, 1], entropies in nats; numbers are rounded to 6 decimals. "
        "Errors are problems (RFC 9457) that say what was wrong, what was expected and what to do."
    ),
    "license_info": {"name": "MIT", "identifier": "MIT"},
    "servers": [{"url": "/", "description": "This service"}],
    "openapi_tags": [
        {"name": "digits", "description": "Pictures in, answers out."},
        {"name": "model", "description": "The model in service, its quality, reloading."},
        {"name": "health", "description": "Health probes."},
        {"name": "operations", "description": "Metrics."},
        {
            "name": "open inference protocol",
            "description": "Tensors in, tensors out, for clients of that protocol (v2). "
            "Its errors have a body of their own.",
        },
    ],
}
"""The document's head, as FastAPI takes it."""

ANSWERS: Json = json.loads(resources.files("service").joinpath("api", "examples.json").read_text())
"""Answers by operation (`POST /predict`), status, media type and name of the example."""

_INFERENCE = "/v2"

_HEADERS: Json = {
    "X-Request-ID": {
        "description": "The client's own if it is valid (up to 64 letters, digits, `.`, `_`, `-`), "
        "else a new one; the log has it, too.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        "example": "7f2c1d0e9b8a47659f0e1d2c3b4a5968",
    },
    "Server-Timing": {
        "description": "Milliseconds in the queue, computing, and in total.",
        "required": True,
        "schema": {"type": "string"},
        "example": "queue;dur=0.06, compute;dur=9.41, total;dur=11.20",
    },
    "Retry-After": {
        "description": "Seconds after which to try again; always sent with a 429.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 60},
        "example": 1,
    },
    "Accept-Encoding": {
        "description": "The supported encodings of request bodies.",
        "schema": {"type": "string"},
        "example": "gzip, deflate",
    },
    "WWW-Authenticate": {
        "description": "How to send the key.",
        "required": True,
        "schema": {"type": "string", "const": "Bearer"},
        "example": "Bearer",
    },
}
_EVERYWHERE = ("X-Request-ID", "Server-Timing")

_ID_PARAMETER: Json = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "The client's ID for this request, up to 64 letters, digits, `.`, `_`, `-`; "
    "any other is replaced.",
    "schema": {"type": "string"},
    "example": "form-17",
}
_KEY_SCHEME: Json = {
    "type": "http",
    "scheme": "bearer",
    "description": "The key of the service (`MNN_API_KEY`). Reloading always needs it, the rest "
    "only with `MNN_REQUIRE_API_KEY`.",
}
_PICTURES = "image/png, image/jpeg, image/webp, image/bmp, image/gif, image/tiff"


_SHOWN = ANSWERS["POST /model/reload"]["200"]["application/json"]["reloaded"]["value"]


def complete_document(app: FastAPI, settings: Settings) -> None:
    """Complete the document that an application answers with."""
    plain = app.openapi
    known: list[Json] = [{}, {}]  # FastAPI's document, and the completed one

    def openapi() -> Json:
        document = plain()
        if document is not known[0]:
            known[:] = document, _completed(deepcopy(document), settings)
        return known[1]

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Iterate over the operations of a document: path, method in capitals, operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method.upper(), operation


def operation_id(route: APIRoute) -> str:
    """Name an operation for generated clients: `predict`, `v2_infer_version`."""
    parts = [route.name]
    if route.path.startswith(_INFERENCE):
        parts.insert(0, "v2")
    if "{version}" in route.path:
        parts.append("version")
    return "_".join(parts)


def _completed(document: Json, settings: Settings) -> Json:
    components = document["components"]
    components["securitySchemes"] = {"key": _KEY_SCHEME}
    components["headers"] = _HEADERS
    components["parameters"] = {"RequestId": _ID_PARAMETER}
    for path, method, operation in operations(document):
        _bound(operation, components["schemas"], settings)
        operation["parameters"] = [
            *operation.get("parameters", []),
            {"$ref": "#/components/parameters/RequestId"},
        ]
        declared = operation["responses"]
        scope: Literal["http", "v2"] = "v2" if path.startswith(_INFERENCE) else "http"
        declared.setdefault("500", declaration(500, scope))
        if not is_public(path):
            declared.setdefault("401", declaration(401, scope))
            must = path == RELOAD or settings.require_api_key
            operation["security"] = [{"key": []}] if must else [{}, {"key": []}]
        _complete_responses(declared, ANSWERS.get(f"{method} {path}", {}))
        operation["responses"] = dict(sorted(declared.items()))
    return document


def _complete_responses(declared: Json, answers: Json) -> None:
    """Add the headers of all answers, and the examples of successes."""
    for status, response in declared.items():
        shared = {name: {"$ref": f"#/components/headers/{name}"} for name in _EVERYWHERE}
        response["headers"] = {**shared, **response.get("headers", {})}
        for media_type, examples in answers.get(status, {}).items():
            response["content"][media_type]["examples"] = examples


def _bound(operation: Json, schemas: Json, settings: Settings) -> None:
    """Declare what FastAPI leaves open: no query is null, and some bounds are settings."""
    for parameter in operation.get("parameters", []):
        schema = parameter["schema"]
        if parameter["in"] == "path":
            parameter["example"] = _SHOWN[parameter["name"]]
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
            # OpenAPI 3.0's word, which tools still use.
            part.get("items", part)["format"] = "binary"
        if "files" in properties:
            properties["files"].update(minItems=1, maxItems=settings.max_batch_files)

"""Check that the OpenAPI document declares every answer of the service."""

import re
from functools import cache
from typing import Any

import httpx

__all__ = ["check_declared", "document", "operation_of", "resolved"]

Json = dict[str, Any]


@cache
def document() -> Json:
    """Return the document of a service with default settings."""
    from service import Settings, create_app

    return create_app(Settings()).openapi()


def resolved(value: Json, within: Json | None = None) -> Json:
    """Resolve a reference of the document; anything else is returned as it is."""
    while "$ref" in value:
        found: Json = within or document()
        for step in value["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        value = found
    return value


def operation_of(method: str, path: str) -> Json | None:
    """Return the declared operation of a request, if there is one."""
    for template, item in document()["paths"].items():
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path) and method.lower() in item:
            operation: Json = item[method.lower()]
            return operation
    return None


def check_declared(response: httpx.Response) -> None:
    """Fail if an operation answers with a status or a media type that it does not declare."""
    request = response.request
    operation = operation_of(request.method, request.url.path)
    if operation is None:
        return
    asked = f"{request.method} {request.url.path}"
    declared = operation["responses"].get(str(response.status_code))
    assert declared is not None, f"{asked}: {response.status_code} is not declared"
    media_type = response.headers.get("content-type", "").partition(";")[0]
    content = resolved(declared).get("content", {"": {}})  # none at all: such as for 204
    assert media_type in content, f"{asked}: {media_type} is not declared"

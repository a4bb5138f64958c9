"""Schemas of the Open Inference Protocol v2 for the OpenAPI document."""

from typing import Any

import msgspec
from pydantic import BaseModel, Field

from service.open_inference.codec import INPUT, JSON_LENGTH, InferRequest


class Live(BaseModel):
    """Answer of the liveness probe."""

    live: bool = Field(description="Always true.")


class Ready(BaseModel):
    """Answer of the readiness probe."""

    ready: bool = Field(description="Always true; a service that is not ready answers 503.")


class ModelReady(BaseModel):
    """Answer of the readiness probe of a model."""

    name: str = Field(description="The model's name.")
    ready: bool = Field(description="Always true; a model that is not ready answers 503.")


class ServerMetadata(BaseModel):
    """This service."""

    name: str = Field(description="The name of this service.")
    version: str = Field(description="Its version, not that of a model.")
    extensions: list[str] = Field(description="The supported extensions of the protocol.")


class TensorMetadata(BaseModel):
    """A tensor."""

    name: str = Field(description="Its name in requests and responses.")
    datatype: str = Field(description="The protocol's name of its type, such as FP32.")
    shape: list[int] = Field(description="Its sizes; -1 is the number of images.")


class ModelMetadata(BaseModel):
    """The inputs and outputs of the model."""

    name: str = Field(description="The model's name, as in paths.")
    versions: list[str] = Field(description="The one version that is served.")
    platform: str = Field(description="The model's format: that of this service.")
    inputs: list[TensorMetadata] = Field(description="The input tensors.")
    outputs: list[TensorMetadata] = Field(description="The output tensors.")


class ResponseOutput(BaseModel):
    """A tensor of a response: `data`, or as many bytes after the JSON as `parameters` say."""

    name: str = Field(description="Its name, one of the outputs of the model's metadata.")
    datatype: str = Field(description="The protocol's name of its type, such as FP32.")
    shape: list[int] = Field(description="Its sizes; the first is the number of images.")
    data: list[float | bool] | None = Field(None, description="Flat, in row-major order.")
    parameters: dict[str, int] | None = Field(
        None, description="`binary_data_size`, if it follows the JSON."
    )


class InferResponse(BaseModel):
    """A response; `outputs` are in the requested order."""

    model_name: str = Field(description="The model that answered.")
    model_version: str = Field(description="A hash of everything that decides an answer.")
    id: str | None = Field(None, description="That of the request, if it had one.")
    parameters: dict[str, int | float | bool] = Field(
        description="`samples` and `level` as used, and whether `accept` is `calibrated` for them."
    )
    outputs: list[ResponseOutput] = Field(description="The tensors, one entry per image in each.")


def _path_parameter(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string"},
    }


# Declared here, since FastAPI would add a 422 of its own for parameters that it reads.
PATH = [_path_parameter("name", "The model's name, as in `GET /model`.")]
VERSION_PATH = [*PATH, _path_parameter("version", "The version that is served.")]


def _inlined(schema: Any, components: dict[str, Any]) -> Any:
    """Replace each reference by the schema that it names."""
    if isinstance(schema, list):
        return [_inlined(item, components) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(components[schema["$ref"]], components)
    return {name: _inlined(value, components) for name, value in schema.items()}


_EXAMPLE = {
    "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [1, 28, 28], "data": [0] * 784}],
    "outputs": [{"name": "prediction"}, {"name": "accept"}],
}
_, _COMPONENTS = msgspec.json.schema_components([InferRequest], ref_template="{name}")
_REQUEST = _inlined(_COMPONENTS["InferRequest"], _COMPONENTS)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    JSON_LENGTH: (
        "Size in bytes of the JSON part of the body, decompressed; needed if a tensor follows it.",
        {"type": "integer", "minimum": 1},
    ),
    "Content-Encoding": (
        "How the body is compressed; at most 8 MiB decompressed.",
        {"type": "string", "enum": ["identity", "gzip", "x-gzip", "deflate"]},
    ),
}
INFER_REQUEST: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "header", "description": description, "schema": schema}
        for name, (description, schema) in _HEADERS.items()
    ],
    "requestBody": {
        "required": True,
        "description": "JSON whatever its Content-Type, or JSON followed by a binary tensor.",
        "content": {
            "application/json": {"schema": {**_REQUEST, "example": _EXAMPLE}},
            "application/octet-stream": _BINARY,
        },
    },
}
INFER_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {
        "model": InferResponse,
        "description": "JSON, or JSON followed by binary tensors.",
        "content": {"application/octet-stream": _BINARY},
        "headers": {
            JSON_LENGTH: {
                "description": "Size in bytes of the JSON part, if binary tensors follow it.",
                "schema": {"type": "integer"},
            },
            "Content-Encoding": {
                "description": "How the body is compressed, if the client accepts that.",
                "schema": {"type": "string", "enum": ["gzip", "deflate"]},
            },
            "Vary": {
                "description": "Responses depend on this request header.",
                "required": True,
                "schema": {"type": "string", "const": "Accept-Encoding"},
            },
        },
    }
}

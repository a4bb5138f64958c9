"""The bodies of the Open Inference Protocol v2, as they are declared and for the most part made."""

from typing import Any

from pydantic import BaseModel, Field

from service.tensors import INPUT, MAX_IMAGES, OUTPUTS

__all__ = [
    "INFER_REQUEST",
    "INFER_RESPONSE",
    "PATH",
    "VERSION_PATH",
    "Live",
    "ModelMetadata",
    "ModelReady",
    "Ready",
    "ServerMetadata",
    "TensorMetadata",
]


class Live(BaseModel):
    """The answer of a probe."""

    live: bool


class Ready(BaseModel):
    """The answer of a probe."""

    ready: bool


class ModelReady(BaseModel):
    """The answer of a probe about a model."""

    name: str
    ready: bool


class ServerMetadata(BaseModel):
    """What answers here."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """A tensor; a size of -1 is the number of images."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """What the model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ResponseOutput(BaseModel):
    """A tensor of an answer: `data`, or as many bytes after the JSON as `parameters` say."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float | bool] | None = Field(None, description="Flat, in row-major order.")
    parameters: dict[str, int] | None = Field(
        None, description="`binary_data_size`, if it comes after the JSON."
    )


class InferResponse(BaseModel):
    """An answer; `outputs` in the order in which they were asked for."""

    model_name: str
    model_version: str
    id: str | None = Field(None, description="That of the request, if it had one.")
    parameters: dict[str, int | float | bool] = Field(
        description="`samples` and `level` as used, and whether `accept` is `calibrated` for them."
    )
    outputs: list[ResponseOutput]


def _path_parameter(name: str, meaning: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": meaning,
        "schema": {"type": "string"},
    }


# Declared here, since what the framework reads from an address it also declares to be refused as
# a problem of its own.
PATH = [_path_parameter("name", "The model's name, as in `GET /model`.")]
VERSION_PATH = [*PATH, _path_parameter("version", "The version that is served.")]

_NUMBERS = {"type": "integer", "minimum": 0, "maximum": 255}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_OUTPUT = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "enum": list(OUTPUTS)},
        "parameters": {
            "type": "object",
            "properties": {
                "binary_data": {
                    "type": "boolean",
                    "description": "Whether it comes after the JSON rather than in it.",
                }
            },
        },
    },
}
_INPUT = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string", "const": INPUT},
        "datatype": {"type": "string", "const": "UINT8"},
        "shape": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1, "maximum": MAX_IMAGES},
            "minItems": 3,
            "maxItems": 3,
            "description": f"[N, 28, 28], with N up to {MAX_IMAGES}.",
        },
        "data": {
            "type": "array",
            "items": {"anyOf": [_NUMBERS, {"type": "array", "items": {}}]},
            "description": "Ink high on a background of 0, flat or nested like the shape.",
        },
        "parameters": {
            "type": "object",
            "properties": {
                "binary_data_size": {
                    "type": "integer",
                    "description": "784 N, if the tensor follows the JSON in place of `data`.",
                }
            },
        },
    },
}
_PARAMETERS = {
    "type": "object",
    "properties": {
        "samples": {"type": "integer", "description": "Posterior draws to use, the first N."},
        "level": {"type": "number", "description": "Mass of the credible intervals."},
        "binary_data_output": {
            "type": "boolean",
            "description": "Whether outputs come after the JSON unless they say otherwise.",
        },
    },
}
_REQUEST = {
    "title": "InferRequest",
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "description": "Comes back in the answer."},
        "parameters": _PARAMETERS,
        "inputs": {"type": "array", "items": _INPUT, "minItems": 1, "maxItems": 1},
        "outputs": {
            "type": "array",
            "items": _OUTPUT,
            "description": "Which, and in which order; all if there are none.",
        },
    },
    "example": {
        "inputs": [
            {
                "name": INPUT,
                "datatype": "UINT8",
                "shape": [1, 28, 28],
                "data": [0] * 784,
            }
        ],
        "outputs": [{"name": "prediction"}, {"name": "accept"}],
    },
}
_HEADERS = {
    "Inference-Header-Content-Length": "How many bytes of the body, decompressed, are JSON.",
    "Content-Encoding": "gzip or deflate, if the body is compressed; 8 MiB at most come of it.",
}
INFER_REQUEST: dict[str, Any] = {
    "parameters": [
        {
            "name": name,
            "in": "header",
            "description": meaning,
            "schema": {"type": "string"},
        }
        for name, meaning in _HEADERS.items()
    ],
    "requestBody": {
        "required": True,
        "description": "JSON whatever its Content-Type, or JSON with tensors after it.",
        "content": {"application/json": {"schema": _REQUEST}, "application/octet-stream": _BINARY},
    },
}
INFER_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {
        "model": InferResponse,
        "description": "JSON, or JSON with tensors after it.",
        "content": {"application/octet-stream": _BINARY},
        "headers": {
            "Inference-Header-Content-Length": {
                "description": "How many bytes of the body are JSON, if tensors follow it.",
                "schema": {"type": "integer"},
            }
        },
    }
}

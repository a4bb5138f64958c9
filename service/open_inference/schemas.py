"""The bodies of the Open Inference Protocol v2, as they are declared and for the most part made."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, Field

from model.classifier import MIN_DRAWS, MIN_LEVEL
from model.preprocessing.normalize import SIDE
from service.open_inference.codec import (
    INPUT,
    MAX_IMAGES,
    OUTPUTS,
    TRITONS,
    WITHOUT_EFFECT,
    WITHOUT_EFFECT_ON_TENSORS,
)

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

    live: bool = Field(description="That it is.")


class Ready(BaseModel):
    """The answer of a probe."""

    ready: bool = Field(description="That it is.")


class ModelReady(BaseModel):
    """The answer of a probe about a model."""

    name: str = Field(description="The model that was asked about.")
    ready: bool = Field(description="That it is.")


class ServerMetadata(BaseModel):
    """What answers here."""

    name: str = Field(description="The name of this service.")
    version: str = Field(description="Its version, not that of a model.")
    extensions: list[str] = Field(description="Extensions of the protocol that it knows.")


class TensorMetadata(BaseModel):
    """A tensor; a size of -1 is the number of images."""

    name: str = Field(description="Its name, as in requests and answers.")
    datatype: str = Field(description="The protocol's name of its type, such as FP32.")
    shape: list[int] = Field(description="Its sizes; -1 is the number of images.")


class ModelMetadata(BaseModel):
    """What the model takes and gives."""

    name: str = Field(description="The model's name, as in addresses.")
    versions: list[str] = Field(description="The one version that is served.")
    platform: str = Field(description="What the model is made for: this service.")
    inputs: list[TensorMetadata] = Field(description="What it takes.")
    outputs: list[TensorMetadata] = Field(description="What it gives, if asked for or all.")


class ResponseOutput(BaseModel):
    """A tensor of an answer: `data`, or as many bytes after the JSON as `parameters` say."""

    name: str = Field(description="Its name, one of the outputs of the model's metadata.")
    datatype: str = Field(description="The protocol's name of its type, such as FP32.")
    shape: list[int] = Field(description="Its sizes; the first is the number of images.")
    data: list[float | bool] | None = Field(None, description="Flat, in row-major order.")
    parameters: dict[str, int] | None = Field(
        None, description="`binary_data_size`, if it comes after the JSON."
    )


class InferResponse(BaseModel):
    """An answer; `outputs` in the order in which they were asked for."""

    model_name: str = Field(description="Which model answered.")
    model_version: str = Field(description="A hash of everything that decides an answer.")
    id: str | None = Field(None, description="That of the request, if it had one.")
    parameters: dict[str, int | float | bool] = Field(
        description="`samples` and `level` as used, and whether `accept` is `calibrated` for them."
    )
    outputs: list[ResponseOutput] = Field(description="The tensors, one entry per image in each.")


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


def _or_null(kind: str) -> dict[str, Any]:
    """A member that may be left out or null, which is the same."""
    return {"type": [kind, "null"]}


def _parameters(known: Mapping[str, Any], without_effect: Iterable[str]) -> dict[str, Any]:
    """An object of parameters, which holds no others than these."""
    return {
        **_or_null("object"),
        "properties": {
            **known,
            **{name: {"description": "Without effect."} for name in sorted(without_effect)},
        },
        "additionalProperties": False,
    }


_OUTPUT = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "enum": list(OUTPUTS)},
        "parameters": _parameters(
            {
                "binary_data": {
                    **_or_null("boolean"),
                    "description": "Whether it comes after the JSON rather than in it.",
                }
            },
            WITHOUT_EFFECT_ON_TENSORS,
        ),
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
            "prefixItems": [
                {"type": "integer", "minimum": 1, "maximum": MAX_IMAGES},
                {"const": SIDE},
                {"const": SIDE},
            ],
            "items": False,
            "minItems": 3,
            "description": f"[N, 28, 28], with N up to {MAX_IMAGES}.",
        },
        "data": {
            **_or_null("array"),
            "items": {"anyOf": [_NUMBERS, {"type": "array", "items": {}}]},
            "description": "Ink high on a background of 0, flat or nested like the shape.",
        },
        "parameters": _parameters(
            {
                "binary_data_size": {
                    **_or_null("integer"),
                    "description": "784 N, if the tensor follows the JSON in place of `data`.",
                }
            },
            WITHOUT_EFFECT_ON_TENSORS,
        ),
    },
}
_PARAMETERS = {
    **_parameters(
        {
            "samples": {
                **_or_null("integer"),
                "minimum": MIN_DRAWS,
                "description": "Posterior draws to use, the first N.",
            },
            "level": {
                **_or_null("number"),
                "minimum": MIN_LEVEL,
                "exclusiveMaximum": 1,
                "description": "Mass of the credible intervals, at most 1 - 2/samples.",
            },
            "binary_data_output": {
                **_or_null("boolean"),
                "description": "Whether outputs come after the JSON unless they say otherwise.",
            },
        },
        WITHOUT_EFFECT,
    ),
    "patternProperties": {f"^{TRITONS}": {"description": "Without effect."}},
}
_REQUEST = {
    "title": "InferRequest",
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {**_or_null("string"), "description": "Comes back in the answer."},
        "parameters": _PARAMETERS,
        "inputs": {"type": "array", "items": _INPUT, "minItems": 1, "maxItems": 1},
        "outputs": {
            **_or_null("array"),
            "items": _OUTPUT,
            "description": "Which, and in which order, each once; all if there are none.",
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
            },
            "Content-Encoding": {
                "description": "How the body is compressed, if it is: large ones are for who "
                "accepts it.",
                "schema": {"type": "string", "enum": ["gzip", "deflate"]},
            },
            "Vary": {
                "description": "What beside the body decides how the answer is sent.",
                "required": True,
                "schema": {"type": "string", "const": "Accept-Encoding"},
            },
        },
    }
}

"""Tensors of the Open Inference Protocol v2: request bodies in, response bodies out.

Decoding is bounded: typed structs create no objects beyond those declared here, and an array is
decoded only when it has as many numbers as its shape. Whatever the bytes are, the result is a
`TensorRequest` or a `TensorError`.

Source: KServe, "Open Inference Protocol", specification/protocol/inference_rest.md; NVIDIA, "Binary
Tensor Data Extension" of the Triton Inference Server.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from numpy.typing import NDArray

from model.classifier import MIN_DRAWS, MIN_LEVEL, ClassProbability, Prediction
from model.preprocessing.normalize import SIDE

JSON_LENGTH = "Inference-Header-Content-Length"  # the header with the size of the JSON part
INPUT = "images"
MAX_IMAGES = 512
MAX_BODY_BYTES = 8 * 2**20  # the largest request, indented with one number a line
_MAX_JSON_BYTES = 64 * 1024  # of JSON besides the numbers
_PIXELS = SIDE * SIDE

T = TypeVar("T")

# Outputs

Datatype = Literal["FP32", "INT64", "BOOL"]
_DTYPES: dict[Datatype, str] = {"FP32": "<f4", "INT64": "<i8", "BOOL": "?"}


@dataclass(frozen=True)
class OutputTensor:
    """An output of the model.

    Attributes:
        datatype: The protocol's name of its type.
        description: What it means.
        value: Its entry for one image.
        per_class: Whether its shape is [N, C] rather than [N].
    """

    datatype: Datatype
    description: str
    value: Callable[[Prediction], object]
    per_class: bool = False


def _per_class(description: str, value: Callable[[ClassProbability], float]) -> OutputTensor:
    return OutputTensor(
        "FP32", description, lambda p: [value(entry) for entry in p.classes], per_class=True
    )


OUTPUTS: dict[str, OutputTensor] = {
    "probabilities": _per_class("mean over draws, by class", lambda c: c.probability),
    "lower": _per_class("lower end of the credible interval, by class", lambda c: c.lower),
    "upper": _per_class("upper end of the credible interval, by class", lambda c: c.upper),
    "std": _per_class("standard deviation over draws, by class", lambda c: c.std),
    "predictive_entropy": OutputTensor(
        "FP32", "total uncertainty in nats", lambda p: p.predictive_entropy
    ),
    "expected_entropy": OutputTensor(
        "FP32", "aleatoric part of the entropy in nats", lambda p: p.expected_entropy
    ),
    "mutual_information": OutputTensor(
        "FP32", "epistemic part of the entropy in nats", lambda p: p.mutual_information
    ),
    "prediction": OutputTensor(
        "INT64",
        "index of the most probable label in `labels` of `GET /model`: the digit, for digits",
        lambda p: [entry.label for entry in p.classes].index(p.prediction),
    ),
    "accept": OutputTensor(
        "BOOL",
        "whether the decision rule accepts; guaranteed only if `calibrated` and for images "
        "preprocessed as for `/predict`",
        lambda p: p.decision == "accept",
    ),
}
"""The outputs by name. Metadata, OpenAPI, responses and the documents follow from this table."""

# Requests

_Ignored = Annotated[Raw | UnsetType, Meta(description="Accepted, without effect.")]
_Pixel = Annotated[int, Meta(ge=0, le=255)]
_Flat = Annotated[list[_Pixel], Meta(min_length=_PIXELS)]
_Row = Annotated[list[_Pixel], Meta(min_length=SIDE, max_length=SIDE)]
_Image = Annotated[list[_Row], Meta(min_length=SIDE, max_length=SIDE)]
_Nested = Annotated[list[_Image], Meta(min_length=1)]
_Data = {"anyOf": [*map(msgspec.json.schema, (_Flat, _Nested, None))]}


class InputParameters(Struct, forbid_unknown_fields=True):
    """Parameters of the input."""

    binary_data_size: Annotated[
        Annotated[int, Meta(ge=_PIXELS, le=2**31 - 1)] | None,
        Meta(description="784 N, if the tensor follows the JSON instead of `data`."),
    ] = None
    content_type: _Ignored = UNSET


class RequestInput(Struct):
    """The input tensor."""

    name: Literal["images"]
    datatype: Literal["UINT8"]
    shape: Annotated[
        tuple[
            Annotated[int, Meta(ge=1, extra_json_schema={"maximum": MAX_IMAGES})],
            Literal[28],
            Literal[28],
        ],
        Meta(description=f"[N, 28, 28], with N up to {MAX_IMAGES}."),
    ]
    data: Annotated[
        Raw | UnsetType,
        Meta(
            description="Light strokes on a background of 0, flat or nested like the shape.",
            extra_json_schema=_Data,
        ),
    ] = UNSET
    parameters: InputParameters | None = None


class OutputParameters(Struct, forbid_unknown_fields=True):
    """Parameters of a requested output."""

    binary_data: Annotated[
        bool | None, Meta(description="Whether it follows the JSON rather than being part of it.")
    ] = None
    classification: Annotated[
        Literal[0] | None, Meta(description="Not supported; 0 is the same as absent.")
    ] = None
    content_type: _Ignored = UNSET


class RequestedOutput(Struct):
    """A requested output."""

    name: Annotated[str, Meta(extra_json_schema={"enum": list(OUTPUTS)})]
    parameters: OutputParameters | None = None


class RequestParameters(Struct, forbid_unknown_fields=True):
    """Parameters of the request."""

    samples: Annotated[
        Annotated[int, Meta(ge=MIN_DRAWS, le=2**31 - 1)] | None,
        Meta(description="Posterior draws to use, the first N."),
    ] = None
    level: Annotated[
        Annotated[float, Meta(ge=MIN_LEVEL, lt=1)] | None,
        Meta(description="Mass of the credible intervals, at most 1 - 2/samples."),
    ] = None
    binary_data_output: Annotated[
        bool | None,
        Meta(description="Whether outputs follow the JSON unless they say otherwise."),
    ] = None
    sequence_id: _Ignored = UNSET
    sequence_start: _Ignored = UNSET
    sequence_end: _Ignored = UNSET
    priority: _Ignored = UNSET
    timeout: _Ignored = UNSET
    headers: _Ignored = UNSET
    triton_enable_empty_final_response: _Ignored = UNSET


class InferRequest(Struct):
    """The JSON of an inference request."""

    inputs: tuple[RequestInput]
    outputs: Annotated[
        list[RequestedOutput] | None,
        Meta(description="Which, and in which order, each once; all if there are none."),
    ] = None
    parameters: RequestParameters | None = None
    id: Annotated[str | None, Meta(description="Comes back in the response.")] = None


_REQUEST = msgspec.json.Decoder(InferRequest)
_FLAT, _NESTED = msgspec.json.Decoder(_Flat), msgspec.json.Decoder(_Nested)
_IS_NESTED = re.compile(rb"\[[ \t\r\n]*\[")
_INVALID_PARAMETER = re.compile(r"\.parameters\.(samples|level)")
_HINTS = {
    ".inputs.data": "Send integers from 0 to 255, flat or nested like the shape.",
    ".inputs.parameters": "The only parameter is 'binary_data_size', 784 N bytes; shared memory is "
    "not supported.",
    ".inputs": f"Send one input {INPUT!r} of datatype UINT8 and shape [N, 28, 28], N from 1 to "
    f"{MAX_IMAGES}.",
    ".outputs.parameters": "The only parameter is 'binary_data', true or false; neither shared "
    "memory nor classification is supported.",
    ".outputs": f"The outputs are {', '.join(OUTPUTS)}.",
    ".parameters": "The parameters are 'samples', 'level' and 'binary_data_output', true or false.",
    "": f"Send a JSON object with 'inputs', an array of the tensor {INPUT!r}.",
}
"""What to do about an invalid member, by the beginning of its path."""


class TensorError(ValueError):
    """A request that cannot be answered.

    Attributes:
        status: The HTTP status: 413 for too much, 422 for `samples` or `level`, else 400.
    """

    def __init__(self, message: str, status: Literal[400, 413, 422] = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, eq=False)
class TensorRequest:
    """A decoded request.

    Attributes:
        images: uint8 (N, 28, 28).
        outputs: The requested outputs in order, and whether each is binary.
        id: The client's name for the request, if it gave one.
        samples: Number of draws, if given; the model may hold fewer.
        level: Mass of the credible intervals, if given.
    """

    images: NDArray[np.uint8]
    outputs: Mapping[str, bool]
    id: str | None
    samples: int | None
    level: float | None


def read_json_length(header: str | None, size: int) -> int | None:
    """Parse the header `Inference-Header-Content-Length`.

    Args:
        header: Its value, if it was sent.
        size: Bytes of the whole body, decompressed.

    Raises:
        TensorError: If it is no number from 1 to `size`.
    """
    if header is None:
        return None
    if not re.fullmatch(r"[0-9]{1,12}", header) or not 0 < int(header) <= size:
        raise TensorError(
            f"{JSON_LENGTH} is {ascii(header)[:40]}; it must be the number of bytes of the JSON "
            f"with which the body begins, and the body has {size:,}. A bare tensor is not "
            "supported: send the JSON that describes it before it."
        )
    return int(header)


def read_request(body: bytes, json_length: int | None = None) -> TensorRequest:
    """Decode a request.

    Args:
        body: The whole body, decompressed.
        json_length: Bytes of the JSON at its beginning, if a tensor may follow.

    Raises:
        TensorError: If it is invalid; the message names the member and what is expected.
    """
    text = body if json_length is None else body[:json_length]
    if 2 * text.count(b"{") > _MAX_JSON_BYTES:  # each object has two bytes and costs time
        raise _too_much_json()
    request = _decode(_REQUEST, text)
    parameters = request.parameters or RequestParameters()
    (tensor,) = request.inputs
    if tensor.shape[0] > MAX_IMAGES:
        raise TensorError(f"At most {MAX_IMAGES} images are allowed; send several requests.", 413)
    data = b"" if isinstance(tensor.data, UnsetType) else bytes(tensor.data)
    if len(text) - len(data) > _MAX_JSON_BYTES:
        raise _too_much_json()
    outputs = _read_outputs(request.outputs, binary=bool(parameters.binary_data_output))
    tail = None if json_length is None else memoryview(body)[json_length:]
    pixels = _read_pixels(tensor, b"" if data == b"null" else data, tail)
    images = np.frombuffer(pixels, np.uint8).reshape(tensor.shape)
    return TensorRequest(images, outputs, request.id, parameters.samples, parameters.level)


def write_response(
    head: Mapping[str, Any], predictions: Sequence[Prediction], outputs: Mapping[str, bool]
) -> tuple[bytes, int | None]:
    """Encode a response; numbers in JSON are rounded to 6 decimals.

    Args:
        head: Its members besides `outputs`.
        predictions: One for each image.
        outputs: The outputs in order, and whether each is binary.

    Returns:
        The body, and the bytes of its JSON part; None if all of it is JSON.
    """
    entries, tails = [], []
    for name, binary in outputs.items():
        tensor = OUTPUTS[name]
        array = np.array([tensor.value(prediction) for prediction in predictions])
        entry: dict[str, Any] = {
            "name": name,
            "datatype": tensor.datatype,
            "shape": list(array.shape),
        }
        if binary:
            tails.append(array.astype(_DTYPES[tensor.datatype]).tobytes())
            entry["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            entry["data"] = (
                (array.round(6) if tensor.datatype == "FP32" else array).ravel().tolist()
            )
        # One at a time, so that other threads get their turn.
        entries.append(_dumps(entry))
    text = (_dumps({**head, "outputs": []})[:-2] + ",".join(entries) + "]}").encode()
    return b"".join([text, *tails]), len(text) if tails else None


def _dumps(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _decode(decoder: msgspec.json.Decoder[T], text: bytes, at: str = "") -> T:
    """Decode JSON.

    Args:
        decoder: The decoder of its type.
        text: The JSON.
        at: Its path within the request.
    """
    try:
        return decoder.decode(text)
    except RecursionError:
        raise TensorError("The JSON is nested too deeply.") from None
    except msgspec.ValidationError as error:
        reason, _, path = str(error).rpartition(" - at `$")
        raise _invalid(at + path.rstrip("`"), reason) if reason else _invalid(at, path) from None
    except msgspec.DecodeError as error:
        raise TensorError(
            f"The body is not valid JSON: {str(error).removeprefix('JSON is malformed: ')}. If a "
            f"tensor follows it, {JSON_LENGTH} must be the number of bytes of the JSON."
        ) from None


def _invalid(path: str, reason: str) -> TensorError:
    """Build the error for a member of the request."""
    plain = re.sub(r"\[\d+\]", "", path)
    hint = next(hint for prefix, hint in _HINTS.items() if plain.startswith(prefix))
    name = f"'{path.lstrip('.')}'" if path else "The body"
    shown = reason[:80].replace("`", "'").encode("unicode_escape").decode()
    status: Literal[400, 422] = 422 if _INVALID_PARAMETER.fullmatch(path) else 400
    return TensorError(f"{name} is invalid: {shown[:1].lower()}{shown[1:160]}. {hint}", status)


def _too_much_json() -> TensorError:
    return TensorError(
        f"The JSON has more than {_MAX_JSON_BYTES:,} bytes besides the numbers in 'data'; send "
        "less.",
        413,
    )


def _read_outputs(requested: Sequence[RequestedOutput] | None, *, binary: bool) -> dict[str, bool]:
    """Return the requested outputs, and whether each is binary; `binary` is the default."""
    if not requested:
        return dict.fromkeys(OUTPUTS, binary)
    outputs: dict[str, bool] = {}
    for i, output in enumerate(requested):
        if output.name not in OUTPUTS:
            raise _invalid(f".outputs[{i}].name", f"there is no output {output.name!r}")
        if output.name in outputs:
            raise TensorError(f"The output {output.name!r} is requested twice.")
        own = None if output.parameters is None else output.parameters.binary_data
        outputs[output.name] = binary if own is None else own
    return outputs


def _read_pixels(tensor: RequestInput, data: bytes, tail: memoryview | None) -> bytes | memoryview:
    """Return the pixels of the input, from its JSON or from the bytes after it."""
    expected = tensor.shape[0] * _PIXELS
    size = None if tensor.parameters is None else tensor.parameters.binary_data_size
    if size is None:
        if tail:
            raise TensorError(
                f"{len(tail):,} bytes follow the JSON, but no input has 'binary_data_size'."
            )
        return _read_data(data, tensor.shape)
    if data:
        raise TensorError(f"{INPUT!r} has both 'data' and 'binary_data_size'; send one of them.")
    if tail is None:
        raise TensorError(
            f"{INPUT!r} has 'binary_data_size'; the header {JSON_LENGTH} must be the number of "
            "bytes of the JSON before the tensor."
        )
    if not size == len(tail) == expected:
        raise TensorError(
            f"The shape {list(tensor.shape)} has {expected:,} bytes, 'binary_data_size' is "
            f"{size:,}, and {len(tail):,} bytes follow the JSON; these must be equal."
        )
    return tail


def _read_data(data: bytes, shape: tuple[int, int, int]) -> bytes:
    """Decode an array in JSON, flat or nested like the shape."""
    expected = shape[0] * _PIXELS
    # Flat or nested, there is one comma fewer than numbers. That bounds what is decoded.
    if data.count(b",") != expected - 1:
        raise TensorError(
            f"'data' of {INPUT!r} must be an array of {expected:,} integers from 0 to 255, flat or "
            f"nested like the shape {list(shape)}."
        )
    if _IS_NESTED.match(data) is None:
        return bytes(_decode(_FLAT, data, ".inputs[0].data"))
    images = _decode(_NESTED, data, ".inputs[0].data")
    return b"".join([bytes(row) for image in images for row in image])

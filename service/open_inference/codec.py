"""The tensors of the Open Inference Protocol v2: from a request's bytes, and to an answer's.

Everything is bounded before it is read. Whatever the bytes are, either a request comes of them or a
`TensorError`.

Source: KServe, "Open Inference Protocol", specification/protocol/inference_rest.md; NVIDIA, "Binary
Tensor Data Extension" of the Triton Inference Server.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from service.open_inference.json_arrays import ArrayError, cut_out_arrays, read_bytes

__all__ = [
    "INPUT",
    "JSON_LENGTH",
    "MAX_BODY_BYTES",
    "MAX_IMAGES",
    "OUTPUTS",
    "TRITONS",
    "WITHOUT_EFFECT",
    "WITHOUT_EFFECT_ON_TENSORS",
    "InferenceRequest",
    "TensorError",
    "Wanted",
    "read_json_length",
    "read_request",
    "write_answer",
]

JSON_LENGTH = "Inference-Header-Content-Length"  # the header that says how much of a body is JSON
MAX_IMAGES = 512
MAX_BODY_BYTES = 8 * 2**20  # 512·784 numbers, each on a line of its own and indented
_MAX_JSON_BYTES = 64 * 1024  # of what is not numbers
_SIDE = 28
_PIXELS = _SIDE * _SIDE
_HUGE = 10**18

Datatype = Literal["UINT8", "FP32", "INT64", "BOOL"]
_DTYPES: dict[Datatype, str] = {"UINT8": "u1", "FP32": "<f4", "INT64": "<i8", "BOOL": "?"}


class _Tensor(NamedTuple):
    datatype: Datatype
    per_class: bool = False  # of the shape [N, C], not [N]


INPUT = "images"
OUTPUTS: dict[str, _Tensor] = {
    "probabilities": _Tensor("FP32", per_class=True),
    "lower": _Tensor("FP32", per_class=True),
    "upper": _Tensor("FP32", per_class=True),
    "std": _Tensor("FP32", per_class=True),
    "predictive_entropy": _Tensor("FP32"),
    "expected_entropy": _Tensor("FP32"),
    "mutual_information": _Tensor("FP32"),
    "prediction": _Tensor("INT64"),
    "accept": _Tensor("BOOL"),
}

# Hints to a scheduler that there is none of here, and that clients may send by habit.
WITHOUT_EFFECT = frozenset(
    {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers"}
)
TRITONS = "triton_"  # how parameters begin that mean something to Triton alone
# How clients of MLServer note for themselves what they have made a tensor of.
WITHOUT_EFFECT_ON_TENSORS = frozenset({"content_type"})


class TensorError(ValueError):
    """The bytes are no request that can be answered.

    Attributes:
        status: The HTTP status that says so: 413 for too much, 422 for a parameter that is not as
            it must be, 400 for all else.
    """

    def __init__(self, message: str, status: Literal[400, 413, 422] = 400) -> None:
        """Keep the status beside the message."""
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Wanted:
    """An output that is asked for: its name, and whether after the JSON rather than in it."""

    name: str
    binary: bool


@dataclass(frozen=True, eq=False)
class InferenceRequest:
    """What a client asks.

    Attributes:
        images: uint8 (N, 28, 28).
        outputs: What is to be answered, in this order.
        id: The client's name for the request, if it gave one.
        samples: Number of draws, if it said so; not checked against what is held.
        level: Mass of the credible intervals, if it said so; not checked.
    """

    images: NDArray[np.uint8]
    outputs: tuple[Wanted, ...]
    id: str | None
    samples: int | None
    level: float | None


def read_json_length(header: str | None, size: int) -> int | None:
    """What the header `Inference-Header-Content-Length` says; None if there is none.

    Args:
        header: Its value.
        size: Bytes of the whole body, decompressed.

    Raises:
        TensorError: If it is not a number of bytes that the body has.
    """
    if header is None:
        return None
    if not re.fullmatch(r"[0-9]{1,12}", header) or int(header) > size:
        raise TensorError(
            f"Inference-Header-Content-Length is {_shown(header)}; it must be the number of bytes "
            f"of the JSON with which the body begins, and the body has {size:,}."
        )
    if int(header) == 0:
        raise TensorError(
            "Inference-Header-Content-Length is 0: a body of nothing but a tensor is not read "
            "here. Send the JSON that describes it before it."
        )
    return int(header)


def read_request(body: bytes, json_length: int | None = None) -> InferenceRequest:
    """Read a request.

    Args:
        body: The whole body, decompressed.
        json_length: Bytes of the JSON it begins with, if there are tensors after it.

    Raises:
        TensorError: If it is none; its message says what was wrong and what is expected.
    """
    rest, arrays = cut_out_arrays(body if json_length is None else body[:json_length])
    head = _object(_read_json(rest, arrays), "The body")
    parameters = _parameters(head, "the request")
    samples, level, binary = _read_parameters(parameters)
    name = head.get("id")
    if not (name is None or isinstance(name, str)):
        raise TensorError("'id' must be a string.")
    outputs = _read_outputs(head.get("outputs"), binary=binary)
    tensor = _find_input(head.get("inputs"))
    _check_others([array for array in arrays if array is not tensor.get("data")], len(rest))
    after = None if json_length is None else memoryview(body)[json_length:]
    return InferenceRequest(_read_images(tensor, after), outputs, name, samples, level)


def write_answer(
    head: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], outputs: Sequence[Wanted]
) -> tuple[bytes, int | None]:
    """The body of an answer.

    Args:
        head: Its members beside `outputs`.
        tensors: The outputs, of any precision; as JSON they are rounded to 6 decimals.
        outputs: Which of them, in which order, and how.

    Returns:
        The bytes, and how many of them are JSON; None if all are.
    """
    entries, after = [], []
    for name, binary in ((wanted.name, wanted.binary) for wanted in outputs):
        array, datatype = tensors[name], OUTPUTS[name].datatype
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if binary:
            after.append(array.astype(_DTYPES[datatype]).tobytes())
            entry["parameters"] = {"binary_data_size": len(after[-1])}
        else:
            entry["data"] = (array.round(6) if datatype == "FP32" else array).ravel().tolist()
        # One at a time: other threads get their turn in between.
        entries.append(_dumps(entry))
    text = (_dumps({**head, "outputs": []})[:-2] + ",".join(entries) + "]}").encode()
    return b"".join([text, *after]), len(text) if after else None


def _dumps(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


# The JSON


def _read_json(rest: bytes, arrays: Iterable[bytes]) -> Any:
    """The JSON, with every array that is the member `data` left as its text, in bytes.

    Args:
        rest: What is left of it, and
        arrays: what was cut out: nobody has looked at these yet.
    """
    _check_size(len(rest))
    waiting = iter(arrays)

    # JSON has no NaN, but Python's reader calls back for one: it stands for what was cut out.
    def put_back(_: str) -> bytes:
        array = next(waiting, None)
        if array is None:
            raise TensorError("The body is not JSON: it holds NaN or Infinity.")
        return array

    return _loads(rest, put_back)


def _check_others(arrays: Iterable[bytes], n_bytes: int) -> None:
    """Refuse arrays that were cut out and are of no use here, unless they are JSON and small.

    Args:
        arrays: The arrays.
        n_bytes: What else there is beside the numbers that are of use.
    """

    def refuse(_: str) -> NoReturn:
        raise TensorError("The body is not JSON: it holds NaN or Infinity.")

    arrays = list(arrays)
    _check_size(n_bytes + sum(map(len, arrays)))
    for array in arrays:
        _loads(array, refuse)


def _check_size(n_bytes: int) -> None:
    if n_bytes > _MAX_JSON_BYTES:
        raise TensorError(
            f"The JSON has {n_bytes:,} bytes beside the numbers in 'data' of {INPUT!r}; at most "
            f"{_MAX_JSON_BYTES:,} are allowed.",
            413,
        )


def _loads(text: bytes, constant: Callable[[str], bytes]) -> Any:
    """Python's reader, and the words for what it raises; `constant` is called for each NaN."""
    try:
        return json.loads(text.decode(), parse_constant=constant)
    except RecursionError:
        raise TensorError("The JSON is nested too deeply.") from None
    except TensorError:
        raise
    except ValueError as error:
        reason = getattr(error, "msg", None) or "it is not UTF-8, or has a number too long"
        raise TensorError(
            f"The body is not the JSON of an inference request: {reason}. If tensors follow it, "
            "Inference-Header-Content-Length must say how many bytes of it are JSON."
        ) from None


# The members


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TensorError(f"{what} must be a JSON object.")
    return value


def _parameters(of: Mapping[str, Any], what: str) -> dict[str, Any]:
    found = of.get("parameters")
    return {} if found is None else _object(found, f"'parameters' of {what}")


def _read_parameters(parameters: Mapping[str, Any]) -> tuple[int | None, float | None, bool]:
    """`samples`, `level` and whether outputs are to be binary unless they say otherwise."""
    known = {"samples", "level", "binary_data_output"}
    for name in parameters:
        if not (name in known or name in WITHOUT_EFFECT or name.startswith(TRITONS)):
            raise TensorError(
                f"The parameter {_shown(name)} is not known; there are 'samples', 'level' and "
                "'binary_data_output'."
            )
    samples, level = parameters.get("samples"), parameters.get("level")
    # Whole numbers may be of any length in JSON.
    if samples is not None and not (_is_integer(samples) and abs(samples) < _HUGE):
        raise TensorError("The parameter 'samples' must be a whole number of draws.", 422)
    if level is not None and not (
        isinstance(level, float) or (_is_integer(level) and abs(level) < _HUGE)
    ):
        raise TensorError("The parameter 'level' must be a number below 1.", 422)
    binary = _flag(parameters, "binary_data_output", default=False)
    return samples, None if level is None else float(level), binary


def _read_outputs(outputs: Any, *, binary: bool) -> tuple[Wanted, ...]:
    if outputs is None or outputs == []:
        return tuple(Wanted(name, binary) for name in OUTPUTS)
    if not isinstance(outputs, list):
        raise TensorError("'outputs' must be an array of objects, each with a 'name'.")
    wanted: dict[str, Wanted] = {}
    for output in outputs:
        name = _object(output, "Each of 'outputs'").get("name")
        if not isinstance(name, str) or name not in OUTPUTS:
            raise TensorError(f"There is no output {_shown(name)}; there are {', '.join(OUTPUTS)}.")
        if name in wanted:
            raise TensorError(f"The output {name!r} is asked for twice.")
        parameters = _parameters(output, repr(name))
        _check_parameters(parameters, name, "binary_data")
        wanted[name] = Wanted(name, _flag(parameters, "binary_data", default=binary))
    return tuple(wanted.values())


def _read_images(tensor: dict[str, Any], after: memoryview | None) -> NDArray[np.uint8]:
    n_images = _read_shape(tensor.get("shape"))
    parameters = _parameters(tensor, repr(INPUT))
    _check_parameters(parameters, INPUT, "binary_data_size")
    size, data = parameters.get("binary_data_size"), tensor.get("data")
    if size is not None and data is not None:
        raise TensorError(f"{INPUT!r} has both 'data' and 'binary_data_size'; send one of them.")
    if size is not None:
        return _read_binary(size, after, n_images)
    if after:
        raise TensorError(
            f"{len(after):,} bytes follow the JSON, and no input says so with 'binary_data_size'."
        )
    if not isinstance(data, bytes):
        raise TensorError(
            f"{INPUT!r} must have 'data', an array of whole numbers from 0 to 255, flat or nested "
            "like its shape, or 'binary_data_size' among its parameters."
        )
    try:
        return read_bytes(data, (n_images, _SIDE, _SIDE))
    except ArrayError as error:
        raise TensorError(f"'data' of {INPUT!r} {error}") from None


def _find_input(inputs: Any) -> dict[str, Any]:
    """The one input that there is."""
    if not isinstance(inputs, list) or not inputs:
        raise TensorError(f"'inputs' must be an array with the tensor {INPUT!r} in it.")
    tensors = [_object(each, "Each of 'inputs'") for each in inputs]
    for tensor in tensors:
        if tensor.get("name") != INPUT:
            name = _shown(tensor.get("name"))
            raise TensorError(f"There is no input {name}; the only one is {INPUT!r}.")
    if len(tensors) > 1:
        raise TensorError(f"The input {INPUT!r} is there {len(tensors)} times.")
    datatype = tensors[0].get("datatype")
    if datatype != "UINT8":
        raise TensorError(f"{INPUT!r} must have the datatype UINT8, not {_shown(datatype)}.")
    return tensors[0]


def _read_shape(shape: Any) -> int:
    """N of the shape [N, 28, 28]."""
    if not (
        isinstance(shape, list)
        and len(shape) == 3
        and all(map(_is_integer, shape))
        and shape[0] >= 1
        and shape[1:] == [_SIDE, _SIDE]
    ):
        raise TensorError(
            f"{INPUT!r} must have the shape [N, 28, 28] with N from 1 to {MAX_IMAGES}, not "
            f"{_shown(shape)}."
        )
    if shape[0] > MAX_IMAGES:
        raise TensorError(
            f"{_shown(shape[0])} images are more than {MAX_IMAGES}; send several requests.", 413
        )
    return int(shape[0])


def _read_binary(size: Any, after: memoryview | None, n_images: int) -> NDArray[np.uint8]:
    expected = n_images * _PIXELS
    if after is None:
        raise TensorError(
            f"{INPUT!r} has 'binary_data_size', but there is no header "
            "Inference-Header-Content-Length to say where the JSON ends."
        )
    if not _is_integer(size) or size != expected:
        raise TensorError(
            f"'binary_data_size' is {_shown(size)}; the shape [{n_images}, 28, 28] has "
            f"{expected:,} bytes."
        )
    if len(after) != expected:
        raise TensorError(f"{len(after):,} bytes follow the JSON; {expected:,} should.")
    return np.frombuffer(after, np.uint8).reshape(n_images, _SIDE, _SIDE)


def _check_parameters(parameters: Mapping[str, Any], tensor: str, known: str) -> None:
    """Refuse what Triton can do and this service cannot, and what is more often misspelt."""
    if any(name.startswith("shared_memory_") for name in parameters):
        raise TensorError(
            f"{tensor!r} is to be in shared memory, which is not possible here: send and receive "
            "tensors in the body."
        )
    if parameters.get("classification"):
        raise TensorError(
            f"The parameter 'classification' of {tensor!r} is not known here; the outputs "
            "'prediction' and 'probabilities' say as much."
        )
    for name in parameters:
        if name not in {known, "classification", *WITHOUT_EFFECT_ON_TENSORS}:
            raise TensorError(
                f"The parameter {_shown(name)} of {tensor!r} is not known; there is {known!r}."
            )


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise TensorError(f"The parameter {name!r} must be true or false.")
    return value


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """What a client sent, short and in letters that any log or screen can show."""
    if isinstance(value, bytes):
        value = value[:80].decode(errors="replace")
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list) and any(isinstance(each, list | dict) for each in value[:40]):
        return "an array of others"
    text = ascii(value[:40] if isinstance(value, list | str) else value)
    return text if len(text) <= 40 else f"{text[:37]}..."

"""The tensor codec: any bytes give a request or the declared error."""

import dataclasses
import gzip
import json
import os
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.classifier import ClassProbability, Prediction
from service.encoding import CompressionError, choose_encoding, compress, decompress
from service.open_inference.codec import (
    JSON_LENGTH,
    MAX_BODY_BYTES,
    MAX_IMAGES,
    OUTPUTS,
    TensorError,
    TensorRequest,
    read_json_length,
    read_request,
    write_response,
)
from service.open_inference.schemas import INFER_REQUEST

fuzzed = partial(
    settings,
    max_examples=int(os.environ.get("MNN_FUZZ_EXAMPLES", "300")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)()

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 28, 28), dtype=np.uint8)
FLAT, NESTED = IMAGES.ravel().tolist(), IMAGES.tolist()


def described(data: object = FLAT, **changes: object) -> dict[str, object]:
    """The input `images`, with members changed or, where the change is None, left out."""
    tensor = {"name": "images", "datatype": "UINT8", "shape": [2, 28, 28], "data": data} | changes
    return {name: value for name, value in tensor.items() if value is not None}


def request(tensor: object = None, **members: object) -> bytes:
    """The body of a request for one tensor."""
    return json.dumps({"inputs": [described() if tensor is None else tensor]} | members).encode()


def binary_request(
    tail: bytes | None = None, size: object = IMAGES.size, **members: object
) -> tuple[bytes, int]:
    """The body of a request whose tensor follows the JSON, and the length of the JSON."""
    head = request(described(None, parameters={"binary_data_size": size}), **members)
    return head + (IMAGES.tobytes() if tail is None else tail), len(head)


def with_data(text: str, shape: list[int] | None = None) -> bytes:
    """A request whose `data` is this text."""
    return request(described("@", shape=shape or [2, 28, 28])).replace(b'"@"', text.encode())


# Valid requests


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("data", [FLAT, NESTED], ids=["flat", "nested"])
def test_data_may_be_flat_or_nested_in_any_layout(data: object, indent: int | None) -> None:
    body = json.dumps({"inputs": [described(data)]}, indent=indent).encode()
    assert np.array_equal(read_request(body).images, IMAGES)


def test_a_binary_tensor_is_decoded() -> None:
    asked = read_request(*binary_request())
    assert np.array_equal(asked.images, IMAGES)
    assert asked.images.dtype == np.uint8


def test_the_largest_request_is_decoded_with_one_number_a_line() -> None:
    images = np.full((MAX_IMAGES, 28, 28), 255, np.uint8)
    tensor = described(images.tolist(), shape=list(images.shape))
    body = json.dumps({"inputs": [tensor]}, indent=1).encode()
    assert len(body) <= MAX_BODY_BYTES
    assert np.array_equal(read_request(body).images, images)


def test_an_absent_or_null_member_has_its_default() -> None:
    everything = [(name, False) for name in OUTPUTS]
    for body in (
        request(),
        request(id=None, parameters=None, outputs=None),
        request(outputs=[], parameters={}),
        request(described(parameters={}), more={"data": [1, 2]}),
    ):
        asked = read_request(body)
        assert (asked.id, asked.samples, asked.level) == (None, None, None)
        assert list(asked.outputs.items()) == everything


def test_every_member_of_a_request_is_decoded() -> None:
    outputs = [
        {"name": "std", "parameters": {"binary_data": False}},
        {"name": "accept", "parameters": {"content_type": "np", "classification": 0}},
        {"name": "lower", "parameters": None},
    ]
    parameters = {"samples": 40, "level": 0.9, "binary_data_output": True, "priority": 3}
    asked = read_request(request(id="a\u00e9", outputs=outputs, parameters=parameters))
    assert list(asked.outputs.items()) == [("std", False), ("accept", True), ("lower", True)]
    assert (asked.id, asked.samples, asked.level) == ("a\u00e9", 40, 0.9)


def test_other_members_may_be_named_data() -> None:
    body = request(id='"data": [1]', outputs=[{"name": "std", "x": {"data": [[1, 2.5], None]}}])
    body = body.replace(b'"inputs"', b'"data": "data", "x": {"data" :\n[[1], "data"]}, "inputs"')
    asked = read_request(body)
    assert np.array_equal(asked.images, IMAGES)
    assert asked.id == '"data": [1]'


def test_the_last_of_duplicate_members_counts() -> None:
    body = request().replace(b'"data"', b'"data": [1, 2], "data"', 1)
    assert np.array_equal(read_request(body).images, IMAGES)


UNUSED = {
    "words": "[zz @@ !]",
    "commas": "[1 2 ,,, x]",
    "no comma": "[1 2]",
    "a comma at the end": "[1,]",
    "two in one place": "[1] [2]",
    "leading zeros": "[01]",
    "NaN": "[NaN]",
    "Infinity": "[1, -Infinity]",
    "another nesting": "[[1], [2]]]",
    "nested deeply": "[" * 20_000 + "]" * 20_000,
    "no UTF-8": "[\xff]",
}


@pytest.mark.parametrize("kind", UNUSED)
def test_unused_members_must_be_valid_json(kind: str) -> None:
    text = UNUSED[kind].encode("latin-1")
    output = b'"outputs": [{"name": "std", "data": %b}], "inputs"' % text
    for body in (
        request().replace(b"{", b'{"data": %b, ' % text, 1),
        request().replace(b'"inputs"', output, 1),
        request().replace(b'"data"', b'"data": %b, "data"' % text, 1),
        request()[:-1] + b', "x": {"data": %b}}' % text,
    ):
        with pytest.raises(TensorError, match="JSON") as caught:
            read_request(body)
        assert caught.value.status == 400
    head, length = binary_request()
    more = b'{"data": %b, ' % text
    with pytest.raises(TensorError, match="JSON"):
        read_request(head.replace(b"{", more, 1), length + len(more) - 1)


def test_unused_members_are_bounded() -> None:
    for sizes, fits in (([30_000], True), ([70_000], False), ([35_000, 35_000], False)):
        more = b"".join(b'"data": [%b0], ' % (b"0," * (size // 2)) for size in sizes)
        body = request().replace(b"{", b"{" + more, 1)
        if fits:
            read_request(body)
            continue
        with pytest.raises(TensorError, match="besides the numbers") as caught:
            read_request(body)
        assert caught.value.status == 413


# Invalid requests


def row(*numbers: str) -> str:
    """784 numbers, the given ones first."""
    return "[" + ",".join([*numbers, *["0"] * (784 - len(numbers))]) + "]"


def nested(first: str = "0") -> str:
    """One image, with another text for its first number."""
    return json.dumps([[[0] * 28] * 28]).replace("0", first, 1)


BAD_DATA: dict[str, tuple[str, str]] = {
    "too few": ("[1,2]", "784"),
    "none": ("[]", "784"),
    "one too many": (row()[:-1] + ",0]", "784"),
    "another nesting": (json.dumps([[0] * 784]), "data[0][0]"),
    "no nesting by image": (json.dumps([[0] * 28] * 28), "data[0][0]"),
    "a row too short": (json.dumps([[[0] * 28] * 27 + [[0] * 27]]), "784"),
    "rows of unequal length": (
        json.dumps([[[0] * 29, [0] * 27, *[[0] * 28] * 26]]),
        "data[0][0]' is invalid: expected 'array' of length <= 28",
    ),
    "a gap": (row("")[:-1] + "]", "JSON"),
    "a gap and two in one place": (row("", "1 2"), "JSON"),
    "a number outside": (nested("").replace("]]]", "] 0]]"), "JSON"),
    "a number before": (nested("").replace("[[[", "[0[["), "JSON"),
    "negative": (row("7", "-1"), "data[1]' is invalid: expected 'int' >= 0"),
    "256": (row("256"), "data[0]' is invalid: expected 'int' <= 255"),
    "999": (nested("999"), "data[0][0][0]' is invalid: expected 'int' <= 255"),
    "of many digits": (row("1" * 5000), "data[0]' is invalid: integer value out of range"),
    "leading zeros": (row("007"), "JSON"),
    "a fraction": (row("0.5"), "got 'float'"),
    "an integer with a point": (row("7.0"), "got 'float'"),
    "an exponent": (row("1e2"), "got 'float'"),
    "true": (row("true"), "got 'bool'"),
    "null": (row("null"), "got 'null'"),
    "NaN": (row("NaN"), "JSON"),
    "Infinity": (row("-Infinity"), "JSON"),
    "a string": (row('"7"'), "got 'str'"),
    "strings": (json.dumps(["7"] * 784), "got 'str'"),
    "an object": (row("{}"), "got 'object'"),
    "no array": ('"0"', "array of 784"),
    "a number": ("0", "array of 784"),
    "null instead": ("null", "array of 784"),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_invalid_data_is_rejected_with_its_reason(kind: str) -> None:
    text, told = BAD_DATA[kind]
    with pytest.raises(TensorError) as caught:
        read_request(with_data(text, [1, 28, 28]))
    assert caught.value.status == 400
    assert told in str(caught.value)
    assert len(str(caught.value)) < 300


BAD_REQUESTS: dict[str, tuple[int, str, Callable[[], bytes]]] = {
    "nothing": (400, "JSON", lambda: b""),
    "no JSON": (400, "JSON", lambda: b"\x89PNG\r\n\x1a\n"),
    "no UTF-8": (400, "JSON", lambda: request(id="x").replace(b'"x"', b'"\xff"')),
    "UTF-16": (400, "JSON", lambda: request().decode().encode("utf-16")),
    "cut off": (400, "JSON", lambda: request()[:-3]),
    "more after it": (400, "JSON", lambda: request() + b"x"),
    "NaN": (400, "JSON", lambda: request(parameters={"level": float("nan")})),
    "NaN before the data": (400, "JSON", lambda: b'{"a":NaN,' + request()[1:]),
    "an endless number": (400, "inputs", lambda: b'{"a":' + b"1" * 5000 + b"}"),
    "deep": (400, "deep", lambda: b'{"a":' + b"[" * 60_000),
    "deep arrays of data": (400, "nested too", lambda: with_data("[" * 9000 + "]" * 9000)),
    "much beside the data": (413, "65,536", lambda: request(id="x" * 70_000)),
    "much data of strings": (400, "1,568", lambda: with_data(json.dumps(["0"] * 20_000))),
    "many arrays of data": (
        413,
        "65,536",
        lambda: request()[:-1] + b',"data":[]' * 200_000 + b"}",
    ),
    "many objects": (413, "65,536", lambda: request(x=[{}] * 20_000)),
    "many outputs": (413, "65,536", lambda: request(outputs=[{"name": "std"}] * 5000)),
    "half a surrogate pair": (400, "JSON", lambda: request(id="\ud800")),
    "an array": (400, "object", lambda: b"[]"),
    "a number as id": (400, "'id'", lambda: request(id=7)),
    "no inputs": (400, "inputs", lambda: b"{}"),
    "empty inputs": (400, "inputs", lambda: b'{"inputs": []}'),
    "inputs that are none": (400, "inputs", lambda: b'{"inputs": {"name": "images"}}'),
    "an input that is no object": (400, "object", lambda: request([])),
    "an input without a name": (400, "images", lambda: request(described(name=None))),
    "another input": (400, "'input0'", lambda: request(described(name="input0"))),
    "an input with a long name": (400, "input", lambda: request(described(name="\u2028" * 9999))),
    "the input twice": (400, "length 1", lambda: request(inputs=[described()] * 2)),
    "the input and another": (
        400,
        "length 1",
        lambda: request(inputs=[described(), {"name": "x"}]),
    ),
    "no datatype": (400, "UINT8", lambda: request(described(datatype=None))),
    "another datatype": (400, "'FP32'", lambda: request(described(datatype="FP32"))),
    "datatypes": (400, "array", lambda: request(described(datatype=[["UINT8"] * 9] * 9))),
    "no shape": (400, "[N, 28, 28]", lambda: request(described(shape=None))),
    "a flat shape": (400, "shape[1]' is invalid", lambda: request(described(shape=[2, 784]))),
    "another size": (400, "shape[2]' is invalid", lambda: request(described(shape=[2, 28, 27]))),
    "a channel": (400, "length 3", lambda: request(described(shape=[2, 28, 28, 1]))),
    "no images": (
        400,
        "shape[0]' is invalid: expected 'int' >= 1",
        lambda: request(described([], shape=[0, 28, 28])),
    ),
    "-1 images": (
        400,
        "shape[0]' is invalid: expected 'int' >= 1",
        lambda: request(described(shape=[-1, 28, 28])),
    ),
    "true images": (400, "got 'bool'", lambda: request(described(shape=[True, 28, 28]))),
    "2.0 images": (400, "got 'float'", lambda: request(described(shape=[2.0, 28, 28]))),
    "a shape in words": (400, "got 'str'", lambda: request(described(shape="2,28,28"))),
    "513 images": (413, "512", lambda: request(described([], shape=[513, 28, 28]))),
    "10^4000 images": (413, "512", lambda: request(described([], shape=[10**4000, 28, 28]))),
    "neither data nor a size": (400, "'data'", lambda: request(described(None))),
    "a size without the header": (400, "Content-Length", lambda: binary_request(b"")[0]),
    "both": (400, "both", lambda: request(described(parameters={"binary_data_size": 1568}))),
    "parameters that are none": (400, "object", lambda: request(parameters=[])),
    "a parameter not known": (400, "'sample'", lambda: request(parameters={"sample": 40})),
    "an output's parameter not known": (
        400,
        "unknown field 'binary_dat'. The only parameter is 'binary_data'",
        lambda: request(outputs=[{"name": "std", "parameters": {"binary_dat": True}}]),
    ),
    "an input's parameter not known": (
        400,
        "unknown field 'binary_data_sise'. The only parameter is 'binary_data_size'",
        lambda: request(described(parameters={"binary_data_sise": 1568})),
    ),
    "an input's parameter at an output": (
        400,
        "'binary_data_size'",
        lambda: request(outputs=[{"name": "std", "parameters": {"binary_data_size": 8}}]),
    ),
    "binary outputs, perhaps": (
        400,
        "true or false",
        lambda: request(parameters={"binary_data_output": 1}),
    ),
    "samples in words": (422, "samples", lambda: request(parameters={"samples": "40"})),
    "half a sample": (422, "samples", lambda: request(parameters={"samples": 40.5})),
    "true samples": (422, "samples", lambda: request(parameters={"samples": True})),
    "10^4000 samples": (422, "samples", lambda: request(parameters={"samples": 10**4000})),
    "level in words": (422, "level", lambda: request(parameters={"level": "0.9"})),
    "true level": (422, "level", lambda: request(parameters={"level": True})),
    "level of 10^4000": (422, "level", lambda: request(parameters={"level": 10**4000})),
    "outputs that are none": (400, "outputs", lambda: request(outputs="std")),
    "an output that is no object": (400, "object", lambda: request(outputs=["std"])),
    "an output not known": (400, "'logits'", lambda: request(outputs=[{"name": "logits"}])),
    "an output of no name": (400, "outputs[0].name", lambda: request(outputs=[{"name": [{}]}])),
    "an output twice": (400, "twice", lambda: request(outputs=[{"name": "std"}] * 2)),
    "classification": (
        400,
        "classification",
        lambda: request(outputs=[{"name": "std", "parameters": {"classification": 3}}]),
    ),
    "outputs in shared memory": (
        400,
        "shared memory",
        lambda: request(outputs=[{"name": "std", "parameters": {"shared_memory_region": "r"}}]),
    ),
    "inputs in shared memory": (
        400,
        "shared memory",
        lambda: request(described(None, parameters={"shared_memory_region": "r"})),
    ),
}


@pytest.mark.parametrize("kind", BAD_REQUESTS)
def test_an_invalid_request_is_rejected_with_its_reason(kind: str) -> None:
    status, told, make = BAD_REQUESTS[kind]
    with pytest.raises(TensorError) as caught:
        read_request(make())
    assert caught.value.status == status
    assert told in str(caught.value)
    assert len(str(caught.value)) < 300
    str(caught.value).encode()


@pytest.mark.parametrize(
    ("tail", "size", "told"),
    [
        (IMAGES.tobytes()[:-1], 1568, "1,567"),
        (IMAGES.tobytes() + b"0", 1568, "1,569"),
        (IMAGES.tobytes(), 1567, "1,567"),
        (IMAGES.tobytes(), -1568, "784"),
        (IMAGES.tobytes(), True, "got 'bool'"),
        (IMAGES.tobytes(), 1568.0, "got 'float'"),
        (IMAGES.tobytes(), "1568", "got 'str'"),
        (IMAGES.tobytes(), 10**4000, "2147483647"),
        (b"", 1568, "0 bytes"),
    ],
)
def test_a_binary_tensor_must_match_its_shape_and_size(
    tail: bytes, size: object, told: str
) -> None:
    with pytest.raises(TensorError, match="binary_data_size") as caught:
        read_request(*binary_request(tail, size))
    assert caught.value.status == 400
    assert told in str(caught.value)


def test_bytes_after_the_json_need_binary_data_size() -> None:
    with pytest.raises(TensorError, match="1 bytes follow") as caught:
        read_request(request() + b"x", len(request()))
    assert caught.value.status == 400


@pytest.mark.parametrize("header", ["", "-1", "1e2", " 5", "5 ", "101", "9" * 30, "²", "0x5", "0"])
def test_an_invalid_length_of_the_json_is_rejected(header: str) -> None:
    with pytest.raises(TensorError, match="Content-Length") as caught:
        read_json_length(header, 100)
    assert caught.value.status == 400
    assert read_json_length("100", 100) == 100
    assert read_json_length(None, 100) is None


# Responses


def prediction(*entries: tuple[float, float, float, float], **changes: object) -> Prediction:
    """A prediction with these entries (probability, lower, upper, std) for the classes a, b, ..."""
    classes = tuple(
        ClassProbability(label, probability=p, lower=lower, upper=upper, std=std)
        for label, (p, lower, upper, std) in zip("ab", entries, strict=True)
    )
    members: dict[str, Any] = {
        "prediction": "b",
        "probability": 0.5,
        "decision": "accept",
        "reasons": (),
        "calibrated": True,
        "classes": classes,
        "not_a_digit": None,
        "predictive_entropy": 0.7,
        "expected_entropy": 1 / 3,
        "mutual_information": 1e-7,
        "prediction_set": ("b",),
        "samples": 100,
        "level": 0.95,
        "pixels": np.zeros((28, 28), np.uint8),
        "draws": np.zeros((2, 2)),
    }
    others = {field.name: None for field in dataclasses.fields(Prediction)}
    return Prediction(**(others | members | changes))


def test_a_response_holds_json_and_binary_tensors() -> None:
    answer = prediction((0.4, 0.1, 0.6, 1 / 3), (0.6, 0.2, 2 / 3, 0.25))
    outputs = {"std": True, "upper": False, "accept": True, "prediction": False}
    body, length = write_response({"model_name": "é"}, [answer], outputs)
    assert json.loads(body[:length]) == {
        "model_name": "é",
        "outputs": [
            {
                "name": "std",
                "datatype": "FP32",
                "shape": [1, 2],
                "parameters": {"binary_data_size": 8},
            },
            {"name": "upper", "datatype": "FP32", "shape": [1, 2], "data": [0.6, 0.666667]},
            {
                "name": "accept",
                "datatype": "BOOL",
                "shape": [1],
                "parameters": {"binary_data_size": 1},
            },
            {"name": "prediction", "datatype": "INT64", "shape": [1], "data": [1]},
        ],
    }
    assert body[length:] == np.array([1 / 3, 0.25], "<f4").tobytes() + b"\x01"
    body, length = write_response({}, [answer], {"accept": False})
    assert length is None
    assert json.loads(body)["outputs"][0]["data"] == [True]


def test_each_output_has_the_values_of_its_name() -> None:
    answers = [
        prediction((0.4, 0.1, 0.6, 0.3), (0.6, 0.2, 0.7, 0.25)),
        prediction((0.9, 0.8, 1.0, 0.01), (0.1, 0.0, 0.2, 0.02), prediction="a", decision="review"),
    ]
    body, _ = write_response({}, answers, dict.fromkeys(OUTPUTS, False))
    outputs = json.loads(body)["outputs"]
    assert {output["name"]: output["data"] for output in outputs} == {
        "probabilities": [0.4, 0.6, 0.9, 0.1],
        "lower": [0.1, 0.2, 0.8, 0.0],
        "upper": [0.6, 0.7, 1.0, 0.2],
        "std": [0.3, 0.25, 0.01, 0.02],
        "predictive_entropy": [0.7, 0.7],
        "expected_entropy": [0.333333, 0.333333],
        "mutual_information": [0.0, 0.0],
        "prediction": [1, 0],
        "accept": [True, False],
    }
    for output in outputs:
        tensor = OUTPUTS[output["name"]]
        assert output["datatype"] == tensor.datatype
        assert output["shape"] == ([2, 2] if tensor.per_class else [2])


# The OpenAPI document


def test_every_declared_value_of_a_header_is_decoded() -> None:
    length, header = INFER_REQUEST["parameters"]
    assert (length["name"], header["name"]) == (JSON_LENGTH, "Content-Encoding")
    assert length["schema"] == {"type": "integer", "minimum": 1}
    assert read_json_length("1", 1) == 1
    bodies = {"identity": b"ab", "deflate": zlib.compress(b"ab")}
    for encoding in header["schema"]["enum"]:
        body = bodies.get(encoding, gzip.compress(b"ab"))
        assert decompress(body, encoding, 2) == b"ab"


def test_requests_are_valid_by_the_schema_exactly_when_they_are_decoded() -> None:
    schema = INFER_REQUEST["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(schema["example"])
    accepted = [
        request(),
        request(described(NESTED)),
        request(described(parameters={"content_type": [1], "binary_data_size": None})),
        request(id=None, parameters=None, outputs=None),
        request(parameters={"samples": 40, "level": 0.9, "binary_data_output": True}),
        request(parameters={"timeout": 3, "triton_enable_empty_final_response": True}),
        request(outputs=[{"name": "std", "parameters": {"binary_data": False}}], x=[1]),
    ]
    for body in accepted:
        read_request(body)
        assert validator.is_valid(json.loads(body)), body[:80]
    # What a schema cannot say: how many numbers there are, and what depends on another member.
    unsaid = {"both", "neither data nor a size", "a size without the header", "an output twice"}
    unsaid |= {"half a surrogate pair", "2.0 images"}
    for kind, (_, _, make) in BAD_REQUESTS.items():
        body = make()
        if len(body) > 20_000:
            continue
        try:
            document = json.loads(body.decode(), parse_constant=lambda _: pytest.fail("no JSON"))
        except (ValueError, RecursionError, pytest.fail.Exception):
            continue
        if kind not in unsaid:
            assert not validator.is_valid(document), kind


# Compression


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compression_round_trips_up_to_the_limit(encoding: str) -> None:
    data = os.urandom(1000) * 3
    packed = compress(data, encoding)  # type: ignore[arg-type]
    assert packed == compress(data, encoding)  # type: ignore[arg-type]
    assert len(packed) < len(data)
    assert decompress(packed, f" {encoding.upper()} ", 3000) == data
    with pytest.raises(CompressionError, match="2,999") as caught:
        decompress(packed, encoding, 2999)
    assert caught.value.status == 413
    for damaged in (packed[:-1], packed[:20], b"", b"{}", packed + b"x"):
        with pytest.raises(CompressionError) as caught:
            decompress(damaged, encoding, 3000)
        assert caught.value.status == 400
        assert encoding in str(caught.value) or "compressed" in str(caught.value)


def test_a_decompression_bomb_is_stopped_at_the_limit() -> None:
    bomb = compress(bytes(50 * 2**20), "gzip")
    with pytest.raises(CompressionError) as caught:
        decompress(bomb, "gzip", 2**20)
    assert caught.value.status == 413
    with pytest.raises(CompressionError) as caught:  # the limit is that of all members together
        decompress(compress(bytes(600_000), "gzip") * 2, "gzip", 2**20)
    assert caught.value.status == 413
    with pytest.raises(CompressionError, match="members"):
        decompress(compress(b"", "gzip") * 17, "gzip", 2**20)


def test_gzip_members_are_joined_and_other_encodings_rejected() -> None:
    assert decompress(compress(b"a", "gzip") + compress(b"b", "gzip"), "gzip", 2) == b"ab"
    assert decompress(compress(b"a", "gzip"), "X-GZip", 1) == b"a"
    assert decompress(b"ab", "identity", 1) == decompress(b"ab", "", 1) == b"ab"
    for encoding in ("br", "gzip, gzip", "zstd", "\u00e9" * 100):
        with pytest.raises(CompressionError, match="gzip, deflate") as caught:
            decompress(b"x", encoding, 10)
        assert caught.value.status == 415
    raw = zlib.compressobj(wbits=-15)
    with pytest.raises(CompressionError, match="deflate"):
        decompress(raw.compress(b"ab") + raw.flush(), "deflate", 10)


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br, zstd", "gzip"),
        ("GZIP;q=0.5 , deflate; q=0.8", "deflate"),
        ("gzip;q=0, deflate;q=0.0", None),
        ("identity, gzip;q=0.5", None),
        ("br", None),
        ("*", None),
        ("gzip;q=x", None),
        ("gzip;q=2", None),
        (";;,,gzip;", "gzip"),
        ("x-gzip", "gzip"),
    ],
)
def test_the_encoding_that_a_client_prefers_is_chosen(accepted: str, chosen: str | None) -> None:
    assert choose_encoding(accepted) == chosen


# Properties


def check_read(body: bytes, length: int | None) -> None:
    """Check that the result is a request within its bounds, or the declared error."""
    refused = None
    try:
        asked = read_request(body, length)
    except TensorError as error:
        refused = error
    if refused is not None:
        assert refused.status in (400, 413, 422)
        assert str(refused).endswith(".")
        assert len(str(refused)) < 400
        str(refused).encode()
        return
    assert isinstance(asked, TensorRequest)
    assert 1 <= len(asked.images) <= MAX_IMAGES
    assert asked.images.shape[1:] == (28, 28)
    assert asked.images.dtype == np.uint8
    assert asked.outputs
    assert asked.outputs.keys() <= OUTPUTS.keys()
    assert all(type(binary) is bool for binary in asked.outputs.values())
    assert asked.samples is None or type(asked.samples) is int
    assert asked.level is None or type(asked.level) is float


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["images", "UINT8", 784, 28, [1, 28, 28], [0] * 784, "std", "accept"]),
)
MEMBERS = """
    inputs outputs parameters name shape datatype data id samples level binary_data_size
    binary_data binary_data_output classification x
"""
names = st.sampled_from(MEMBERS.split())
documents = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
    max_leaves=20,
)
edits = st.lists(
    st.tuples(
        st.floats(0, 1), st.integers(0, 30), st.binary(max_size=4) | st.sampled_from(b'"{}[],:-. N')
    ),
    max_size=4,
)
one = described([0] * 784, shape=[1, 28, 28])
valid = st.sampled_from(
    [
        (request(one), None),
        (request(one, id="x", outputs=[{"name": "std"}], parameters={"samples": 40}), None),
        (with_data(nested(), [1, 28, 28]), None),
        binary_request(),
    ]
)


@fuzzed
@given(st.binary(max_size=200), st.none() | st.integers(0, 300))
def test_any_bytes_are_decoded_or_rejected(body: bytes, length: int | None) -> None:
    check_read(body, length)


@fuzzed
@given(documents, st.binary(max_size=20), st.booleans())
def test_any_json_is_decoded_or_rejected(document: object, tail: bytes, binary: bool) -> None:
    head = json.dumps(document).encode()
    check_read(head + tail if binary else head, len(head) if binary else None)


@fuzzed
@given(names, documents, st.sampled_from(["request", "input", "output"]))
def test_a_request_with_any_member_replaced_is_decoded_or_rejected(
    name: str, value: object, place: str
) -> None:
    output: dict[str, object] = {"name": "std"}
    whole: dict[str, object] = {"inputs": [dict(one)], "outputs": [output]}
    {"request": whole, "input": whole["inputs"][0], "output": output}[place][name] = value  # type: ignore[index]
    check_read(json.dumps(whole).encode(), None)


@fuzzed
@given(valid, edits)
def test_a_damaged_request_is_decoded_or_rejected(
    sound: tuple[bytes, int | None], changes: list[tuple[float, int, bytes | int]]
) -> None:
    body, length = sound
    for place, removed, added in changes:
        at = int(place * len(body))
        new = added if isinstance(added, bytes) else bytes([added])
        body = body[:at] + new + body[at + removed :]
    check_read(body, min(length, len(body)) if length is not None else None)


def is_image(value: object) -> bool:
    """Whether a JSON value is one image, flat or nested."""
    if isinstance(value, list) and len(value) == 1:
        rows = value[0]
        if not (isinstance(rows, list) and len(rows) == 28):
            return False
        if not all(isinstance(row, list) and len(row) == 28 for row in rows):
            return False
        value = [number for row in rows for number in row]
    return (
        isinstance(value, list)
        and len(value) == 784
        and all(type(number) is int and 0 <= number <= 255 for number in value)
    )


@fuzzed
@given(
    st.sampled_from([row(), row("255", "1"), nested(), nested("31")]),
    st.lists(
        st.tuples(
            st.integers(0, 70), st.integers(0, 3), st.text("[],0123456789 \n-.e", max_size=4)
        ),
        max_size=3,
    ),
)
def test_data_is_accepted_exactly_when_it_is_the_json_of_an_image(
    text: str, changes: list[tuple[int, int, str]]
) -> None:
    for at, removed, added in changes:
        text = text[:at] + added + text[at + removed :]
    try:
        document = json.loads(with_data(text, [1, 28, 28]))
        (tensor,) = document["inputs"]
        valid = is_image(tensor["data"])
    except ValueError:
        valid = False
    try:
        images = read_request(with_data(text, [1, 28, 28])).images
    except TensorError:
        assert not valid, text
    else:
        assert valid, text
        assert images.ravel().tolist() == np.ravel(tensor["data"]).tolist()


@fuzzed
@given(
    st.binary(max_size=60) | st.binary(max_size=60).map(lambda data: compress(data, "gzip")),
    st.sampled_from(["gzip", "deflate", "", "br"]),
    st.integers(0, 50),
)
def test_any_bytes_are_decompressed_within_the_limit_or_rejected(
    body: bytes, encoding: str, limit: int
) -> None:
    try:
        plain = decompress(body, encoding, limit)
    except CompressionError:
        return
    assert plain is body or len(plain) <= limit

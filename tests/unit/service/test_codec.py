"""The reader and the writer of tensors: whatever the bytes are, a request or the declared error."""

import json
import os
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.encoding import CompressionError, chosen_encoding, compress, decompress
from service.open_inference.codec import (
    MAX_BODY_BYTES,
    MAX_IMAGES,
    OUTPUTS,
    InferenceRequest,
    TensorError,
    Wanted,
    read_json_length,
    read_request,
    write_answer,
)
from service.open_inference.json_arrays import ArrayError, cut_out_arrays, read_bytes

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


# What is read


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("data", [FLAT, NESTED], ids=["flat", "nested"])
def test_numbers_are_read_flat_or_nested_however_they_are_laid_out(
    data: object, indent: int | None
) -> None:
    body = json.dumps({"inputs": [described(data)]}, indent=indent).encode()
    assert np.array_equal(read_request(body).images, IMAGES)


def test_bytes_after_the_json_are_read() -> None:
    asked = read_request(*binary_request())
    assert np.array_equal(asked.images, IMAGES)
    assert asked.images.dtype == np.uint8


def test_the_largest_request_is_read_with_each_number_on_a_line_of_its_own() -> None:
    images = np.full((MAX_IMAGES, 28, 28), 255, np.uint8)
    tensor = described(images.tolist(), shape=list(images.shape))
    body = json.dumps({"inputs": [tensor]}, indent=1).encode()
    assert len(body) <= MAX_BODY_BYTES
    assert np.array_equal(read_request(body).images, images)


def test_what_is_left_out_or_null_is_the_default() -> None:
    everything = tuple(Wanted(name, binary=False) for name in OUTPUTS)
    for body in (
        request(),
        request(id=None, parameters=None, outputs=None),
        request(outputs=[], parameters={}),
        request(described(parameters={}), more={"data": [1, 2]}),
    ):
        asked = read_request(body)
        assert (asked.id, asked.samples, asked.level) == (None, None, None)
        assert asked.outputs == everything


def test_what_is_asked_for_is_read() -> None:
    outputs = [
        {"name": "std", "parameters": {"binary_data": False}},
        {"name": "accept", "parameters": {"content_type": "np", "classification": 0}},
        {"name": "lower", "parameters": None},
    ]
    parameters = {"samples": 40, "level": 0.9, "binary_data_output": True, "priority": 3}
    asked = read_request(request(id="a\ud800", outputs=outputs, parameters=parameters))
    assert asked.outputs == (Wanted("std", False), Wanted("accept", True), Wanted("lower", True))
    assert (asked.id, asked.samples, asked.level) == ("a\ud800", 40, 0.9)


def test_the_word_data_may_stand_in_other_places() -> None:
    body = request(id='"data": [1]', outputs=[{"name": "std", "x": {"data": [[1, 2.5], None]}}])
    body = body.replace(b'"inputs"', b'"data": "data", "x": {"data" :\n[[1], "data"]}, "inputs"')
    asked = read_request(body)
    assert np.array_equal(asked.images, IMAGES)
    assert asked.id == '"data": [1]'


def test_the_last_of_several_data_counts_as_in_any_reader_of_json() -> None:
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
    "a number too long": f"[{'1' * 5000}]",
    "no UTF-8": "[\xff]",
}


@pytest.mark.parametrize("kind", UNUSED)
def test_an_array_that_is_of_no_use_must_be_json_all_the_same(kind: str) -> None:
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


def test_arrays_that_are_of_no_use_are_bounded_together_with_the_rest() -> None:
    for sizes, fits in (([30_000], True), ([70_000], False), ([35_000, 35_000], False)):
        more = b"".join(b'"data": [%b0], ' % (b"0," * (size // 2)) for size in sizes)
        body = request().replace(b"{", b"{" + more, 1)
        if fits:
            read_request(body)
            continue
        with pytest.raises(TensorError, match="beside the numbers") as caught:
            read_request(body)
        assert caught.value.status == 413


# What is refused


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
    "another nesting": (json.dumps([[0] * 784]), "784"),
    "no image's nesting": (json.dumps([[0] * 28] * 28), "784"),
    "ragged": (nested("0,0").replace("0,0,", "0,", 1)[:-4] + "]]]", "784"),
    "a gap": (row("")[:-1] + "]", "784"),
    "a gap and two in one place": (row("", "1 2"), "784"),
    "a number outside": (nested("").replace("]]]", "] 0]]"), "784"),
    "a number before": (nested("").replace("[[[", "[0[["), "784"),
    "negative": (row("7", "-1"), "'-1'"),
    "negative zero": (row("-0"), "'-0'"),
    "256": (row("256"), "'256'"),
    "999": (nested("999"), "'999'"),
    "of many digits": (row("1" * 5000), "'1111"),
    "leading zeros": (row("007"), "'007'"),
    "a fraction": (row("0.5"), "'0.5'"),
    "a whole number with a point": (row("7.0"), "'7.0'"),
    "an exponent": (row("1e2"), "'1e2'"),
    "true": (row("true"), "'true'"),
    "null": (row("null"), "'null'"),
    "NaN": (row("NaN"), "'NaN'"),
    "Infinity": (row("-Infinity"), "'-Infinity'"),
    "a string": (row('"7"'), "whole numbers"),
    "strings": (json.dumps(["7"] * 784), "whole numbers"),
    "an object": (row("{}"), "whole numbers"),
    "no array": ('"0"', "array"),
    "a number": ("0", "array"),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_data_that_are_not_the_numbers_of_the_shape_are_refused_and_told(kind: str) -> None:
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
    "NaN": (400, "NaN", lambda: request(parameters={"level": float("nan")})),
    "NaN before the data": (400, "NaN", lambda: b'{"a":NaN,' + request()[1:]),
    "an endless number": (400, "number", lambda: b'{"a":' + b"1" * 5000 + b"}"),
    "deep": (400, "deep", lambda: b'{"a":' + b"[" * 60_000),
    "deep arrays of data": (400, "nested like", lambda: with_data("[" * 9000 + "]" * 9000)),
    "much beside the data": (413, "65,536", lambda: request(id="x" * 70_000)),
    "much data of strings": (413, "65,536", lambda: with_data(json.dumps(["0"] * 20_000))),
    "many arrays of data": (413, "65,536", lambda: b'{"data":[]' + b',"data":[]' * 200_000 + b"}"),
    "an array": (400, "object", lambda: b"[]"),
    "a number as id": (400, "'id'", lambda: request(id=7)),
    "no inputs": (400, "inputs", lambda: b"{}"),
    "empty inputs": (400, "inputs", lambda: b'{"inputs": []}'),
    "inputs that are none": (400, "inputs", lambda: b'{"inputs": {"name": "images"}}'),
    "an input that is no object": (400, "object", lambda: request([])),
    "an input without a name": (400, "images", lambda: request(described(name=None))),
    "another input": (400, "'input0'", lambda: request(described(name="input0"))),
    "an input with a long name": (400, "input", lambda: request(described(name="\ud800" * 9999))),
    "the input twice": (400, "2 times", lambda: request(inputs=[described()] * 2)),
    "the input and another": (400, "'x'", lambda: request(inputs=[described(), {"name": "x"}])),
    "no datatype": (400, "UINT8", lambda: request(described(datatype=None))),
    "another datatype": (400, "'FP32'", lambda: request(described(datatype="FP32"))),
    "datatypes": (400, "array", lambda: request(described(datatype=[["UINT8"] * 9] * 9))),
    "no shape": (400, "[N, 28, 28]", lambda: request(described(shape=None))),
    "a flat shape": (400, "[2, 784]", lambda: request(described(shape=[2, 784]))),
    "another size": (400, "[2, 28, 27]", lambda: request(described(shape=[2, 28, 27]))),
    "a channel": (400, "28, 28, 1]", lambda: request(described(shape=[2, 28, 28, 1]))),
    "no images": (400, "[0, 28, 28]", lambda: request(described([], shape=[0, 28, 28]))),
    "-1 images": (400, "[-1, 28, 28]", lambda: request(described(shape=[-1, 28, 28]))),
    "true images": (400, "[True, 28, 28]", lambda: request(described(shape=[True, 28, 28]))),
    "2.0 images": (400, "[2.0, 28, 28]", lambda: request(described(shape=[2.0, 28, 28]))),
    "a shape in words": (400, "'2,28,28'", lambda: request(described(shape="2,28,28"))),
    "513 images": (413, "512", lambda: request(described([], shape=[513, 28, 28]))),
    "10^4000 images": (413, "512", lambda: request(described([], shape=[10**4000, 28, 28]))),
    "neither data nor a size": (400, "'data'", lambda: request(described(None))),
    "a size without the header": (400, "Content-Length", lambda: binary_request(b"")[0]),
    "both": (400, "both", lambda: request(described(parameters={"binary_data_size": 1568}))),
    "parameters that are none": (400, "object", lambda: request(parameters=[])),
    "a parameter not known": (400, "'sample'", lambda: request(parameters={"sample": 40})),
    "an output's parameter not known": (
        400,
        "'binary_dat' of 'std' is not known; there is 'binary_data'",
        lambda: request(outputs=[{"name": "std", "parameters": {"binary_dat": True}}]),
    ),
    "an input's parameter not known": (
        400,
        "'binary_data_sise' of 'images' is not known; there is 'binary_data_size'",
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
    "an output of no name": (400, "no output", lambda: request(outputs=[{"name": [{}]}])),
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
def test_a_request_that_is_none_is_refused_and_told(kind: str) -> None:
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
        (IMAGES.tobytes(), 1567, "1567"),
        (IMAGES.tobytes(), -1568, "-1568"),
        (IMAGES.tobytes(), True, "True"),
        (IMAGES.tobytes(), 1568.0, "1568.0"),
        (IMAGES.tobytes(), "1568", "'1568'"),
        (IMAGES.tobytes(), 10**4000, "100000"),
        (b"", 1568, "0 bytes"),
    ],
)
def test_bytes_that_do_not_match_the_shape_are_refused(
    tail: bytes, size: object, told: str
) -> None:
    with pytest.raises(TensorError, match="1,568") as caught:
        read_request(*binary_request(tail, size))
    assert caught.value.status == 400
    assert told in str(caught.value)


def test_bytes_after_the_json_that_no_input_claims_are_refused() -> None:
    with pytest.raises(TensorError, match="1 bytes follow") as caught:
        read_request(request() + b"x", len(request()))
    assert caught.value.status == 400


@pytest.mark.parametrize("header", ["", "-1", "1e2", " 5", "5 ", "101", "9" * 30, "²", "0x5", "0"])
def test_a_length_of_the_json_that_cannot_be_is_refused(header: str) -> None:
    with pytest.raises(TensorError, match="Content-Length") as caught:
        read_json_length(header, 100)
    assert caught.value.status == 400
    assert read_json_length("100", 100) == 100
    assert read_json_length(None, 100) is None


# What is written


def test_an_answer_is_written_as_json_and_as_bytes() -> None:
    outputs = [Wanted("std", True), Wanted("lower", False), Wanted("accept", True)]
    outputs += [Wanted("prediction", False)]
    made: dict[str, np.ndarray[Any, Any]] = {
        "std": np.array([[0.1, 1 / 3]]),
        "lower": np.array([[0.1, 1 / 3]]),
        "accept": np.array([True]),
        "prediction": np.array([7]),
    }
    body, length = write_answer({"model_name": "é"}, made, outputs)
    assert json.loads(body[:length]) == {
        "model_name": "é",
        "outputs": [
            {
                "name": "std",
                "datatype": "FP32",
                "shape": [1, 2],
                "parameters": {"binary_data_size": 8},
            },
            {"name": "lower", "datatype": "FP32", "shape": [1, 2], "data": [0.1, 0.333333]},
            {
                "name": "accept",
                "datatype": "BOOL",
                "shape": [1],
                "parameters": {"binary_data_size": 1},
            },
            {"name": "prediction", "datatype": "INT64", "shape": [1], "data": [7]},
        ],
    }
    assert body[length:] == np.array([0.1, 1 / 3], "<f4").tobytes() + b"\x01"
    body, length = write_answer({}, made, [Wanted("accept", False)])
    assert length is None
    assert json.loads(body)["outputs"][0]["data"] == [True]


# Compression


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_is_compressed_is_read_again_up_to_the_limit(encoding: str) -> None:
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


def test_a_bomb_is_stopped_at_the_limit() -> None:
    bomb = compress(bytes(200 * 2**20), "gzip")
    with pytest.raises(CompressionError) as caught:
        decompress(bomb, "gzip", 2**20)
    assert caught.value.status == 413
    with pytest.raises(CompressionError) as caught:  # the limit is that of all members together
        decompress(compress(bytes(600_000), "gzip") * 2, "gzip", 2**20)
    assert caught.value.status == 413
    with pytest.raises(CompressionError, match="members"):
        decompress(compress(b"", "gzip") * 50_000, "gzip", 2**20)


def test_gzip_members_are_joined_and_other_encodings_refused() -> None:
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
def test_the_encoding_that_a_client_likes_most_is_chosen(accepted: str, chosen: str | None) -> None:
    assert chosen_encoding(accepted) == chosen


def test_only_what_is_offered_is_chosen() -> None:
    assert chosen_encoding("gzip;q=0.5, deflate", ["gzip"]) == "gzip"
    assert chosen_encoding("gzip;q=0, deflate", ["gzip"]) is None


# Whatever the bytes are


def check_read(body: bytes, length: int | None) -> None:
    """Either a request within its bounds comes of it, or the declared error."""
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
    assert isinstance(asked, InferenceRequest)
    assert 1 <= len(asked.images) <= MAX_IMAGES
    assert asked.images.shape[1:] == (28, 28)
    assert asked.images.dtype == np.uint8
    assert len({wanted.name for wanted in asked.outputs}) == len(asked.outputs) > 0
    assert {wanted.name for wanted in asked.outputs} <= set(OUTPUTS)
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
def test_any_bytes_are_read_or_refused(body: bytes, length: int | None) -> None:
    check_read(body, length)


@fuzzed
@given(documents, st.binary(max_size=20), st.booleans())
def test_any_json_is_read_or_refused(document: object, tail: bytes, binary: bool) -> None:
    head = json.dumps(document).encode()
    check_read(head + tail if binary else head, len(head) if binary else None)


@fuzzed
@given(names, documents, st.sampled_from(["request", "input", "output"]))
def test_a_request_with_any_member_replaced_is_read_or_refused(
    name: str, value: object, place: str
) -> None:
    output: dict[str, object] = {"name": "std"}
    whole: dict[str, object] = {"inputs": [dict(one)], "outputs": [output]}
    {"request": whole, "input": whole["inputs"][0], "output": output}[place][name] = value  # type: ignore[index]
    check_read(json.dumps(whole).encode(), None)


@fuzzed
@given(valid, edits)
def test_a_request_that_was_tampered_with_is_read_or_refused(
    sound: tuple[bytes, int | None], changes: list[tuple[float, int, bytes | int]]
) -> None:
    body, length = sound
    for place, removed, added in changes:
        at = int(place * len(body))
        new = added if isinstance(added, bytes) else bytes([added])
        body = body[:at] + new + body[at + removed :]
    check_read(body, min(length, len(body)) if length is not None else None)


array_text = st.text("[],0123456789 \n-.et", max_size=30) | st.builds(
    lambda data, at, removed, added: (
        (text := json.dumps(data))[: int(at * len(text))]
        + added
        + text[int(at * len(text)) + removed :]
    ),
    st.sampled_from([[1, 20, 255, 0], [[1, 20], [255, 0]], [[0, 0], [256, 12]]]),
    st.floats(0, 1),
    st.integers(0, 3),
    st.text("[],0123456789 -", max_size=3),
)


@fuzzed
@given(array_text)
@example("[[1,2],[3,4]]")
@example("[[1,2],3[4]]")
@example("[[1 2,],[3,4]]")
@example("[[,1 2],[3,4]]")
@example("[1,2,3,4]")
@example("[1,2,3,4,]")
@example("[01,2,3,4]")
@example("[1,2],[3,4]")
def test_an_array_is_read_just_where_a_reader_of_json_would(text: str) -> None:
    text = f"[{text.strip().removeprefix('[').removesuffix(']')}]"
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    fits = (
        isinstance(found, list)
        and "-" not in text
        and (
            (len(found) == 4 and all(type(n) is int and n <= 255 for n in found))
            or (
                len(found) == 2
                and all(isinstance(part, list) and len(part) == 2 for part in found)
                and all(type(n) is int and n <= 255 for part in found for n in part)
            )
        )
    )
    try:
        read = read_bytes(text.encode(), (2, 2))
    except ArrayError:
        assert not fits, text
    else:
        assert fits, text
        assert read.ravel().tolist() == np.ravel(found).tolist()


@fuzzed
@given(documents)
def test_what_is_cut_out_of_json_is_its_arrays_of_numbers(document: object) -> None:
    # Without NaN: JSON has none, so what stands for an array is taken for nothing else.
    text = json.dumps(document).replace("NaN", "1").replace("Infinity", "1")
    rest, arrays = cut_out_arrays(text.encode())
    waiting = iter(arrays)
    again = json.loads(rest, parse_constant=lambda _: json.loads(next(waiting)))
    assert again == json.loads(text)
    assert next(waiting, None) is None


@fuzzed
@given(
    st.binary(max_size=60) | st.binary(max_size=60).map(lambda data: compress(data, "gzip")),
    st.sampled_from(["gzip", "deflate", "", "br"]),
    st.integers(0, 50),
)
def test_any_bytes_are_decompressed_within_the_limit_or_refused(
    body: bytes, encoding: str, limit: int
) -> None:
    try:
        plain = decompress(body, encoding, limit)
    except CompressionError:
        return
    assert plain is body or len(plain) <= limit

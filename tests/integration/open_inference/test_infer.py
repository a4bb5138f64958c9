"""`/v2`: the Open Inference Protocol as its clients use it, valid requests and errors."""

import asyncio
import gzip
import json
import logging
import re
import shlex
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from fastapi import FastAPI, Request
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from model import Classifier, Prediction, load
from model.preprocessing.normalize import DigitImage, open_bytes
from service import Settings, create_app
from service.open_inference import routes
from service.open_inference.codec import MAX_BODY_BYTES, OUTPUTS, TensorRequest
from tests.support.paths import ROOT
from tests.support.service.api_key import KEY, bearer
from tests.support.service.engines import FailingEngine, WaitingEngine, n_pending, serve_engine
from tests.support.service.in_process import running, started
from tests.support.service.metrics import counted, metric_value
from tests.support.service.problems import LEAKS, TIMING
from tests.support.service.raw_http import connected, read_answer
from tests.support.service.server import Server

Images = NDArray[np.uint8]

INFER = "/v2/models/digits/infer"
LIMITED = {"device": "cpu", "draws": 40, "max_upload_bytes": 1000, "body_timeout_s": 1}
DTYPES = {"FP32": np.float32, "INT64": np.int64, "BOOL": np.bool_}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load(device="cpu")


@pytest.fixture(scope="module")
def images(seven_png: bytes) -> Images:
    """Sevens, noise and a blank: what is accepted and what is not."""
    seven = open_bytes(seven_png).pixels
    noise = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    moved = [np.roll(seven, (i, -i), axis=(0, 1)) for i in range(-2, 3)]
    return np.stack([*moved, *noise, np.zeros_like(seven)])


@pytest.fixture
def asking(server: Server) -> Iterator[triton.InferenceServerClient]:
    """A tritonclient for `server`."""
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


def expected(
    classifier: Classifier, images: Images, *, samples: int = 100, level: float = 0.95
) -> dict[str, NDArray[np.float64]]:
    """The outputs for these images by the Python call, each image by itself."""
    return as_tensors(
        classifier.predict_inputs([DigitImage(image)], samples=samples, levels=[level])[0]
        for image in images
    )


def as_tensors(answers: Iterator[Prediction]) -> dict[str, NDArray[np.float64]]:
    rows = [
        {
            "probabilities": [entry.probability for entry in answer.classes],
            "lower": [entry.lower for entry in answer.classes],
            "upper": [entry.upper for entry in answer.classes],
            "std": [entry.std for entry in answer.classes],
            "predictive_entropy": answer.predictive_entropy,
            "expected_entropy": answer.expected_entropy,
            "mutual_information": answer.mutual_information,
            "prediction": int(answer.prediction),
            "accept": answer.decision == "accept",
        }
        for answer in answers
    ]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def triton_input(images: Images, *, binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("images", list(images.shape), "UINT8")
    return tensor.set_data_from_numpy(images, binary_data=binary)


def asked(images: Images, **members: object) -> dict[str, object]:
    """The JSON of a request."""
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(images.shape)}
    return {"inputs": [{**tensor, "data": images.tolist()}], **members}


def in_binary(images: Images, **members: object) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a request whose tensor follows the JSON."""
    body = asked(images, **members)
    (tensor,) = body["inputs"]  # type: ignore[misc]
    del tensor["data"]
    tensor["parameters"] = {"binary_data_size": images.size}
    head = json.dumps(body).encode()
    return head + images.tobytes(), {"Inference-Header-Content-Length": str(len(head))}


def found(answer: httpx.Response) -> dict[str, NDArray[np.float64]]:
    """The outputs of an answer in JSON."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    return {
        output["name"]: np.array(output["data"]).reshape(output["shape"])
        for output in answer.json()["outputs"]
    }


def check_error(answer: httpx.Response, status: int) -> str:
    """Check that an answer is the protocol's error of this status; returns what it says."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-ID"]
    assert TIMING.fullmatch(answer.headers["Server-Timing"])
    body = answer.json()
    assert set(body) == {"error"}
    assert isinstance(body["error"], str)
    assert body["error"]
    assert not [leak for leak in LEAKS if leak in body["error"]]
    return str(body["error"])


# tritonclient


def test_tritonclient_reads_probes_and_metadata(
    asking: triton.InferenceServerClient, classifier: Classifier
) -> None:
    assert asking.is_server_live()
    assert asking.is_server_ready()
    assert asking.is_model_ready("digits")
    assert asking.is_model_ready("digits", classifier.version)
    assert not asking.is_model_ready("letters")
    assert not asking.is_model_ready("digits", "1")
    assert "binary_tensor_data" in asking.get_server_metadata()["extensions"]
    told = asking.get_model_metadata("digits")
    assert told == asking.get_model_metadata("digits", classifier.version)
    assert (told["name"], told["versions"]) == ("digits", [classifier.version])
    assert told["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 28, 28]}]
    shapes = {output["name"]: (output["datatype"], output["shape"]) for output in told["outputs"]}
    assert shapes == {
        **dict.fromkeys(("probabilities", "lower", "upper", "std"), ("FP32", [-1, 10])),
        **dict.fromkeys(
            ("predictive_entropy", "expected_entropy", "mutual_information"), ("FP32", [-1])
        ),
        "prediction": ("INT64", [-1]),
        "accept": ("BOOL", [-1]),
    }


@pytest.mark.parametrize("compressed", [None, "gzip", "deflate"])
@pytest.mark.parametrize(
    ("binary_input", "binary_output"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_tritonclient_gets_the_predictions_of_the_python_call(  # noqa: PLR0917 - two are fixtures' data
    asking: triton.InferenceServerClient,
    classifier: Classifier,
    images: Images,
    binary_input: bool,
    binary_output: bool,
    compressed: str | None,
) -> None:
    answer = asking.infer(
        "digits",
        [triton_input(images, binary=binary_input)],
        model_version=classifier.version,
        outputs=[triton.InferRequestedOutput(n, binary_data=binary_output) for n in OUTPUTS],
        request_id="mine",
        request_compression_algorithm=compressed,
        response_compression_algorithm=compressed,
    )
    told = answer.get_response()
    assert (told["id"], told["model_name"]) == ("mine", "digits")
    assert told["model_version"] == classifier.version
    assert told["parameters"] == {"samples": 100, "level": 0.95, "calibrated": True}
    assert [output["name"] for output in told["outputs"]] == list(OUTPUTS)
    right = expected(classifier, images)
    assert {True, False} == set(right["accept"].tolist())
    for name, tensor in OUTPUTS.items():
        output = answer.as_numpy(name)
        assert output.dtype == DTYPES[tensor.datatype]
        if binary_output:  # to the last bit
            assert np.array_equal(output, right[name].astype(DTYPES[tensor.datatype])), name
        else:
            assert np.allclose(output, right[name], rtol=0, atol=6e-7), name


def test_outputs_parameters_and_encodings_are_those_requested(
    asking: triton.InferenceServerClient, classifier: Classifier, images: Images
) -> None:
    answer = asking.infer(
        "digits",
        [triton_input(images)],
        outputs=[
            triton.InferRequestedOutput("upper", binary_data=True),
            triton.InferRequestedOutput("accept", binary_data=False),
            triton.InferRequestedOutput("lower", binary_data=False),
            triton.InferRequestedOutput("prediction", binary_data=True),
        ],
        parameters={"samples": 40, "level": 0.8},
        priority=1,
        timeout=1000,
    )
    told = answer.get_response()
    assert [output["name"] for output in told["outputs"]] == [
        "upper", "accept", "lower", "prediction",
    ]  # fmt: skip
    assert ["data" in output for output in told["outputs"]] == [False, True, True, False]
    assert told["parameters"] == {"samples": 40, "level": 0.8, "calibrated": False}
    right = expected(classifier, images, samples=40, level=0.8)
    assert np.array_equal(answer.as_numpy("upper"), right["upper"].astype(np.float32))
    assert np.allclose(answer.as_numpy("lower"), right["lower"], rtol=0, atol=6e-7)
    assert np.array_equal(answer.as_numpy("prediction"), right["prediction"])
    assert np.array_equal(answer.as_numpy("accept"), right["accept"])


def test_tritonclient_gets_all_outputs_in_binary_by_default(
    asking: triton.InferenceServerClient, images: Images
) -> None:
    waiting = [asking.async_infer("digits", [triton_input(images)]) for _ in range(3)]
    for answer in (each.get_result() for each in waiting):
        outputs = answer.get_response()["outputs"]
        assert [output["name"] for output in outputs] == list(OUTPUTS)
        assert all("binary_data_size" in output["parameters"] for output in outputs)
        assert "id" not in answer.get_response()


TritonCall = Callable[[triton.InferenceServerClient, Images], object]
REFUSED: dict[str, tuple[str, str, TritonCall]] = {
    "another model": ("404", "'digits'", lambda c, x: c.infer("letters", [triton_input(x)])),
    "another version": (
        "404",
        "'1'",
        lambda c, x: c.infer("digits", [triton_input(x)], model_version="1"),
    ),
    "another model's metadata": ("404", "'letters'", lambda c, _: c.get_model_metadata("letters")),
    "an address of Triton's own": ("404", "nothing", lambda c, _: c.get_model_config("digits")),
    "a method": ("404", "nothing", lambda c, _: c.load_model("digits")),
    "a shape": ("400", "28, 28", lambda c, x: c.infer("digits", [triton_input(x[:, :27])])),
    "too many": ("413", "512", lambda c, x: c.infer("digits", [triton_input(many(x, 513))])),
    "samples": (
        "422",
        "samples",
        lambda c, x: c.infer("digits", [triton_input(x)], parameters={"samples": 101}),
    ),
    "level": (
        "422",
        "level",
        lambda c, x: c.infer("digits", [triton_input(x)], parameters={"level": 0.999}),
    ),
    "a parameter": (
        "400",
        "'sample'",
        lambda c, x: c.infer("digits", [triton_input(x)], parameters={"sample": 40}),
    ),
    "classification": (
        "400",
        "classification",
        lambda c, x: c.infer(
            "digits", [triton_input(x)], outputs=[triton.InferRequestedOutput("std", True, 3)]
        ),
    ),
    "shared memory": (
        "400",
        "shared memory",
        lambda c, x: c.infer("digits", [triton_input(x).set_shared_memory("region", x.size)]),
    ),
}


def many(images: Images, n: int) -> Images:
    return np.resize(images, (n, 28, 28))


@pytest.mark.parametrize("kind", REFUSED)
def test_tritonclient_raises_its_exception_with_the_message(
    asking: triton.InferenceServerClient, images: Images, kind: str
) -> None:
    status, told, call = REFUSED[kind]
    with pytest.raises(InferenceServerException) as caught:
        call(asking, images)
    assert caught.value.status() == status
    assert told in caught.value.message().lower()


# Plain HTTP


@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain"])
def test_json_may_be_nested_or_flat_with_any_content_type(
    client: httpx.Client, classifier: Classifier, images: Images, content_type: str | None
) -> None:
    right = expected(classifier, images)
    flat = asked(images)
    flat["inputs"][0]["data"] = images.ravel().tolist()  # type: ignore[index]
    bodies = []
    for body in (asked(images), flat):
        headers = {"Content-Type": content_type} if content_type else {}
        answer = client.post(INFER, content=json.dumps(body).encode(), headers=headers)
        bodies.append(answer.content)
        outputs = found(answer)
        assert list(outputs) == list(OUTPUTS)
        for name, output in outputs.items():
            assert np.allclose(output, right[name], rtol=0, atol=6e-7), name
        assert answer.headers["Server-Timing"].startswith("queue;dur=")
    assert bodies[0] == bodies[1]


def test_v2_has_an_optional_trailing_slash(client: httpx.Client) -> None:
    answers = [client.get(path) for path in ("/v2", "/v2/")]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["name"] == "maybe-neural-network"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_large_response_is_compressed_on_request(
    client: httpx.Client, images: Images, encoding: str
) -> None:
    body, headers = in_binary(images, parameters={"binary_data_output": True})
    plain = client.post(INFER, content=body, headers={**headers, "Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert plain.headers["Content-Type"] == "application/octet-stream"
    answer = client.post(INFER, content=body, headers={**headers, "Accept-Encoding": encoding})
    assert answer.headers["Content-Encoding"] == encoding
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert int(answer.headers["Content-Length"]) < len(plain.content)
    assert answer.content == plain.content
    length = "Inference-Header-Content-Length"
    assert answer.headers[length] == plain.headers[length]
    small = asked(images[:1], outputs=[{"name": "accept"}])
    answer = client.post(INFER, json=small, headers={"Accept-Encoding": encoding})
    assert "Content-Encoding" not in answer.headers


@pytest.mark.not_through_ray("its load needs more than a replica of one CPU")
def test_the_largest_batch_has_the_answers_of_single_images(
    client: httpx.Client, images: Images
) -> None:
    answer = client.post(INFER, json=asked(many(images, 512)))
    right = found(client.post(INFER, json=asked(images)))
    for name, output in found(answer).items():
        assert len(output) == 512
        for i in range(0, 512, len(images)):
            assert np.array_equal(output[i : i + len(images)], right[name][: 512 - i]), name


@pytest.mark.not_through_ray("its load needs more than a replica of one CPU")
def test_the_same_request_gets_the_same_bytes_under_load(
    client: httpx.Client, seven_png: bytes, images: Images
) -> None:
    def infer(n: int, samples: int) -> bytes:
        body, headers = in_binary(many(images, n), parameters={"samples": samples})
        answer = client.post(INFER, content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.content

    def predict() -> bytes:
        return client.post("/predict", files={"file": seven_png}).content

    kinds: list[Callable[[], bytes]] = [
        lambda: infer(1, 100),
        lambda: infer(37, 100),
        lambda: infer(3, 60),
        predict,
    ]
    alone = [kind() for kind in kinds]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: kinds[i % 4](), range(32)))
    assert together == alone * 8


def test_requests_are_counted_and_timed_in_the_metrics(
    shared_server: Callable[..., Server], images: Images
) -> None:
    with shared_server(**LIMITED).client() as client, counted(client) as samples:
        outputs = found(client.post(INFER, json=asked(images)))
        check_error(client.post(INFER, content=b"{"), 400)
    route = {"route": "/v2/models/{name}/infer", "method": "POST"}
    assert metric_value(samples, "mnn_requests_total", status="200", **route) == 1
    assert metric_value(samples, "mnn_requests_total", status="400", **route) == 1
    assert metric_value(samples, "mnn_rejections_total", reason="malformed") == 1
    assert metric_value(samples, "mnn_queue_wait_seconds_count") == len(images)
    assert metric_value(samples, "mnn_compute_seconds_count") == len(images)
    assert metric_value(samples, "mnn_predictive_entropy_nats_sum") == pytest.approx(
        outputs["predictive_entropy"].sum(), abs=1e-5
    )
    accepted = int(outputs["accept"].sum())
    assert metric_value(samples, "mnn_decisions_total", decision="accept") == accepted
    assert metric_value(samples, "mnn_decisions_total", decision="review") == len(images) - accepted


# Errors


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/digits/", 404),
        ("GET", "/v2/models/digits/versions", 404),
        ("GET", "/v2/models/digits/stats", 404),
        ("GET", "/v2/models/letters", 404),
        ("GET", "/v2/models/%ED%A0%80", 404),
        ("GET", "/v2/models/digits/versions/1", 404),
        ("GET", "/v2/models/digits/versions/1/ready", 404),
        ("POST", "/v2/models/letters/infer", 404),
        ("POST", "/v2/models/digits/versions/1/infer", 404),
        ("POST", "/v2/repository/index", 404),
        ("POST", "/v2", 405),
        ("GET", INFER, 405),
        ("DELETE", "/v2/models/digits", 405),
        ("PUT", "/v2/health/live", 405),
    ],
)
def test_an_unknown_path_or_method_is_an_error_of_the_protocol(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path, headers={"X-Request-ID": "mine"})
    check_error(answer, status)
    assert answer.headers["X-Request-ID"] == "mine"
    if status == 405:
        assert answer.headers["Allow"] in ("GET, HEAD", "POST")


@pytest.mark.parametrize("path", ["/v2x", "/v", "/predict", "/model/v2"])
def test_outside_v2_errors_are_problems(client: httpx.Client, path: str) -> None:
    answer = client.put(path)
    assert answer.headers["Content-Type"] == "application/problem+json"


BODIES: dict[str, tuple[int, str, bytes, dict[str, str]]] = {
    "empty": (400, "JSON", b"", {}),
    "no JSON": (400, "JSON", b"\x89PNG", {"Content-Type": "image/png"}),
    "no object": (400, "object", b"[]", {"Content-Type": "application/json"}),
    "a bare tensor": (400, "tensor", bytes(784), {"Inference-Header-Content-Length": "0"}),
    "an invalid length": (400, "2 of", b"{}", {"Inference-Header-Content-Length": "2 of"}),
    "another encoding": (415, "gzip", b"{}", {"Content-Encoding": "br"}),
    "two encodings": (415, "gzip", b"{}", {"Content-Encoding": "gzip, deflate"}),
    "not what it says": (400, "gzip", b"{}", {"Content-Encoding": "gzip"}),
    "cut off": (400, "ends", gzip.compress(bytes(999))[:-9], {"Content-Encoding": "gzip"}),
    "a bomb": (413, "decompressed", gzip.compress(bytes(10**8)), {"Content-Encoding": "gzip"}),
    "a deflated bomb": (
        413,
        "decompressed",
        zlib.compress(bytes(10**8)),
        {"Content-Encoding": "deflate"},
    ),
    "a bomb of brackets": (
        400,
        "nested too",
        gzip.compress(
            b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[1,28,28],"data":'
            + b"[" * 3_000_000
            + b"]" * 3_000_000
            + b"}]}"
        ),
        {"Content-Encoding": "gzip"},
    ),
    "a bomb of objects": (
        413,
        "besides the numbers",
        gzip.compress(b"[" + b"{}," * 2_000_000 + b"{}]"),
        {"Content-Encoding": "gzip"},
    ),
}


@pytest.mark.parametrize("kind", BODIES)
def test_an_invalid_body_is_rejected_with_its_reason(client: httpx.Client, kind: str) -> None:
    status, told, body, headers = BODIES[kind]
    answer = client.post(INFER, content=body, headers=headers)
    assert told in check_error(answer, status)
    assert ("Accept-Encoding" in answer.headers) == (status == 415)


def test_513_images_are_413_whatever_their_data(client: httpx.Client) -> None:
    body = asked(np.zeros((1, 28, 28), np.uint8))
    body["inputs"][0].update(shape=[513, 28, 28], data="not even an array")  # type: ignore[index]
    assert "512" in check_error(client.post(INFER, json=body), 413)


@pytest.mark.parametrize("parameters", [{"samples": 1}, {"samples": 10}, {"level": 1e999}])
def test_parameters_out_of_range_are_422(
    client: httpx.Client, images: Images, parameters: dict[str, object]
) -> None:
    body = json.dumps(asked(images[:1], parameters=parameters)).replace("Infinity", "1e999")
    told = check_error(client.post(INFER, content=body), 422).lower()
    assert "sample" in told or "level" in told


def test_a_body_over_the_bound_is_413_by_its_length_and_in_chunks(client: httpx.Client) -> None:
    body = bytes(MAX_BODY_BYTES + 1)
    assert f"{MAX_BODY_BYTES:,}" in check_error(client.post(INFER, content=body), 413)
    pieces = (bytes(2**20) for _ in range(9))
    assert f"{MAX_BODY_BYTES:,}" in check_error(client.post(INFER, content=pieces), 413)
    check_error(client.post(INFER, content=body[:-1]), 400)  # within it, but no JSON


def test_the_upload_limit_does_not_apply_to_tensors(
    shared_server: Callable[..., Server], images: Images
) -> None:
    with shared_server(**LIMITED).client() as client:
        body = json.dumps(asked(many(images, 40)), indent=2)
        assert len(body) > 200_000
        assert client.post(INFER, content=body).status_code == 200


def test_a_body_that_stalls_is_408(shared_server: Callable[..., Server]) -> None:
    with connected(shared_server(**LIMITED)) as sock:
        sock.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
        check_error(read_answer(sock), 408)


def test_everything_but_probes_requires_the_key(
    shared_server: Callable[..., Server], images: Images
) -> None:
    server = shared_server(device="cpu", draws=40, api_key=KEY, require_api_key=True)
    with server.client() as client:
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        for path in ("/v2", "/v2/models/digits", "/v2/models/digits/ready", "/v2/none"):
            assert "Bearer" in check_error(client.get(path), 401)
            assert client.get(path, headers=bearer(KEY)).status_code != 401
        answer = client.post(INFER, json=asked(images))
        check_error(answer, 401)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as asking:
        assert asking.is_server_ready()
        with pytest.raises(InferenceServerException, match="key") as caught:
            asking.infer("digits", [triton_input(images)])
        assert caught.value.status() == "401"
        assert asking.infer("digits", [triton_input(images)], headers=bearer(KEY))


def test_errors_are_of_the_protocol_below_a_mount_path() -> None:
    outer = FastAPI()
    outer.mount("/below", create_app(Settings(device="cpu")))

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=outer)  # not started: no model is loaded
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return [await client.get(f"/below{path}") for path in ("/v2/none", "/v2/health/ready")]

    unknown, not_ready = asyncio.run(ask())
    check_error(unknown, 404)
    check_error(not_ready, 503)


def test_without_a_model_everything_that_needs_one_is_503(images: Images) -> None:
    with running(create_app(Settings(device="cpu")), lifespan="off") as client:
        for path in ("/v2/health/ready", "/v2/models/digits", "/v2/models/digits/ready"):
            answer = client.get(path)
            check_error(answer, 503)
            assert int(answer.headers["Retry-After"]) > 0
        check_error(client.post(INFER, json=asked(images)), 503)
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.get("/v2").status_code == 200


@pytest.fixture
def engine() -> Iterator[WaitingEngine]:
    engine = WaitingEngine()
    yield engine
    engine.free.set()


@pytest.fixture
def app() -> FastAPI:
    return create_app(Settings(device="cpu", worker_threads=1, max_queued_images=9))


@pytest.fixture
def waiting(app: FastAPI, engine: WaitingEngine) -> Iterator[httpx.Client]:
    """A service with one worker thread and a short queue, whose engine waits for `engine.free`."""
    with started(app) as client:
        serve_engine(app, engine)
        yield client
        engine.free.set()


BLANKS = np.zeros((10, 28, 28), np.uint8)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_image_takes_a_place_in_the_queue_and_a_full_queue_is_429(
    waiting: httpx.Client, engine: WaitingEngine, app: FastAPI
) -> None:
    with ThreadPoolExecutor(2) as other:
        first = other.submit(waiting.post, INFER, json=asked(BLANKS[:8]))
        until(lambda: n_pending(app) == 8)
        answer = waiting.post(INFER, json=asked(BLANKS[:3]))
        assert "waiting" in check_error(answer, 429)
        second = other.submit(waiting.post, INFER, json=asked(BLANKS[:2]))
        until(lambda: n_pending(app) == 10)
        check_error(waiting.post(INFER, content=b"not even read"), 429)
        assert re.fullmatch(r"[1-9]\d*", answer.headers["Retry-After"])
        engine.free.set()
        assert [first.result().status_code, second.result().status_code] == [200, 200]
    assert waiting.post(INFER, json=asked(BLANKS[:3])).status_code == 200
    too_many = np.zeros((11, 28, 28), np.uint8)
    assert "batches" in check_error(waiting.post(INFER, json=asked(too_many)), 413)


def test_a_draining_service_is_not_ready_but_still_answers(
    waiting: httpx.Client, engine: WaitingEngine, app: FastAPI
) -> None:
    engine.free.set()
    app.state.service.provider.is_draining = True
    for path in ("/v2/health/ready", "/v2/models/digits/ready"):
        assert "stop" in check_error(waiting.get(path), 503)
    assert waiting.get("/v2/health/live").status_code == 200
    assert waiting.post(INFER, json=asked(BLANKS)).status_code == 200


def test_an_internal_error_is_a_500_without_details_logged_by_its_id(
    waiting: httpx.Client, app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    serve_engine(app, FailingEngine())
    foreground = np.ones((1, 28, 28), np.uint8)
    with caplog.at_level(logging.ERROR):
        answer = waiting.post(INFER, json=asked(foreground), headers={"X-Request-ID": "abc-1"})
    assert "secret" not in check_error(answer, 500)
    assert any("abc-1" in record.getMessage() for record in caplog.records)
    assert waiting.post(INFER, json=asked(BLANKS)).status_code == 200


def test_a_request_over_its_deadline_is_504(engine: WaitingEngine) -> None:
    app = create_app(Settings(device="cpu", worker_threads=1, request_timeout_s=0.2))
    with started(app) as client:
        serve_engine(app, engine)
        check_error(client.post(INFER, json=asked(BLANKS)), 504)
        engine.free.set()
        until(lambda: n_pending(app) == 0)


def test_the_deadline_covers_decoding_and_waiting_for_it(
    engine: WaitingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = routes._decode

    def slow(request: Request, body: bytes) -> TensorRequest:
        time.sleep(0.6)
        return read(request, body)

    monkeypatch.setattr(routes, "_decode", slow)
    app = create_app(Settings(device="cpu", worker_threads=1, request_timeout_s=1))
    with started(app) as client:
        serve_engine(app, engine)
        body = json.dumps(asked(BLANKS), indent=4)  # large enough to be read elsewhere
        began = time.monotonic()
        check_error(client.post(INFER, content=body), 504)
        assert 0.9 < time.monotonic() - began < 1.4
        engine.free.set()
        until(lambda: n_pending(app) == 0)
        with ThreadPoolExecutor(2) as clients:  # one of them waits for its turn to be read
            both = list(clients.map(lambda _: client.post(INFER, content=body), range(2)))
        assert sorted(answer.status_code for answer in both) == [200, 504]


def test_too_many_bytes_in_flight_are_429_until_there_is_room(
    engine: WaitingEngine,
) -> None:
    app = create_app(
        Settings(device="cpu", worker_threads=1, max_body_bytes=20_000, max_inflight_bytes=20_000)
    )
    with started(app) as client, ThreadPoolExecutor(1) as other:
        serve_engine(app, engine)
        first = other.submit(client.post, INFER, json=asked(BLANKS))
        until(lambda: n_pending(app) == 10)
        answer = client.post(INFER, json=asked(BLANKS))
        assert "bytes" in check_error(answer, 429)
        assert int(answer.headers["Retry-After"]) > 0
        engine.free.set()
        assert first.result().status_code == 200
        assert client.post(INFER, json=asked(BLANKS)).status_code == 200


def test_large_bodies_are_decoded_and_encoded_off_the_event_loop(
    waiting: httpx.Client, engine: WaitingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.free.set()
    loops: list[bool] = []

    def noting(wrapped: Callable[..., object]) -> Callable[..., object]:
        def noted(*arguments: object) -> object:
            try:
                asyncio.get_running_loop()
                loops.append(True)
            except RuntimeError:
                loops.append(False)
            return wrapped(*arguments)

        return noted

    for name in ("_decode", "_encode"):
        monkeypatch.setattr(routes, name, noting(getattr(routes, name)))
    body = json.dumps(asked(BLANKS), indent=4)
    assert waiting.post(INFER, content=body).status_code == 200
    assert loops == [False, False]


def test_a_client_that_disconnects_frees_its_places(
    waiting: httpx.Client, engine: WaitingEngine, app: FastAPI
) -> None:
    with (
        httpx.Client(base_url=waiting.base_url, timeout=0.3) as impatient,
        pytest.raises(httpx.TimeoutException),
    ):
        impatient.post(INFER, json=asked(BLANKS))
    until(lambda: n_pending(app) == 0)
    engine.free.set()
    assert waiting.post(INFER, json=asked(BLANKS[:1])).status_code == 200
    assert engine.n_images <= 9  # the batch in progress, and the last image


# Documentation


DOCUMENT = (ROOT / "docs" / "api.md").read_text().split("## Open Inference Protocol")[1]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


def test_the_documented_example_prints_what_is_documented(server: Server) -> None:
    (code,) = blocks("python")
    (promised,) = re.findall(r"^prints `([^`]+)`", DOCUMENT, re.MULTILINE)
    code = code.replace("127.0.0.1:8000", server.url.removeprefix("http://"))
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout.strip() == promised


def test_the_documented_curl_command_is_answered(server: Server) -> None:
    (line,) = blocks("sh")
    command = shlex.split(line.replace("http://127.0.0.1:8000", server.url))
    path = ROOT / command[command.index("--data-binary") + 1].removeprefix("@")
    seven = open_bytes((ROOT / "docs" / "examples" / "seven.png").read_bytes()).pixels
    assert json.loads(path.read_text())["inputs"][0]["data"] == [seven.tolist()]
    if shutil.which("curl"):
        result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
        answer = json.loads(result.stdout)
    else:
        answer = httpx.post(command[-1], content=path.read_bytes(), timeout=30).json()
    assert [(o["name"], o["data"]) for o in answer["outputs"]][:2] == [
        ("prediction", [7]),
        ("accept", [True]),
    ]

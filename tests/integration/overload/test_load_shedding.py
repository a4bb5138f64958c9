"""Requests beyond the capacity are rejected before their bodies are parsed."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from tests.support.images import encoded
from tests.support.service.engines import FailingEngine, WaitingEngine, n_pending, serve_engine
from tests.support.service.in_process import graceful
from tests.support.service.metrics import counted, metric_value
from tests.support.service.problems import check_problem
from tests.support.service.raw_http import (
    begin_request,
    closed,
    connected,
    read_answer,
    receive_all,
)
from tests.support.service.server import Server

MIB = 2**20
BLANK = encoded(Image.new("L", (28, 28), 255))
INFER = "/v2/models/digits/infer"


@contextmanager
def full_service(**settings: float) -> Iterator[tuple[httpx.Client, FastAPI]]:
    """Run a service whose only worker is busy and whose only place in the queue is taken."""
    engine = WaitingEngine()
    with graceful(worker_threads=1, max_queued_images=1, **settings) as (client, app):
        serve_engine(app, engine)
        with ThreadPoolExecutor(2) as pool:
            asked = [
                pool.submit(client.post, "/predict", files={"file": BLANK}, timeout=300)
                for _ in range(2)
            ]
            until(lambda: n_pending(app) == 2)
            try:
                yield client, app
            finally:
                engine.free.set()
            assert [answer.result().status_code for answer in asked] == [200, 200]


@pytest.fixture(scope="module")
def full() -> Iterator[httpx.Client]:
    """A client of a service without capacity, whose bodies may take two seconds."""
    with full_service(body_timeout_s=2, request_timeout_s=300) as (client, _):
        yield client


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def post(*headers: str, body: bytes = b"") -> bytes:
    """Return a whole `POST /predict`."""
    lines = ["POST /predict HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


# The queue is full


@pytest.mark.parametrize("path", ["/predict", "/predict?samples=30", "/predict/batch", INFER])
def test_without_capacity_a_body_is_rejected_before_it_is_parsed(
    full: httpx.Client, path: str
) -> None:
    not_parseable = {"Content-Type": "multipart/form-data"}
    with counted(full) as growth:
        answer = full.post(path, content=b"no form at all", headers=not_parseable)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert "connection" not in answer.headers
    if path == INFER:
        assert set(answer.json()) == {"error"}
    else:
        assert "try again" in check_problem(answer, 429)
    labels = {"method": "POST", "route": httpx.URL(path).path.replace("digits", "{name}")}
    assert metric_value(growth, "mnn_requests_total", status="429", **labels) == 1
    assert metric_value(growth, "mnn_rejections_total", reason="queue_full") == 1


def test_with_capacity_the_same_body_is_422(small_server: Server) -> None:
    not_parseable = {"Content-Type": "multipart/form-data"}
    with small_server.client() as client:
        answer = client.post("/predict", content=b"no form at all", headers=not_parseable)
    check_problem(answer, 422)


def test_a_body_that_is_too_large_is_413_in_spite_of_a_full_queue(full: httpx.Client) -> None:
    check_problem(full.post("/predict", files={"file": bytes(12 * MIB)}), 413)


def test_a_client_that_expects_100_continue_is_rejected_before_it_sends(
    full: httpx.Client,
) -> None:
    answer = full.post("/predict", files={"file": b"x"}, headers={"Expect": "100-continue"})
    check_problem(answer, 429)
    assert answer.headers["connection"] == "close"


def test_other_routes_are_answered_in_spite_of_a_full_queue(full: httpx.Client) -> None:
    for path in ("/health/live", "/health/ready", "/model", "/metrics", "/"):
        assert full.get(path).status_code == 200
    check_problem(full.get("/predict"), 405)
    check_problem(full.post("/predict/nothing", content=b""), 404)


def test_the_connection_goes_on_after_a_rejection(full: httpx.Client) -> None:
    body = b"x" * 40_000
    request = post(body=body)
    with connected(full) as sock:
        for _ in range(3):
            sock.sendall(request[:10_000])
            time.sleep(0.05)  # the body comes in parts
            sock.sendall(request[10_000:])
            assert read_answer(sock).status_code == 429
        sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(sock).status_code == 200


def test_a_rejected_request_whose_body_does_not_come_is_408(full: httpx.Client) -> None:
    with connected(full) as sock:
        sock.sendall(post(body=1000 * b"x")[:-900])
        answer = read_answer(sock)
        check_problem(answer, 408)
        assert answer.headers["connection"] == "close"
        assert closed(sock)


def test_pipelined_requests_are_rejected_in_their_order(full: httpx.Client) -> None:
    ids = [f"n-{i}" for i in range(20)]
    with connected(full) as sock:
        sock.sendall(b"".join(post(f"X-Request-ID: {name}", body=10 * b"x") for name in ids))
        sock.sendall(post("Connection: close"))
        answered = receive_all(sock).lower()
    assert answered.count(b"http/1.1 429") == 21
    places = [answered.index(f"x-request-id: {name}\r\n".encode()) for name in ids]
    assert places == sorted(places)


def test_nothing_is_answered_after_connection_close(full: httpx.Client) -> None:
    with counted(full) as growth, connected(full) as sock:
        sock.sendall(post("Connection: close", body=10 * b"x") * 5)
        assert receive_all(sock).count(b"HTTP/1.1 429") == 1
    labels = {"method": "POST", "route": "/predict", "status": "429"}
    assert metric_value(growth, "mnn_requests_total", **labels) == 1


# Reservations


@pytest.mark.not_through_ray("Ray's proxy reads bodies itself")
def test_requests_without_their_bodies_take_no_place(
    shared_server: Callable[..., Server], seven_png: bytes
) -> None:
    server = shared_server(device="cpu", worker_threads=1, max_queued_images=1)
    with ExitStack() as stack, server.client() as client:
        for _ in range(12):
            stack.enter_context(begin_request(server, seven_png)[0])
        time.sleep(0.2)
        for _ in range(3):
            assert client.post("/predict", files={"file": seven_png}).status_code == 200


def leave(client: httpx.Client, request: bytes, after_s: float) -> None:
    """Send a request, or a part of it, and leave."""
    with connected(client) as sock:
        sock.sendall(request)
        time.sleep(after_s)


def whole_form(client: httpx.Client, path: str = "/predict") -> bytes:
    """Return the bytes of a `POST` with a blank image."""
    request = client.build_request("POST", path, files={"file": BLANK})
    headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    return f"POST {path} HTTP/1.1\r\n{headers}\r\n".encode() + request.read()


OUTCOMES: dict[str, Callable[[httpx.Client, bytes], object]] = {
    "200": lambda client, _: client.post("/predict", files={"file": BLANK}),
    "405": lambda client, _: client.get("/predict"),
    "413": lambda client, _: client.post("/predict", files={"file": bytes(12 * MIB)}),
    "413 of a batch": lambda client, _: client.post(
        "/predict/batch", files=[("files", BLANK)] * 30
    ),
    "415": lambda client, _: client.post("/predict", files={"file": b"text"}),
    "422": lambda client, _: client.post("/predict", files={"file": b""}),
    "422 of a form": lambda client, _: client.post("/predict", content=b"no form"),
    "400 of the protocol": lambda client, _: client.post(INFER, content=b"{"),
    "500": lambda client, seven: client.post("/predict", files={"file": seven}),
    "500 in a batch": lambda client, seven: client.post(
        "/predict/batch", files=[("files", seven), ("files", BLANK)]
    ),
    "client leaves amid its body": lambda client, _: leave(client, whole_form(client)[:-20], 0.02),
    "client leaves after its body": lambda client, _: leave(client, whole_form(client), 0),
}


@pytest.fixture(scope="module")
def failing() -> Iterator[tuple[httpx.Client, FastAPI]]:
    """A service with three places, whose engine fails for images with foreground."""
    with graceful(worker_threads=1, max_queued_images=3) as (client, app):
        serve_engine(app, FailingEngine())
        yield client, app


@pytest.mark.parametrize("kind", OUTCOMES)
def test_whatever_becomes_of_a_request_its_place_is_free_again(
    failing: tuple[httpx.Client, FastAPI], seven_png: bytes, kind: str
) -> None:
    client, app = failing
    for _ in range(10):  # more than there are places
        OUTCOMES[kind](client, seven_png)
    until(lambda: n_pending(app) == 0)
    time.sleep(0.05)
    assert n_pending(app) == 0  # given up once, not twice
    with ThreadPoolExecutor(4) as pool:  # as many as there are places are admitted
        engine = WaitingEngine()
        serve_engine(app, engine)
        asked = [pool.submit(client.post, "/predict", files={"file": BLANK}) for _ in range(4)]
        until(lambda: n_pending(app) == 4)
        check_problem(client.post("/predict", files={"file": BLANK}), 429)
        engine.free.set()
        assert [answer.result().status_code for answer in asked] == [200] * 4
    serve_engine(app, FailingEngine())


def test_places_are_free_after_the_deadline() -> None:
    engine = WaitingEngine()
    with graceful(worker_threads=1, max_queued_images=3, request_timeout_s=0.2) as (client, app):
        serve_engine(app, engine)
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(client.post, "/predict", files={"file": BLANK}) for _ in range(4)]
            for answer in asked:
                check_problem(answer.result(), 504)
        assert n_pending(app) == 0
        engine.free.set()
        until(lambda: client.post("/predict", files={"file": BLANK}).status_code == 200)
        assert n_pending(app) == 0


def test_places_are_free_after_clients_left_the_queue() -> None:
    engine = WaitingEngine()
    with graceful(worker_threads=1, max_queued_images=3) as (client, app):
        serve_engine(app, engine)
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(connected(client)).sendall(whole_form(client))
            until(lambda: n_pending(app) == 3)
        until(lambda: n_pending(app) == 0)
        engine.free.set()
        assert client.post("/predict", files={"file": BLANK}).status_code == 200


# Bytes in flight


@pytest.mark.not_through_ray("Ray's proxy reads bodies itself")
def test_bytes_of_bodies_are_bounded_together_and_counted_apart(
    shared_server: Callable[..., Server],
) -> None:
    server = shared_server(
        device="cpu",
        draws=40,
        max_upload_bytes=MIB,
        max_body_bytes=MIB,
        max_inflight_bytes=MIB,
    )
    large = b"x" * 700_000
    with server.client() as client:
        check_problem(client.post("/predict", files={"file": large}), 415)
        connection, rest = begin_request(server, large)
        with connection, counted(client) as growth:
            connection.sendall(rest[:-2000])
            time.sleep(0.3)
            rejected = client.post("/predict", files={"file": large})
            assert "uploaded at this moment" in check_problem(rejected, 429)
            assert rejected.headers["retry-after"] == "1"
            assert client.post("/predict", files={"file": b"small"}).status_code == 415
        assert metric_value(growth, "mnn_rejections_total", reason="inflight_bytes") == 1
        assert metric_value(growth, "mnn_rejections_total", reason="queue_full") == 0
        for _ in range(4):  # the abandoned upload and the rejected ones hold nothing
            time.sleep(0.1)
            check_problem(client.post("/predict", files={"file": large}), 415)

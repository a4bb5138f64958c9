"""What is held at once is bounded; what cannot be taken is refused before it costs anything."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image
from starlette.routing import Route

from model import Classifier, open_bytes
from model.errors import ImageTooLargeError
from service import Settings, create_app
from service.errors import ProblemError
from service.inference.decode_budget import ByteBudget, PixelBudget
from service.middleware.load_shedding import Entry, Gate, Refused
from service.model_lifecycle.provider import Served, load_served
from service.server.connection import MOST_BEHIND
from service.server.graceful_server import Server as OwnServer
from tests.integration.api.test_bad_input import check_problem, read_answer
from tests.integration.lifecycle.test_drain import begin_request, receive_all
from tests.integration.lifecycle.test_faults import FailingEngine, running, serving
from tests.support.checkpoints import tiny_checkpoint
from tests.support.images import encoded
from tests.support.server import Server, free_port

MIB = 2**20


class WaitingEngine(FailingEngine):
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def logits(self, images: NDArray[np.uint8], n_draws: int) -> NDArray[np.float32]:
        self.free.wait(20)
        return np.zeros((n_draws, len(images), 10), np.float32)


@contextmanager
def taken(client: httpx.Client, app: FastAPI) -> Iterator[None]:
    """Have the only lane and the only waiting place of a service taken."""
    picture = encoded(Image.new("L", (28, 28), 255))
    engine = WaitingEngine()
    while client.get("/health/ready").status_code != 200:
        time.sleep(0.05)
    app.state.holder.served = Served(Classifier(tiny_checkpoint(), engine), "file")
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(client.post, "/predict", files={"file": picture}) for _ in range(2)]
        while app.state.lanes.n_pending < 2:
            time.sleep(0.01)
        try:
            yield
        finally:
            engine.free.set()
        assert [answer.result().status_code for answer in asked] == [200, 200]


@contextmanager
def full_service() -> Iterator[tuple[httpx.Client, FastAPI]]:
    """A service whose only lane and only waiting place are taken."""
    app = create_app(Settings(device="cpu", lanes=1, queue=1))
    with running(app) as client, taken(client, app):
        yield client, app


def test_where_the_queue_is_full_a_body_is_refused_before_it_is_looked_at() -> None:
    with full_service() as (client, _):
        no_form = {"content": b"no form at all", "headers": {"Content-Type": "multipart/form-data"}}
        for path in ("/predict", "/predict/batch"):
            answer = client.post(path, **no_form)  # type: ignore[arg-type]
            check_problem(answer, 429)
            assert int(answer.headers["retry-after"]) >= 1
        check_problem(client.post("/predict", files={"file": b"x" * 5 * MIB}), 429)
    with running(create_app(Settings(device="cpu"))) as client:
        while client.get("/health/ready").status_code != 200:
            time.sleep(0.05)
        check_problem(client.post("/predict", **no_form), 422)  # type: ignore[arg-type]


@contextmanager
def full_server(**told: float) -> Iterator[tuple[httpx.Client, FastAPI]]:
    """The same behind the connections of `python -m service`, which refuse by the head."""
    common = {"device": "cpu", "lanes": 1, "queue": 1, "drain_wait_s": 0}
    settings = Settings.model_validate({**common, "port": free_port(), **told})
    app = create_app(settings)
    server = OwnServer(app, settings)
    with serving(server, settings.port) as client, taken(client, app):
        yield client, app


REFUSED = [
    ("/predict", {"files": {"file": b"x" * 1000}}),
    ("/predict?samples=50", {"content": b"no form at all"}),
    ("/predict/batch", {"files": {"files": b"x"}, "headers": {"X-Request-ID": "mine-7"}}),
    ("/v2/models/digits/infer", {"content": b"{}"}),
    ("/predict", {"content": b"", "headers": {"X-Request-ID": "not sane"}}),
    ("/predict", {"files": {"file": b"x"}, "headers": {"Connection": "close"}}),
]


def test_what_is_refused_by_its_head_is_answered_as_it_would_be_otherwise() -> None:
    with full_service() as (plain, _):
        ordinary = [plain.post(path, **given) for path, given in REFUSED]  # type: ignore[arg-type]
    with full_server() as (client, _):
        express = [client.post(path, **given) for path, given in REFUSED]  # type: ignore[arg-type]
        counted = client.get("/metrics").text
    for one, other in zip(ordinary, express, strict=True):
        assert one.status_code == other.status_code == 429
        # uvicorn alone names itself; `service.server.graceful_server` has it not do so.
        assert set(one.headers) - {"date", "server"} == set(other.headers) - {"date"}
        bodies = [answer.json() for answer in (one, other)]
        for body in bodies:
            body.pop("request_id", None)
        assert bodies[0] == bodies[1]
        assert other.headers["server-timing"].startswith("queue;dur=0.00, compute;dur=0.00, total")
    assert express[2].headers["x-request-id"] == "mine-7"
    assert express[2].json()["request_id"] == "mine-7"
    assert express[4].headers["x-request-id"] == express[4].json()["request_id"] != "not sane"
    assert express[5].headers["connection"] == "close"
    labels = 'method="POST",route="/predict",status="429"'
    assert f"mnn_requests_total{{{labels}}} 4.0" in counted
    assert 'mnn_rejections_total{reason="queue_full"} 6.0' in counted


def test_after_a_refusal_by_the_head_the_connection_goes_on() -> None:
    body = b"x" * 40_000
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with (
        full_server() as (client, _),
        socket.create_connection(("127.0.0.1", client.base_url.port or 0), 10) as sock,
    ):
        for _ in range(3):
            sock.sendall(head + body[:10_000])
            time.sleep(0.05)  # the body comes in parts
            sock.sendall(body[10_000:])
            assert read_answer(sock).status_code == 429
        sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(sock).status_code == 200


def test_what_is_no_simple_request_goes_the_ordinary_way() -> None:
    """It leaves a line in the log; what is refused by the head does not."""
    ordinary: list[dict[str, object]] = [
        {"content": iter([b"chunked"])},
        {"files": {"file": b"x"}, "headers": {"Origin": "https://other.example"}},
        {"files": {"file": b"x"}, "headers": {"Expect": "100-continue"}},
        {"files": {"file": bytes(MIB)}},
    ]
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("service")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with full_server() as (client, _):
            for given in ordinary:
                check_problem(client.post("/predict", **given), 429)  # type: ignore[arg-type]
            time.sleep(0.2)  # a line is written when the answer has been sent
            told = [line for line in lines if line.startswith("POST /predict: 429")]
            assert len(told) == len(ordinary)
            for _ in range(5):
                check_problem(client.post("/predict", files={"file": b"x"}), 429)
            time.sleep(1.3)
            told = [line for line in lines if line.startswith("POST /predict: 429")]
            assert len(told) == len(ordinary)
            assert "turned away 5 requests within a second" in lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_many_heads_at_once_are_let_in_for_as_many_places_as_there_are() -> None:
    free = 3

    def refusal(n_entering: int) -> ProblemError | None:
        return ProblemError(429, "full") if n_entering >= free else None

    gate = Gate([Route("/predict", lambda _: None, methods=["POST"])], refusal)  # type: ignore[arg-type,return-value]

    def come() -> Entry | Refused | None:
        found = gate.ask("POST", "/predict")
        if isinstance(found, Entry):
            found.arrive()
            found.arrive()  # it counts once
        return found

    on_their_way = [gate.ask("POST", "/predict") for _ in range(5)]  # keep nobody out
    entries = [entry for entry in [come() for _ in range(5)] if isinstance(entry, Entry)]
    assert len(entries) == 3
    assert [type(entry) for entry in on_their_way] == [Entry] * 5
    entries[0].end()
    entries[0].end()  # once is enough
    entries[0].arrive()  # it has gone
    assert isinstance(come(), Entry)  # gone at once, and its place with it
    later = come()
    assert isinstance(later, Entry)
    assert isinstance(come(), Refused)
    assert gate.ask("GET", "/predict") is None
    assert gate.ask("POST", "/elsewhere") is None


def test_heads_whose_bodies_do_not_come_keep_nobody_out(
    make_server: Callable[..., Server], seven_png: bytes
) -> None:
    server = make_server(device="cpu", draws=40, lanes=1, queue=2)
    with ExitStack() as stack, server.client() as client:
        for _ in range(12):
            stack.enter_context(begin_request(server, seven_png)[0])
        time.sleep(0.2)
        for _ in range(3):
            assert client.post("/predict", files={"file": seven_png}).status_code == 200


@contextmanager
def on_the_wire(client: httpx.Client) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", client.base_url.port or 0), 20) as sock:
        yield sock


def refusable(*fields: str, body: bytes = b"") -> bytes:
    length = max(len(body), 10) if fields else len(body)
    lines = ["POST /predict HTTP/1.1", "Host: x", f"Content-Length: {length}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def test_a_refused_request_whose_body_does_not_come_is_told_so() -> None:
    with full_server(body_timeout_s=1) as (client, _), on_the_wire(client) as sock:
        sock.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        answer = read_answer(sock)
        check_problem(answer, 429)
        assert answer.headers["connection"] == "close"
        assert sock.recv(1) == b""
        assert 'status="429"} 1.0' in client.get("/metrics").text


def test_many_requests_at_once_are_refused_in_their_order() -> None:
    with full_server() as (client, _), on_the_wire(client) as sock:
        names = [f"n-{i}" for i in range(20)]
        sock.sendall(b"".join(refusable(f"X-Request-ID: {name}", body=b"x" * 10) for name in names))
        answered = sock.makefile("rb")
        for name in names:
            head, length = [], 0
            while line := answered.readline().strip().lower():
                head.append(line)
                if line.startswith(b"content-length: "):
                    length = int(line.split()[1])
            assert head[0].startswith(b"http/1.1 429")
            assert f"x-request-id: {name}".encode() in head
            answered.read(length)


def test_nothing_is_answered_after_the_last_request_of_a_connection() -> None:
    with full_server() as (client, _), on_the_wire(client) as sock:
        sock.sendall(refusable("Connection: close", body=b"x" * 10) * 5)
        answered = receive_all(sock)
        assert answered.count(b"HTTP/1.1 429") == 1
        assert 'status="429"} 1.0' in client.get("/metrics").text


def test_who_asks_too_much_at_once_is_read_no_more() -> None:
    """Else what one client asks, and is answered, would fill the memory."""
    with full_server() as (client, _), on_the_wire(client) as sock:
        sock.sendall(refusable() * 2000)
        answered = receive_all(sock)
        assert answered.count(b"HTTP/1.1 429") == MOST_BEHIND + 2  # refused by its head; asked
        assert answered.count(b"connection: close") == 1
        assert client.get("/health/live").status_code == 200
        assert f'status="429"}} {MOST_BEHIND + 2}.0' in client.get("/metrics").text


def test_a_request_that_begins_behind_a_refused_one_has_its_own_time() -> None:
    with full_server() as (client, _), on_the_wire(client) as sock:
        sock.sendall(refusable() + refusable("Origin: https://other.example"))
        check_problem(read_answer(sock), 429)
        time.sleep(5.5)  # longer than a connection without a request is kept
        sock.sendall(b"x" * 10)
        check_problem(read_answer(sock), 429)


def test_nobody_is_let_in_for_ever() -> None:
    """Whatever became of requests, as many places are free afterwards as before."""
    app = create_app(Settings(device="cpu", lanes=1, queue=3))
    picture = encoded(Image.new("L", (28, 28), 255))
    with running(app) as client:
        while client.get("/health/ready").status_code != 200:
            time.sleep(0.05)
        for _ in range(20):
            assert client.post("/predict", files={"file": picture}).status_code == 200
            check_problem(client.post("/predict", files={"file": b""}), 422)
            check_problem(client.post("/predict", content=b"no form"), 422)
            check_problem(client.get("/predict"), 405)
            assert client.post("/v2/models/digits/infer", content=b"{").status_code == 400
        time.sleep(0.2)  # the last answer has been sent, and what is around it ends
        assert app.state.gate._n_entering == 0
        assert app.state.lanes.n_pending == 0


def test_a_refusal_is_counted_by_its_route_and_its_connection_goes_on() -> None:
    with full_service() as (client, _):
        answer = client.post("/predict/batch", files={"files": bytes(2 * MIB)})
        check_problem(answer, 429)
        assert "connection" not in answer.headers
        labels = 'method="POST",route="/predict/batch",status="429"'
        assert f"mnn_requests_total{{{labels}}} 1.0" in client.get("/metrics").text
        check_problem(client.get("/predict"), 405)
        check_problem(client.post("/predict/nothing", content=b""), 404)


def test_a_body_that_is_too_large_is_413_though_the_queue_is_full() -> None:
    with full_service() as (client, _):
        check_problem(client.post("/predict", files={"file": bytes(12 * MIB)}), 413)


def test_a_client_that_asks_first_is_refused_before_it_sends() -> None:
    with full_service() as (client, _):
        expecting = {"Expect": "100-continue"}
        answer = client.post("/predict", files={"file": b"x"}, headers=expecting)
        check_problem(answer, 429)
        assert answer.headers["connection"] == "close"


def test_probes_and_other_routes_are_answered_though_the_queue_is_full() -> None:
    with full_service() as (client, _):
        for path in ("/health/live", "/health/ready", "/model", "/metrics", "/"):
            assert client.get(path).status_code == 200


def test_bytes_of_bodies_are_bounded_together_and_given_back(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(
        device="cpu", max_upload_bytes=MIB, max_body_bytes=MIB, max_held_bytes=MIB, body_timeout_s=5
    )
    large = b"x" * 700_000
    with server.client() as client:
        check_problem(client.post("/predict", files={"file": large}), 415)
        connection, rest = begin_request(server, large)
        with connection:
            connection.sendall(rest[:-2000])
            time.sleep(0.3)
            refused = client.post("/predict", files={"file": large})
            assert "uploaded at this moment" in check_problem(refused, 429)
            assert refused.headers["retry-after"] == "1"
            assert client.post("/predict", files={"file": b"small"}).status_code == 415
        for _ in range(4):  # the upload that was left, and those that were refused, hold nothing
            time.sleep(0.1)
            check_problem(client.post("/predict", files={"file": large}), 415)


def test_a_bound_on_held_bytes_below_that_of_one_body_stops_the_start() -> None:
    with pytest.raises(ValueError, match="MNN_MAX_HELD_BYTES"):
        Settings(max_held_bytes=MIB, max_body_bytes=2 * MIB)


def test_the_byte_budget_counts_what_is_taken_and_given_back() -> None:
    budget = ByteBudget(10)
    assert budget.take(10)
    assert not budget.take(1)
    budget.give_back(4)
    assert not budget.take(5)
    assert budget.take(4)


class Watched:
    """Notes the most pixels that were under way at once."""

    def __init__(self) -> None:
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def work(self, budget: PixelBudget, n_pixels: int) -> None:
        with budget(n_pixels):
            with self.lock:
                self.now += n_pixels
                self.most = max(self.most, self.now)
            time.sleep(0.02)
            with self.lock:
                self.now -= n_pixels


@pytest.mark.parametrize(("limit", "most"), [(10, 9), (7, 6), (1000, 24)])
def test_threads_wait_their_turn_to_decode(limit: int, most: int) -> None:
    budget, watched = PixelBudget(limit), Watched()
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(watched.work, budget, 3) for _ in range(24)]:
            done.result()
    assert watched.most <= most


def test_a_picture_larger_than_the_budget_is_decoded_alone() -> None:
    budget, watched = PixelBudget(10), Watched()
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(watched.work, budget, 100) for _ in range(4)]:
            done.result(timeout=20)
    assert watched.most == 100


def test_a_failed_decoding_gives_its_pixels_back() -> None:
    budget = PixelBudget(10)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), budget(10):
            raise ZeroDivisionError


def test_the_door_asks_for_what_it_decodes_and_for_nothing_that_it_refuses() -> None:
    asked: list[int] = []
    budget = PixelBudget(10**9)

    def decoding(n_pixels: int) -> object:
        asked.append(n_pixels)
        return budget(n_pixels)

    open_bytes(encoded(Image.new("L", (300, 200))), decoding=decoding)  # type: ignore[arg-type]
    # A JPEG is decoded straight to a part of its size.
    open_bytes(encoded(Image.new("L", (4096, 4096)), "JPEG"), decoding=decoding)  # type: ignore[arg-type]
    assert asked == [300 * 200, 1024 * 1024]
    with pytest.raises(ImageTooLargeError):
        open_bytes(encoded(Image.new("L", (300, 200))), max_pixels=9, decoding=decoding)  # type: ignore[arg-type]
    assert len(asked) == 2


def test_the_service_decodes_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()

    def open_watched(data: bytes, **bounds: object) -> object:
        budget = bounds["decoding"]
        assert isinstance(budget, PixelBudget)
        watched.work(budget, 900_000)
        return open_bytes(data)

    monkeypatch.setattr("service.inference.jobs.open_bytes", open_watched)
    app = create_app(Settings(device="cpu", lanes=4, max_decoding_pixels=2_000_000))
    picture = encoded(Image.new("L", (28, 28), 255))
    with running(app) as client, ThreadPoolExecutor(8) as pool:
        while client.get("/health/ready").status_code != 200:
            time.sleep(0.05)
        asked = [pool.submit(client.post, "/predict", files={"file": picture}) for _ in range(24)]
        assert {answer.result().status_code for answer in asked} == {200}
    assert watched.most == 1_800_000


@pytest.mark.parametrize(("lanes", "threads"), [(1, 1), (0, None)])
def test_lanes_bound_the_cores_that_a_lone_picture_uses(
    lanes: int, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    def load(_: object, **options: object) -> Classifier:
        given.update(options)
        return Classifier(tiny_checkpoint(), FailingEngine())

    monkeypatch.setattr("service.model_lifecycle.provider.load", load)
    load_served(Settings(lanes=lanes))
    assert given["threads"] == threads

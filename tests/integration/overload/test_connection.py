"""Connections: bounded headers, and deadlines for slow clients."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.observability.metrics import Metrics
from service.server.connection import (
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_PIPELINED,
    make_connection_class,
)
from tests.support.process import rss_kb
from tests.support.service.in_process import serving
from tests.support.service.metrics import counted, metric_value
from tests.support.service.problems import check_problem
from tests.support.service.raw_http import closed, connected, head, part, read_answer, receive_all
from tests.support.service.server import Server, free_port

pytestmark = pytest.mark.not_through_ray("Ray's proxy reads headers itself")

TIMEOUT_S = 0.5  # of `strict_server`
GET = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n"
HEADER = b"X-A: b\r\n"


def check_plain(answer: httpx.Response, status: int) -> str:
    """Check an answer from below the application; returns what it says."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["connection"] == "close"
    return answer.text


@contextmanager
def rejected_once(server: Server, status: int, reason: str) -> Iterator[None]:
    """Check that the metrics count one rejection before the application."""
    with server.client() as client, counted(client) as growth:
        yield
    labels = {"method": "other", "route": "none", "status": str(status)}
    assert metric_value(growth, "mnn_requests_total", **labels) == 1
    assert metric_value(growth, "mnn_rejections_total", reason=reason) == 1


def trickle_until_answered(sock: socket.socket, data: bytes = b"x") -> float:
    """Send a piece twenty times a second until an answer comes; returns the seconds."""
    began = time.monotonic()
    sock.settimeout(0.05)
    while time.monotonic() - began < 10:
        sock.sendall(data)
        try:
            sock.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            continue
        break
    sock.settimeout(10)
    return time.monotonic() - began


def exchanged(server: Server, *pieces: bytes) -> httpx.Response:
    """Send pieces as long as the service takes them; returns its answer, after which it closes."""
    with connected(server) as sock:
        with suppress(OSError):  # closed meanwhile; the answer can be read still
            for piece in pieces:
                sock.sendall(piece)
        answer = read_answer(sock)
        assert closed(sock)
        return answer


# Late


def test_headers_that_trickle_are_408(strict_server: Server) -> None:
    with rejected_once(strict_server, 408, "headers_timeout"), connected(strict_server) as sock:
        sock.sendall(GET + b"X-Slow: ")
        assert 0.7 * TIMEOUT_S < trickle_until_answered(sock) < 4
        assert "headers" in check_plain(read_answer(sock), 408)
        assert closed(sock)


def test_the_headers_of_a_second_request_are_bounded_like_the_first(strict_server: Server) -> None:
    with connected(strict_server) as sock:
        sock.sendall(GET + b"\r\n")
        assert read_answer(sock).status_code == 200
        sock.sendall(GET)
        check_plain(read_answer(sock), 408)
        assert closed(sock)


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\r\n\r\n"])
def test_a_connection_without_a_request_is_closed(strict_server: Server, sent: bytes) -> None:
    with connected(strict_server) as sock:
        sock.sendall(sent)
        assert closed(sock, 4)


@pytest.mark.parametrize("sent", [b"\r\n", b"\r\n\r\n"])
def test_blank_lines_do_not_keep_a_connection_open(strict_server: Server, sent: bytes) -> None:
    with connected(strict_server) as sock:
        sock.sendall(GET + b"\r\n")
        assert read_answer(sock).status_code == 200
        sock.sendall(sent)
        assert closed(sock, 4)


def test_the_rest_of_an_answered_body_is_not_awaited_for_ever(strict_server: Server) -> None:
    with connected(strict_server) as sock:
        sock.sendall(head("/nothing", "Content-Length: 5000") + part(b"x"))
        check_problem(read_answer(sock), 404)
        began = time.monotonic()
        sock.settimeout(0.05)
        while time.monotonic() - began < 10:
            try:
                sock.sendall(b"x")
                if sock.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:  # reset: the last bytes that we sent crossed its closing
                break
        assert 0.7 * TIMEOUT_S < time.monotonic() - began < 4


def test_a_body_after_its_answer_does_not_keep_the_connection_open(strict_server: Server) -> None:
    with connected(strict_server) as sock:
        sock.sendall(head("/nothing", "Content-Length: 5"))
        check_problem(read_answer(sock), 404)
        sock.sendall(b"xxxxx")
        assert closed(sock, 4)


def test_the_timeout_does_not_bound_the_time_to_answer(
    shared_server: Callable[..., Server], seven_png: bytes
) -> None:
    server = shared_server(device="cpu", worker_threads=1, body_timeout_s=0.05)
    with server.client() as client:
        answer = client.post("/predict/batch", files=[("files", seven_png)] * 64)
        assert answer.status_code == 200
        assert answer.elapsed.total_seconds() > 0.05
        time.sleep(0.2)  # idle for longer: the keep-alive time applies
        assert client.get("/health/live").status_code == 200


# Too large


TOO_LARGE = {
    "many headers": (GET, HEADER * (MAX_HEADERS + 1) + b"\r\n"),
    "headers that never end": (GET, *[HEADER * 10_000] * 20),
    "a long header": (GET + b"X-A: " + b"x" * MAX_HEADER_BYTES + b"\r\n\r\n",),
    "a header that never ends": (GET + b"X-A: ", *[b"x" * 50_000] * 20),
    "a path that never ends": (b"GET /", *[b"x" * 50_000] * 20),
}


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_headers_that_are_too_large_are_431(strict_server: Server, kind: str) -> None:
    with rejected_once(strict_server, 431, "headers_too_large"):
        answer = exchanged(strict_server, *TOO_LARGE[kind])
    assert "headers" in check_plain(answer, 431)


def test_headers_at_the_bound_are_read(strict_server: Server) -> None:
    with connected(strict_server) as sock:
        sock.sendall(GET + HEADER * (MAX_HEADERS - 1) + b"\r\n")
        assert read_answer(sock).status_code == 200
        sock.sendall(GET + b"X-A: " + b"x" * (MAX_HEADER_BYTES - 200) + b"\r\n\r\n")
        assert read_answer(sock).status_code == 200


def test_trailers_and_chunk_extensions_are_bounded_like_headers(strict_server: Server) -> None:
    chunked = head("/predict", "Transfer-Encoding: chunked") + b"1\r\nx\r\n"
    for rest in (b"0\r\n" + HEADER, b"0\r\nX-A: ", b"1;a="):
        with connected(strict_server) as sock:
            with suppress(OSError):
                for piece in (chunked, rest, *[HEADER * 5000] * 20):
                    sock.sendall(piece)
            with suppress(ConnectionResetError):  # the last bytes crossed its closing
                receive_all(sock)
    before = rss_kb(strict_server.process.pid)
    with connected(strict_server) as sock, suppress(OSError):
        sock.sendall(chunked + b"0\r\n")
        for _ in range(400):
            sock.sendall(HEADER * 10_000)
    assert rss_kb(strict_server.process.pid) - before < 20_000


def test_a_client_that_pipelines_too_much_is_cut_off(strict_server: Server) -> None:
    with connected(strict_server) as sock:
        with suppress(OSError):
            sock.sendall((GET + b"\r\n") * 2000)
        with suppress(ConnectionResetError):
            answered = receive_all(sock)
    assert answered.count(b"HTTP/1.1 200") == MAX_PIPELINED + 1  # one is answered, so many wait
    assert answered.count(b"connection: close") == 1


# Not HTTP


NOT_HTTP = {
    "words": b"hello there\r\n\r\n",
    "a broken header": b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
    "two lengths": head("/predict", "Content-Length: 1", "Content-Length: 2"),
    "a length and chunks": head("/predict", "Content-Length: 1", "Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("kind", NOT_HTTP)
def test_what_is_not_http_is_400_and_logged(strict_server: Server, kind: str) -> None:
    n_lines = len(strict_server.logged())
    with rejected_once(strict_server, 400, "malformed"):
        answer = exchanged(strict_server, NOT_HTTP[kind])
    assert "HTTP" in check_plain(answer, 400)
    new = strict_server.logged()[n_lines:]
    (line,) = [line for line in new if line.get("status") == 400]
    assert (line["route"], line["logger"]) == ("none", "service.access")


def test_a_request_before_what_is_not_http_is_answered(strict_server: Server) -> None:
    answer = exchanged(strict_server, GET + b"\r\nno request\r\n\r\n")
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"


# uvicorn


LARGE = b"x" * 2**20


async def app(scope: Any, _receive: Any, send: Any) -> None:
    """Answer with an endless body for `/endless`, else at once."""
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while scope["path"] == "/endless":
        await send({"type": "http.response.body", "body": LARGE, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body"})


@contextmanager
def recording_server(timeout_s: float) -> Iterator[tuple[httpx.Client, set[str], set[str]]]:
    """Serve `app`; gives a client, the overridden methods, and those of them that were called."""
    metrics = Metrics(pending=lambda: 0, ready=lambda: True)
    connection = make_connection_class(timeout_s, metrics)
    own = {name for base in connection.__mro__ for name in vars(base) if _is_own(base)}
    overridden = {name for name in own if callable(getattr(HttpToolsProtocol, name, None))}
    overridden -= set(dir(object))
    called: set[str] = set()

    def recorded(name: str) -> Callable[..., Any]:
        def method(self: Any, *args: Any) -> Any:
            called.add(name)
            return getattr(connection, name)(self, *args)

        return method

    methods = {name: recorded(name) for name in overridden}
    port = free_port()
    config = uvicorn.Config(
        app,
        http=type("Recording", (connection,), methods),
        port=port,
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    with serving(uvicorn.Server(config), port) as client:
        yield client, overridden, called


def _is_own(base: type) -> bool:
    return base.__module__ == make_connection_class.__module__


def test_uvicorn_calls_every_method_that_the_connection_overrides() -> None:
    with recording_server(0.5) as (client, overridden, called):
        assert {"data_received", "on_headers_complete", "send_400_response"} <= overridden
        assert client.post("/", content=b"body").status_code == 200
        with connected(client) as sock:
            sock.sendall(b"no request\r\n\r\n")
            check_plain(read_answer(sock), 400)
        with connected(client) as sock:
            sock.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.3)  # reads nothing, until the service cannot write
        deadline = time.monotonic() + 10
        while called < overridden:
            assert time.monotonic() < deadline, overridden - called
            time.sleep(0.02)


def test_a_client_that_does_not_read_its_answer_is_cut_off() -> None:
    with recording_server(0.5) as (client, _, called), connected(client) as sock:
        sock.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        deadline = time.monotonic() + 10
        while "connection_lost" not in called:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_the_log_names_the_peer_and_not_the_client_that_headers_name(small_server: Server) -> None:
    request_id = "the-peer"
    with small_server.client() as client:
        named = {"X-Forwarded-For": "made up", "Forwarded": "for=made-up"}
        client.get("/model", headers={"X-Request-ID": request_id, **named})
    time.sleep(0.2)  # the line is written after the answer
    (line,) = [line for line in small_server.logged() if line.get("request_id") == request_id]
    assert line["client"] == "127.0.0.1"

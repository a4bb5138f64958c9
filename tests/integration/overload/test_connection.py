"""How long a request may take to arrive, whatever part of it is late."""

import socket
import time
from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest

from service.server.connection import MOST_FIELDS, MOST_HEAD_BYTES
from tests.integration.api.test_bad_input import check_problem, connected, head, part, read_answer
from tests.integration.lifecycle.test_drain import receive_all
from tests.support.process import rss_kb
from tests.support.server import Server

GET = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture(scope="module")
def hurried(make_server: Callable[..., Server]) -> Server:
    """A service that waits a second for whatever is sent to it."""
    return make_server(device="cpu", draws=40, body_timeout_s=1)


def trickle_until_answered(sock: socket.socket, data: bytes = b"x") -> float:
    """Send a piece ten times a second until something comes back; the seconds that took."""
    began = time.monotonic()
    sock.settimeout(0.1)
    while time.monotonic() - began < 10:
        sock.sendall(data)
        try:
            sock.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            continue
        break
    sock.settimeout(10)
    return time.monotonic() - began


def closed(sock: socket.socket) -> bool:
    """Whether the service has closed the connection, or does so within ten seconds."""
    sock.settimeout(10)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True  # what we sent last crossed the closing


def test_a_head_that_trickles_is_408_and_its_connection_is_closed(hurried: Server) -> None:
    with connected(hurried) as sock:
        sock.sendall(GET + b"X-Slow: ")
        assert 0.7 < trickle_until_answered(sock) < 4
        detail = check_problem(read_answer(sock), 408)
        assert "head" in detail
        assert "1 s" in detail
        assert closed(sock)
    with hurried.client() as client:
        text = client.get("/metrics").text
    assert 'mnn_requests_total{method="other",route="none",status="408"} 1.0' in text


def test_the_head_of_a_second_request_is_bounded_as_the_first_is(hurried: Server) -> None:
    with connected(hurried) as sock:
        sock.sendall(GET + b"\r\n")
        assert read_answer(sock).status_code == 200
        sock.sendall(GET)
        check_problem(read_answer(sock), 408)
        assert closed(sock)


def test_a_connection_on_which_nothing_is_sent_is_closed(hurried: Server) -> None:
    with connected(hurried) as sock:
        assert closed(sock)


def test_the_rest_of_a_body_that_has_its_answer_is_not_awaited_for_ever(hurried: Server) -> None:
    with connected(hurried) as sock:
        sock.sendall(head("/nothing", "Content-Length: 5000") + part(b"x"))
        check_problem(read_answer(sock), 404)
        began = time.monotonic()
        sock.settimeout(0.1)
        while time.monotonic() - began < 10:
            try:
                sock.sendall(b"x")
                if sock.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:  # reset: what we sent last crossed the closing
                break
        assert 0.7 < time.monotonic() - began < 4


def test_a_request_that_is_whole_in_time_may_take_longer_to_answer(
    make_server: Callable[..., Server], seven_png: bytes
) -> None:
    server = make_server(device="cpu", lanes=1, body_timeout_s=0.05)
    with server.client() as client:
        answer = client.post("/predict/batch", files=[("files", seven_png)] * 64)
        assert answer.status_code == 200
        assert answer.elapsed.total_seconds() > 0.05
        time.sleep(0.2)  # idle for longer: this is what the keep-alive time is for
        assert client.get("/health/live").status_code == 200


def accepts(server: Server) -> bool:
    with server.client() as client:
        return client.get("/health/live").status_code == 200


def exchanged(server: Server, *pieces: bytes) -> httpx.Response:
    """Send pieces as long as they are taken; the first answer, after which the service closes."""
    with connected(server) as sock:
        try:
            for piece in pieces:
                sock.sendall(piece)
        except OSError:  # closed meanwhile; what it answered is here still
            pass
        answer = read_answer(sock)
        assert closed(sock)
        return answer


FIELD = b"X-A: b\r\n"
HEADS_TOO_LARGE = {
    "many lines": (GET, FIELD * (MOST_FIELDS + 1) + b"\r\n"),
    "many lines that never end": (GET, *[FIELD * 10_000] * 20),
    "a long line": (GET + b"X-A: " + b"x" * MOST_HEAD_BYTES + b"\r\n\r\n",),
    "a line that never ends": (GET + b"X-A: ", *[b"x" * 50_000] * 20),
    "an address that never ends": (b"GET /", *[b"x" * 50_000] * 20),
}


@pytest.mark.parametrize("kind", HEADS_TOO_LARGE)
def test_a_head_that_is_too_large_is_431(hurried: Server, kind: str) -> None:
    answer = exchanged(hurried, *HEADS_TOO_LARGE[kind])
    assert "head" in check_problem(answer, 431)
    assert answer.headers["connection"] == "close"
    assert accepts(hurried)


def test_a_head_at_the_bound_is_read(hurried: Server) -> None:
    with connected(hurried) as sock:
        sock.sendall(GET + FIELD * (MOST_FIELDS - 1) + b"\r\n")
        assert read_answer(sock).status_code == 200
        sock.sendall(GET + b"X-A: " + b"x" * (MOST_HEAD_BYTES - 200) + b"\r\n\r\n")
        assert read_answer(sock).status_code == 200


def test_what_follows_a_chunked_body_is_bounded_as_a_head_is(hurried: Server) -> None:
    chunked = head("/predict", "Transfer-Encoding: chunked") + b"1\r\nx\r\n"
    for rest in (b"0\r\n" + FIELD, b"0\r\nX-A: ", b"1;a="):
        with connected(hurried) as sock:
            with suppress(OSError):
                for piece in (chunked, rest, *[FIELD * 5000] * 20):
                    sock.sendall(piece)
            with suppress(ConnectionResetError):  # what we sent last crossed the closing
                receive_all(sock)
    before = rss_kb(hurried.process.pid)
    with connected(hurried) as sock, suppress(OSError):
        sock.sendall(chunked + b"0\r\n")
        for _ in range(400):
            sock.sendall(FIELD * 10_000)
    assert rss_kb(hurried.process.pid) - before < 20_000


NO_REQUESTS = {
    "words": b"hello there\r\n\r\n",
    "a broken head": b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
    "two lengths": head("/predict", "Content-Length: 1", "Content-Length: 2"),
    "a length and chunks": head("/predict", "Content-Length: 1", "Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("kind", NO_REQUESTS)
def test_what_is_no_request_is_400_as_any_problem_is(
    make_server: Callable[..., Server], kind: str
) -> None:
    server = make_server(device="cpu", draws=40)
    answer = exchanged(server, NO_REQUESTS[kind])
    assert "HTTP" in check_problem(answer, 400)
    assert answer.headers["connection"] == "close"
    with server.client() as client:
        text = client.get("/metrics").text
    assert 'mnn_requests_total{method="other",route="none",status="400"} 1.0' in text
    (line,) = [line for line in server.logged() if line.get("status") == 400]
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["route"] == "none"


def test_below_v2_what_is_no_request_is_answered_as_the_protocol_has_it(hurried: Server) -> None:
    start = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine-7\r\n" + FIELD
    for pieces, status in (((start,), 408), ((start, FIELD * 200), 431)):
        answer = exchanged(hurried, *pieces)
        assert answer.status_code == status
        assert set(answer.json()) == {"error"}
        assert answer.headers["x-request-id"] == "mine-7"


def test_a_request_before_what_is_none_is_answered(hurried: Server) -> None:
    answer = exchanged(hurried, GET + b"\r\nno request\r\n\r\n")
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("sent", [b"\r\n", b"\r\n\r\n"])
def test_blank_lines_keep_no_connection(hurried: Server, sent: bytes) -> None:
    with connected(hurried) as sock:
        sock.sendall(GET + b"\r\n")
        assert read_answer(sock).status_code == 200
        sock.sendall(sent)
        began = time.monotonic()
        assert closed(sock)
        assert time.monotonic() - began < 4


def test_a_body_that_comes_after_its_answer_keeps_no_connection(hurried: Server) -> None:
    with connected(hurried) as sock:
        sock.sendall(head("/nothing", "Content-Length: 5"))
        check_problem(read_answer(sock), 404)
        sock.sendall(b"xxxxx")
        began = time.monotonic()
        assert closed(sock)
        assert time.monotonic() - began < 4


def test_the_log_names_who_has_connected_and_not_whom_a_client_names(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(device="cpu", draws=40)
    with server.client() as client:
        client.get("/model", headers={"X-Forwarded-For": "made up", "Forwarded": "for=made-up"})
    time.sleep(0.2)  # a line is written when the answer has been sent
    (line,) = [line for line in server.logged() if line.get("route") == "/model"]
    assert line["client"] == "127.0.0.1"

"""How long a request may take to arrive, whatever part of it is late."""

import socket
import time
from collections.abc import Callable

import pytest

from tests.conftest import Server
from tests.service.test_bad_input import check_problem, connected, head, part, read_answer

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

"""A stop that is asked for: not ready, a wait, what was accepted is finished, exit 0."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from service import Settings, create_app
from service.server.graceful_server import Server as DrainingServer
from tests.integration.api.test_bad_input import check_problem
from tests.support.server import Server, free_port, service_environment

FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n%b\r\n--b--\r\n'
)


@pytest.fixture
def told(make_server: Callable[..., Server]) -> Server:
    """A service that waits half a minute once it is told to stop, unless it is told again."""
    return make_server(device="cpu", drain_wait_s=30)


def begin_request(server: Server, picture: bytes) -> tuple[socket.socket, bytes]:
    """Open a connection and send half of a request; gives the other half."""
    body = FORM % picture
    head = (
        "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", httpx.URL(server.url).port or 0), 20)
    connection.sendall(head.encode() + body[:200])
    return connection, body[200:]


def receive_all(connection: socket.socket) -> bytes:
    """Everything until the connection is closed by the service."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def test_while_it_waits_it_is_not_ready_and_answers_and_keeps_no_connection(
    told: Server, seven_png: bytes
) -> None:
    with told.client() as client:
        kept = client.post("/predict", files={"file": seven_png})
        assert "connection" not in kept.headers
        told.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        refused = client.get("/health/ready")
        assert "about to stop" in check_problem(refused, 503)
        assert int(refused.headers["retry-after"]) > 0
        assert client.get("/health/live").status_code == 200
        assert "mnn_ready 0.0" in client.get("/metrics").text
        answered = client.post("/predict", files={"file": seven_png})
        assert answered.json() == kept.json()
        assert answered.headers["connection"] == "close"
    assert told.process.poll() is None
    assert told.stop() == 0  # the second signal ends the wait


def test_what_was_accepted_is_finished_after_the_listener_is_closed(
    make_server: Callable[..., Server], seven_png: bytes
) -> None:
    server = make_server(device="cpu")
    connection, rest = begin_request(server, seven_png)
    with connection:
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health/live")
        connection.sendall(rest)
        answer = receive_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"prediction":"7"' in answer
    assert server.process.wait(timeout=20) == 0


def test_a_connection_that_was_just_made_may_show_its_request(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(device="cpu")
    address = ("127.0.0.1", httpx.URL(server.url).port or 0)
    with socket.create_connection(address, 20) as connection:
        time.sleep(0.1)  # accepted, and no request is under way
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert receive_all(connection).startswith(b"HTTP/1.1 200 ")
    assert server.process.wait(timeout=20) == 0


def test_an_idle_connection_does_not_hold_up_the_stop(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(device="cpu")
    address = ("127.0.0.1", httpx.URL(server.url).port or 0)
    with socket.create_connection(address, 20):
        time.sleep(0.1)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 8  # bodies and answers would be waited for 20 s


def test_ctrl_c_leaves_out_the_wait(told: Server) -> None:
    told.process.send_signal(signal.SIGINT)
    assert told.process.wait(timeout=20) == 0


def test_requests_that_are_under_way_when_it_is_told_are_all_answered(
    make_server: Callable[..., Server], seven_png: bytes
) -> None:
    server = make_server(device="cpu")
    with ExitStack() as stack:
        connections = []
        for _ in range(24):
            connection, rest = begin_request(server, seven_png)
            stack.enter_context(connection)
            connection.sendall(rest)
            connections.append(connection)
        server.process.send_signal(signal.SIGTERM)
        answers = [receive_all(connection) for connection in connections]
    assert [answer.split(b"\r\n", 1)[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * 24
    assert server.process.wait(timeout=20) == 0


def test_whoever_has_connected_is_answered_though_the_loop_had_no_time_to_accept_them() -> None:
    busy, stop = threading.Event(), threading.Event()

    class Busy(DrainingServer):
        """Is kept from its event loop right before it stops."""

        async def on_tick(self, counter: int) -> bool:
            if stop.is_set():
                busy.set()
                time.sleep(0.5)
                return True
            return await super().on_tick(counter)

    settings = Settings(device="cpu", draws=40, port=free_port())
    server = Busy(create_app(settings), settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    stop.set()
    assert busy.wait(10)
    request = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with ExitStack() as opened:
        connections = [
            opened.enter_context(socket.create_connection(("127.0.0.1", settings.port), 20))
            for _ in range(5)
        ]
        for connection in connections:
            connection.sendall(request)
        for connection in connections:
            assert receive_all(connection).startswith(b"HTTP/1.1 200 ")
    thread.join(timeout=30)
    assert not thread.is_alive()


LOADING_SLOWLY = """
import sys, time
from service import __main__
from service.model_lifecycle import reloader as watch
def load(settings):
    print("loading", flush=True)
    time.sleep(40)
watch.load_served = load
sys.exit(__main__.main())
"""


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_does_not_wait_for_weights_that_are_being_loaded(
    asked: signal.Signals, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOADING_SLOWLY],
        env=service_environment(port=free_port()),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "loading\n"
            time.sleep(0.5)  # it listens
            process.send_signal(asked)
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()


def test_a_stop_in_the_middle_of_loading_is_no_crash(make_server: Callable[..., Server]) -> None:
    for wait_s in (0.05, 0.25, 0.5):
        server = make_server(ready=False, device="cpu")
        while "startup complete" not in server.log.read_text():
            assert server.process.poll() is None
            time.sleep(0.01)
        time.sleep(wait_s)
        assert server.stop() == 0

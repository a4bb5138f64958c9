"""Graceful stop: not ready, a delay, accepted requests are finished, exit code 0."""

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
from service.server.graceful_server import GracefulServer
from tests.support.service.problems import check_problem
from tests.support.service.raw_http import begin_request, connected, receive_all
from tests.support.service.server import Server, free_port, service_environment

pytestmark = pytest.mark.not_through_ray("it stops a process")

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def draining_slowly(make_server: Callable[..., Server]) -> Server:
    """A service that keeps answering for half a minute after the first signal."""
    return make_server(device="cpu", draws=40, drain_delay_s=30)


@pytest.fixture
def started(make_server: Callable[..., Server]) -> Server:
    """A service of its own for one test, which stops it."""
    return make_server(device="cpu", draws=40)


def test_during_the_drain_delay_it_is_not_ready_but_answers_and_closes_connections(
    draining_slowly: Server, seven_png: bytes
) -> None:
    with draining_slowly.client() as client:
        kept = client.post("/predict", files={"file": seven_png})
        assert "connection" not in kept.headers
        draining_slowly.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        refused = client.get("/health/ready")
        assert "about to stop" in check_problem(refused, 503)
        assert int(refused.headers["retry-after"]) > 0
        assert client.get("/health/live").status_code == 200
        assert "mnn_ready 0.0" in client.get("/metrics").text
        answered = client.post("/predict", files={"file": seven_png})
        assert answered.json() == kept.json()
        assert answered.headers["connection"] == "close"
    assert draining_slowly.process.poll() is None
    assert draining_slowly.stop() == 0  # the second signal ends the delay


def test_an_accepted_request_is_finished_after_the_listener_is_closed(
    started: Server, seven_png: bytes
) -> None:
    connection, rest = begin_request(started, seven_png)
    with connection:
        time.sleep(0.2)
        started.process.send_signal(signal.SIGTERM)
        until_closed(started)
        connection.sendall(rest)
        answer = receive_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"prediction":"7"' in answer
    assert started.process.wait(timeout=20) == 0


def until_closed(server: Server) -> None:
    """Wait until nothing listens at the address."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{server.url}/health/live")
        except httpx.ConnectError:
            return
        time.sleep(0.02)
    pytest.fail("it still listens")


def test_a_new_connection_may_still_send_its_request(started: Server) -> None:
    with connected(started) as connection:
        time.sleep(0.1)  # accepted, and without a request
        started.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(LIVE)
        assert receive_all(connection).startswith(b"HTTP/1.1 200 ")
    assert started.process.wait(timeout=20) == 0


def test_an_idle_connection_does_not_hold_up_the_stop(started: Server) -> None:
    with connected(started):
        time.sleep(0.1)
        began = time.monotonic()
        assert started.stop() == 0
        assert time.monotonic() - began < 8  # bodies and answers would get 20 s


def test_ctrl_c_skips_the_drain_delay(draining_slowly: Server) -> None:
    draining_slowly.process.send_signal(signal.SIGINT)
    assert draining_slowly.process.wait(timeout=20) == 0


def test_all_requests_under_way_at_the_signal_are_answered(
    started: Server, seven_png: bytes
) -> None:
    with ExitStack() as stack:
        connections = []
        for _ in range(24):
            connection, rest = begin_request(started, seven_png)
            stack.enter_context(connection)
            connection.sendall(rest)
            connections.append(connection)
        started.process.send_signal(signal.SIGTERM)
        answers = [receive_all(connection) for connection in connections]
    assert [answer.split(b"\r\n", 1)[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * 24
    assert started.process.wait(timeout=20) == 0


def test_clients_in_the_accept_backlog_are_answered_though_the_loop_was_busy() -> None:
    busy, stop = threading.Event(), threading.Event()

    class Busy(GracefulServer):
        """Blocks its event loop right before it stops."""

        async def on_tick(self, counter: int) -> bool:
            if stop.is_set():
                busy.set()
                time.sleep(0.5)
                return True
            return await super().on_tick(counter)

    settings = Settings(device="cpu", draws=40, port=free_port())
    app = create_app(settings)
    service = app.state.service
    server = Busy(app, settings, service.provider, service.metrics)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    stop.set()
    assert busy.wait(10)
    with ExitStack() as opened:
        connections = [
            opened.enter_context(socket.create_connection(("127.0.0.1", settings.port), 20))
            for _ in range(5)
        ]
        for connection in connections:
            connection.sendall(LIVE)
        for connection in connections:
            assert receive_all(connection).startswith(b"HTTP/1.1 200 ")
    thread.join(timeout=30)
    assert not thread.is_alive()


LOADING_SLOWLY = """
import sys, time
from service import __main__
from service.model_lifecycle import reloader

def load(*_, **__):
    print("loading", flush=True)
    time.sleep(40)
reloader.load_model = load
sys.exit(__main__.main())
"""


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_does_not_wait_for_the_checkpoint_to_load(
    signal_: signal.Signals, tmp_path: Path
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
            process.send_signal(signal_)
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()


def test_a_stop_while_loading_is_no_crash(make_server: Callable[..., Server]) -> None:
    for wait_s in (0.05, 0.3):
        server = make_server(ready=False, device="cpu")
        while "startup complete" not in server.log.read_text():
            assert server.process.poll() is None
            time.sleep(0.01)
        time.sleep(wait_s)
        assert server.stop() == 0

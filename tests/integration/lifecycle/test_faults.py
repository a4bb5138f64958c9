"""Faults of the service's own: one request fails, is logged by its id, and nothing else suffers.

These run the application in this process, since a fault has to be planted in it.
"""

import errno
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from tempfile import SpooledTemporaryFile
from typing import Literal

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image

from model import Classifier
from service import Settings, create_app
from service.model_lifecycle.provider import Served
from tests.integration.api.test_bad_input import check_problem, check_problem_body
from tests.support.checkpoints import tiny_checkpoint
from tests.support.images import encoded
from tests.support.server import free_port


class FailingEngine:
    """Raises for inputs with ink, answers blank ones."""

    name, device, n_draws = "failing", "cpu", 40

    def logits(self, images: NDArray[np.uint8], n_draws: int) -> NDArray[np.float32]:
        if images.any():
            raise ZeroDivisionError("secret detail of /some/path")
        return np.zeros((n_draws, len(images), 10), np.float32)


@contextmanager
def running(app: FastAPI, lifespan: Literal["on", "off"] = "on") -> Iterator[httpx.Client]:
    """The application behind a socket of its own, in a thread of this process."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan=lifespan, log_config=None))
    with serving(server, port) as client:
        yield client


@contextmanager
def serving(server: uvicorn.Server, port: int) -> Iterator[httpx.Client]:
    """A server in a thread of this process, and a client for it."""
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(timeout=30)


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    app = create_app(Settings(device="cpu"))
    with running(app) as client:
        while client.get("/health/ready").status_code != 200:
            time.sleep(0.05)
        app.state.holder.served = Served(Classifier(tiny_checkpoint(), FailingEngine()), "file")
        yield client


BLANK = encoded(Image.new("L", (20, 20), 255))


def ask(client: httpx.Client, picture: bytes) -> httpx.Response:
    return client.post("/predict", files={"file": picture}, headers={"X-Request-ID": "abc-1"})


def test_a_fault_is_a_500_without_details_logged_by_its_id_and_the_next_request_works(
    client: httpx.Client, seven_png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        failed = ask(client, seven_png)
    detail = check_problem(failed, 500)
    assert "secret" not in detail
    assert failed.json()["request_id"] == "abc-1"
    (record,) = [r for r in caplog.records if r.name == "service"]
    assert "abc-1" in record.getMessage()
    assert record.exc_info is not None
    assert ask(client, BLANK).status_code == 200


def test_a_full_disk_while_a_body_arrives_is_our_fault_not_the_clients(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class FullDisk(SpooledTemporaryFile):  # type: ignore[type-arg]
        def write(self, *_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", FullDisk)
    with caplog.at_level(logging.ERROR):
        detail = check_problem(ask(client, BLANK), 500)
    assert "space" not in detail
    assert any("abc-1" in record.getMessage() for record in caplog.records)


def test_a_fault_at_one_file_of_a_batch_leaves_the_others(
    client: httpx.Client, seven_png: bytes
) -> None:
    files = [("files", picture) for picture in (BLANK, seven_png, BLANK)]
    first, second, third = client.post("/predict/batch", files=files).json()["results"]
    assert first["reasons"] == third["reasons"] == ["no_ink", "uncertain"]
    check_problem_body(second["error"], 500)


def test_each_fault_is_counted_and_those_within_a_batch_are(
    client: httpx.Client, seven_png: bytes
) -> None:
    assert "\nmnn_faults_total 0.0\n" in client.get("/metrics").text
    ask(client, seven_png)
    assert "\nmnn_faults_total 1.0\n" in client.get("/metrics").text
    files = [("files", picture) for picture in (seven_png, BLANK, seven_png, b"no picture")]
    assert client.post("/predict/batch", files=files).status_code == 200
    assert "\nmnn_faults_total 3.0\n" in client.get("/metrics").text


def test_without_a_model_every_route_that_needs_one_is_503(seven_png: bytes) -> None:
    app = create_app(Settings(device="cpu"))
    with running(app, lifespan="off") as client:  # nothing is loaded
        check_problem(client.post("/predict", files={"file": seven_png}), 503)
        for path in ("/model", "/health/ready"):
            check_problem(client.get(path), 503)
        assert client.get("/health/live").status_code == 200


def test_a_client_that_hangs_up_costs_nothing_and_harms_nobody() -> None:
    free = threading.Event()

    class SlowEngine(FailingEngine):
        asked = 0

        def logits(self, images: NDArray[np.uint8], n_draws: int) -> NDArray[np.float32]:
            SlowEngine.asked += len(images)
            free.wait(20)
            return np.zeros((n_draws, len(images), 10), np.float32)

    app = create_app(Settings(device="cpu", lanes=1))
    with running(app) as client:
        while client.get("/health/ready").status_code != 200:
            time.sleep(0.05)
        app.state.holder.served = Served(Classifier(tiny_checkpoint(), SlowEngine()), "file")
        with ThreadPoolExecutor(1) as other:
            answered = other.submit(ask, client, BLANK)
            time.sleep(0.1)  # the only lane is busy now
            for _ in range(20):
                with (
                    httpx.Client(base_url=client.base_url, timeout=0.02) as impatient,
                    suppress(httpx.TimeoutException),
                ):
                    ask(impatient, BLANK)
            time.sleep(0.1)
            free.set()
            assert answered.result().status_code == 200
        assert ask(client, BLANK).status_code == 200
        assert SlowEngine.asked == 2
        assert app.state.lanes._pending == 0

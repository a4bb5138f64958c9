"""An internal error fails one request, is logged with its ID, and harms no other request.

The application runs in this process, so that an error can be planted in it.
"""

import errno
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from tempfile import SpooledTemporaryFile

import httpx
import pytest
from PIL import Image

from service import Settings, create_app
from tests.support.images import encoded
from tests.support.service.engines import FailingEngine, WaitingEngine, n_pending, serve_engine
from tests.support.service.in_process import running, started
from tests.support.service.problems import check_problem, check_problem_body

BLANK = encoded(Image.new("L", (20, 20), 255))


@pytest.fixture
def failing() -> Iterator[httpx.Client]:
    """A client of a service whose engine fails for images with foreground."""
    app = create_app(Settings(device="cpu", draws=40))
    with started(app) as client:
        serve_engine(app, FailingEngine())
        yield client


def ask(client: httpx.Client, image: bytes) -> httpx.Response:
    return client.post("/predict", files={"file": image}, headers={"X-Request-ID": "abc-1"})


def test_an_error_is_a_500_without_details_and_the_log_has_its_id(
    failing: httpx.Client, seven_png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        failed = ask(failing, seven_png)
    detail = check_problem(failed, 500)
    assert "secret" not in detail
    assert failed.json()["request_id"] == "abc-1"
    (record,) = [r for r in caplog.records if r.name == "service"]
    assert "abc-1" in record.getMessage()
    assert record.exc_info is not None
    assert ask(failing, BLANK).status_code == 200


def test_a_full_disk_while_a_body_arrives_is_500(
    failing: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class FullDisk(SpooledTemporaryFile):  # type: ignore[type-arg]
        def write(self, *_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", FullDisk)
    with caplog.at_level(logging.ERROR):
        detail = check_problem(ask(failing, BLANK), 500)
    assert "space" not in detail
    assert any("abc-1" in record.getMessage() for record in caplog.records)


def test_an_error_in_one_file_of_a_batch_leaves_the_others(
    failing: httpx.Client, seven_png: bytes
) -> None:
    files = [("files", image) for image in (BLANK, seven_png, BLANK)]
    first, second, third = failing.post("/predict/batch", files=files).json()["results"]
    assert first["reasons"] == third["reasons"] == ["no_ink", "uncertain"]
    check_problem_body(second["error"], 500)


def test_errors_are_counted_also_within_a_batch(failing: httpx.Client, seven_png: bytes) -> None:
    assert "\nmnn_internal_errors_total 0.0\n" in failing.get("/metrics").text
    ask(failing, seven_png)
    assert "\nmnn_internal_errors_total 1.0\n" in failing.get("/metrics").text
    files = [("files", image) for image in (seven_png, BLANK, seven_png, b"no image")]
    assert failing.post("/predict/batch", files=files).status_code == 200
    assert "\nmnn_internal_errors_total 3.0\n" in failing.get("/metrics").text


def test_without_a_model_every_route_that_needs_one_is_503(seven_png: bytes) -> None:
    app = create_app(Settings(device="cpu"))
    with running(app, lifespan="off") as client:  # nothing is loaded
        check_problem(client.post("/predict", files={"file": seven_png}), 503)
        for path in ("/model", "/health/ready"):
            check_problem(client.get(path), 503)
        assert client.get("/health/live").status_code == 200


def test_a_client_that_leaves_costs_nothing_and_harms_nobody() -> None:
    engine = WaitingEngine()
    app = create_app(Settings(device="cpu", draws=40, worker_threads=1))
    with started(app) as client:
        serve_engine(app, engine)
        with ThreadPoolExecutor(1) as other:
            answered = other.submit(ask, client, BLANK)
            while not engine.n_images:
                time.sleep(0.01)  # until the only worker thread is busy
            for _ in range(20):
                with (
                    httpx.Client(base_url=client.base_url, timeout=0.02) as impatient,
                    suppress(httpx.TimeoutException),
                ):
                    ask(impatient, BLANK)
            time.sleep(0.1)
            engine.free.set()
            assert answered.result().status_code == 200
        assert ask(client, BLANK).status_code == 200
        assert engine.n_images == 2
        assert n_pending(app) == 0

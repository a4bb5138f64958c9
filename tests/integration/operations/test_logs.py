"""The log: JSON that machines read, one line a request, nothing of the pictures in it."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.observability.logging import REQUEST_ID, _JsonFormatter, configure, with_fields
from tests.integration.api.test_bad_input import connected, head, part
from tests.support.paths import ROOT
from tests.support.server import Server, start_service


@pytest.fixture(scope="module")
def logged(make_server: Callable[..., Server]) -> Server:
    return make_server(device="cpu", log_level="debug")


def of_request(server: Server, request_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 5  # it is written when the answer has been sent
    while not (lines := [line for line in server.logged() if line.get("request_id") == request_id]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (line,) = lines
    return line


def test_every_line_is_an_object_with_the_fields_that_the_docs_name(logged: Server) -> None:
    documented = (ROOT / "docs" / "monitoring.md").read_text()
    found = logged.logged()
    assert len(found) > 3
    for line in found:
        assert {"time", "level", "logger", "message"} <= set(line)
        for field in line:
            assert f"`{field}`" in documented, field


def test_a_request_leaves_one_line_with_its_id_its_times_and_what_was_decided(
    logged: Server, seven_png: bytes
) -> None:
    with logged.client() as client:
        answer = client.post(
            "/predict", files={"file": seven_png}, headers={"X-Request-ID": "mine-1"}
        )
    line = of_request(logged, "mine-1")
    assert line["logger"] == "service.answered"
    assert line["level"] == "info"
    assert (line["method"], line["route"], line["status"]) == ("POST", "/predict", 200)
    assert (line["pictures"], line["answered"], line["accepted"]) == (1, 1, 1)
    assert line["client"] == "127.0.0.1"
    assert line["total_ms"] >= line["compute_ms"] > 0
    assert answer.json()["prediction"] == "7"


def test_a_batch_tells_how_many_were_read_and_accepted(logged: Server, seven_png: bytes) -> None:
    files = [("files", seven_png), ("files", b"no picture"), ("files", seven_png)]
    with logged.client() as client:
        client.post("/predict/batch", files=files, headers={"X-Request-ID": "mine-2"})
    line = of_request(logged, "mine-2")
    assert (line["pictures"], line["answered"], line["accepted"]) == (3, 2, 2)


def test_probes_are_logged_at_debug_alone(logged: Server) -> None:
    with logged.client() as client:
        client.get("/health/live", headers={"X-Request-ID": "mine-3"})
    assert of_request(logged, "mine-3")["level"] == "debug"


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/v2/models/digits/infer"])
def test_an_upload_that_is_left_has_no_status_and_is_no_rejection(
    logged: Server, path: str
) -> None:
    request_id = f"left-{path.count('/')}{len(path)}"
    with logged.client() as client:
        before = client.get("/metrics").text
        with connected(logged) as sock:
            fields = (f"X-Request-ID: {request_id}", "Content-Length: 5000")
            sock.sendall(head(path, *fields) + part(b"x"))
            time.sleep(0.2)
        deadline = time.monotonic() + 10
        while request_id not in logged.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        after = client.get("/metrics").text
    line = of_request(logged, request_id)
    assert line["status"] is None
    assert "nobody left" in line["message"]
    counts = [
        [line for line in text.splitlines() if line.startswith("mnn_rejections_total")]
        for text in (before, after)
    ]
    assert counts[0] == counts[1]


def test_what_a_client_makes_up_is_not_logged(logged: Server, seven_png: bytes) -> None:
    with logged.client() as client:
        client.get("/made-up-address", headers={"X-Request-ID": "mine-4"})
        client.post("/predict", files={"file": ("made-up-name.png", seven_png)})
        client.get("/model", headers={"X-Request-ID": "made up\tid"})
    assert of_request(logged, "mine-4")["route"] == "none"
    assert "made-up" not in logged.log.read_text()
    assert "made up" not in logged.log.read_text()


def test_an_exception_and_the_request_it_belongs_to_are_in_the_object() -> None:
    try:
        raise ZeroDivisionError("a reason\nover two lines")
    except ZeroDivisionError:
        record = logging.getLogger("x").makeRecord(
            "x", logging.ERROR, __file__, 1, "failed %d", (3,), exc_info=sys.exc_info()
        )
    token = REQUEST_ID.set("id-1")
    try:
        text = _JsonFormatter().format(record)
    finally:
        REQUEST_ID.reset(token)
    assert "\n" not in text
    told = json.loads(text)
    assert told["message"] == "failed 3"
    assert told["request_id"] == "id-1"
    assert "ZeroDivisionError: a reason" in told["exception"]


@pytest.fixture
def _untouched_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


@pytest.mark.usefixtures("_untouched_logging")
@pytest.mark.parametrize(("form", "is_json"), [("json", True), ("text", False), ("auto", True)])
def test_the_form_is_chosen_by_the_setting(
    form: Any, is_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("info", form)  # standard error is no terminal here
    logging.getLogger("service").info("hello", extra=with_fields(status=200))
    text = capsys.readouterr().err
    assert "hello" in text
    assert text.startswith("{") == is_json


def test_an_unknown_form_stops_the_start(tmp_path: Path) -> None:
    server = start_service(tmp_path / "log.txt", tmp_path, log_format="xml")
    assert server.process.wait(timeout=60) == 2
    assert "MNN_LOG_FORMAT" in server.log.read_text()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health/live")

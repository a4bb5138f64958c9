"""The log: JSON objects, one for each request, without pictures or predictions."""

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from service.observability.logging import REQUEST_ID, configure
from tests.support.paths import ROOT
from tests.support.service.metrics import counted
from tests.support.service.raw_http import connected, head, part
from tests.support.service.server import Server, error_of_start

pytestmark = pytest.mark.not_through_ray("it reads the log of a process")


def access_line(server: Server, request_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 5  # the line is written after the answer
    while not (lines := [line for line in server.logged() if line.get("request_id") == request_id]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (line,) = lines
    return line


def test_every_line_is_an_object_with_documented_fields(small_server: Server) -> None:
    documented = (ROOT / "docs" / "monitoring.md").read_text()
    found = small_server.logged()
    assert len(found) > 3
    for line in found:
        assert {"time", "level", "logger", "message"} <= set(line)
        for field in line:
            assert f"`{field}`" in documented, field


def test_a_request_is_logged_with_its_id_times_and_decision(
    small_server: Server, seven_png: bytes
) -> None:
    with small_server.client() as client:
        answer = client.post(
            "/predict", files={"file": seven_png}, headers={"X-Request-ID": "mine-1"}
        )
    line = access_line(small_server, "mine-1")
    assert line["logger"] == "service.access"
    assert line["level"] == "info"
    assert (line["method"], line["route"], line["status"]) == ("POST", "/predict", 200)
    assert (line["images"], line["answered"], line["accepted"]) == (1, 1, 1)
    assert line["client"] == "127.0.0.1"
    assert line["total_ms"] >= line["compute_ms"] > 0
    assert answer.json()["prediction"] == "7"


def test_a_batch_is_logged_with_its_answered_and_accepted_images(
    small_server: Server, seven_png: bytes
) -> None:
    files = [("files", seven_png), ("files", b"no image"), ("files", seven_png)]
    with small_server.client() as client:
        client.post("/predict/batch", files=files, headers={"X-Request-ID": "mine-2"})
    line = access_line(small_server, "mine-2")
    assert (line["images"], line["answered"], line["accepted"]) == (3, 2, 2)


def test_probes_are_logged_at_debug(small_server: Server) -> None:
    with small_server.client() as client:
        client.get("/health/live", headers={"X-Request-ID": "mine-3"})
    assert access_line(small_server, "mine-3")["level"] == "debug"


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/v2/models/digits/infer"])
def test_an_abandoned_upload_has_no_status_and_is_no_rejection(
    small_server: Server, path: str
) -> None:
    request_id = f"left-{path.count('/')}{len(path)}"
    with small_server.client() as client, counted(client) as growth:
        with connected(small_server) as sock:
            fields = (f"X-Request-ID: {request_id}", "Content-Length: 5000")
            sock.sendall(head(path, *fields) + part(b"x"))
            time.sleep(0.2)
        line = access_line(small_server, request_id)
    assert line["status"] is None
    assert "client disconnected" in line["message"]
    assert {n for (name, _), n in growth.items() if name == "mnn_rejections_total"} == {0}


def test_paths_names_and_ids_of_clients_are_not_logged(
    small_server: Server, seven_png: bytes
) -> None:
    with small_server.client() as client:
        client.get("/made-up-address", headers={"X-Request-ID": "mine-4"})
        client.post("/predict", files={"file": ("made-up-name.png", seven_png)})
        client.get("/model", headers={"X-Request-ID": "made up\tid"})
    assert access_line(small_server, "mine-4")["route"] == "none"
    assert "made-up" not in small_server.log.read_text()
    assert "made up" not in small_server.log.read_text()


@pytest.fixture
def _untouched_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


@pytest.mark.usefixtures("_untouched_logging")
def test_an_exception_is_logged_with_its_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    token = REQUEST_ID.set("id-1")
    try:
        raise ZeroDivisionError("a reason\nover two lines")
    except ZeroDivisionError:
        logging.getLogger("service").exception("failed %d", 3)
    finally:
        REQUEST_ID.reset(token)
    (text,) = capsys.readouterr().err.splitlines()
    entry = json.loads(text)
    assert entry["message"] == "failed 3"
    assert entry["request_id"] == "id-1"
    assert "ZeroDivisionError: a reason" in entry["exception"]


@pytest.mark.usefixtures("_untouched_logging")
@pytest.mark.parametrize(("form", "is_json"), [("json", True), ("text", False), ("auto", True)])
def test_the_setting_chooses_the_format(
    form: Any, is_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("info", form)  # standard error is no terminal here
    logging.getLogger("service").info("hello", extra={"fields": {"status": 200}})
    text = capsys.readouterr().err
    assert "hello" in text
    assert text.startswith("{") == is_json


def test_an_unknown_format_stops_the_start() -> None:
    assert "MNN_LOG_FORMAT" in error_of_start(log_format="xml")

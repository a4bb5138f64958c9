"""A full queue turns pictures away before their form is looked at."""

import time
from collections.abc import Iterator

import httpx
import pytest

from service import Settings, create_app
from tests.service.test_bad_input import BOUNDARY, FORM_TYPE, check_problem, part
from tests.service.test_faults import BLANK, running

MIB = 2**20
HEADERS = {"Content-Type": FORM_TYPE}


@pytest.fixture(scope="module")
def full() -> Iterator[httpx.Client]:
    """A service whose queue is full and stays so."""
    app = create_app(Settings(device="cpu", draws=40, max_upload_bytes=3 * MIB, body_timeout_s=1))
    with running(app) as client:
        while client.get("/health/ready").status_code != 200:
            time.sleep(0.05)
        app.state.lanes._pending = 10_000
        yield client


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_what_is_no_form_at_all_is_429_since_nobody_has_looked(
    full: httpx.Client, path: str
) -> None:
    answer = full.post(path, content=b"no form", headers=HEADERS)
    assert "10,000 pictures are waiting" in check_problem(answer, 429)
    assert int(answer.headers["retry-after"]) >= 1
    assert "connection" not in answer.headers
    labels = f'method="POST",route="{path}",status="429"'
    assert f"mnn_requests_total{{{labels}}}" in full.get("/metrics").text


def test_a_large_body_is_read_and_its_connection_goes_on(full: httpx.Client) -> None:
    with httpx.Client(base_url=full.base_url, limits=httpx.Limits(max_connections=1)) as client:
        for _ in range(3):
            check_problem(client.post("/predict", files={"file": bytes(2 * MIB)}), 429)


def test_a_body_that_is_too_large_or_too_slow_is_told_so_all_the_same(full: httpx.Client) -> None:
    check_problem(full.post("/predict", files={"file": bytes(4 * MIB)}), 413)

    def stalling() -> Iterator[bytes]:
        yield part(b"x")
        time.sleep(1.5)
        yield b"--" + BOUNDARY + b"--"

    check_problem(full.post("/predict", content=stalling(), headers=HEADERS), 408)


def test_a_client_that_asks_first_is_turned_away_before_it_sends(full: httpx.Client) -> None:
    answer = full.post("/predict", files={"file": BLANK}, headers={"Expect": "100-continue"})
    check_problem(answer, 429)
    assert answer.headers["connection"] == "close"


def test_everything_else_is_answered_as_ever(full: httpx.Client) -> None:
    for path in ("/health/live", "/health/ready", "/model"):
        assert full.get(path).status_code == 200
    check_problem(full.get("/predict"), 405)
    check_problem(full.post("/predict/nothing", content=b""), 404)

"""`GET /metrics`: the counts agree with what happened."""

import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from PIL import Image

from tests.support.images import encoded
from tests.support.service.metrics import counted, metric_value, read_metrics
from tests.support.service.server import Server


@pytest.fixture
def asked(small_server: Server) -> Iterator[httpx.Client]:
    """A client of a service that nothing else asks meanwhile."""
    with small_server.client() as client:
        yield client


def test_answers_are_counted_timed_and_described(asked: httpx.Client, seven_png: bytes) -> None:
    with counted(asked) as growth:
        answer = asked.post("/predict", files={"file": seven_png}).json()
        files = [("files", seven_png), ("files", b"none")]
        batch = asked.post("/predict/batch", files=files).json()
        assert "error" in batch["results"][1]
    requests = "mnn_requests_total"
    assert metric_value(growth, requests, route="/predict", method="POST", status="200") == 1
    assert metric_value(growth, requests, route="/predict/batch", method="POST", status="200") == 1
    # A worker thread took three images and answered two.
    assert metric_value(growth, "mnn_queue_wait_seconds_count") == 3
    assert metric_value(growth, "mnn_compute_seconds_count") == 3
    assert metric_value(growth, "mnn_compute_seconds_sum") > 0
    assert metric_value(growth, "mnn_predictive_entropy_nats_count") == 2
    entropy = answer["uncertainty"]["predictive_entropy"]
    summed = metric_value(growth, "mnn_predictive_entropy_nats_sum")
    assert summed == pytest.approx(2 * entropy, abs=1e-5)
    assert metric_value(growth, "mnn_decisions_total", decision=answer["decision"]) == 2
    samples = read_metrics(asked)
    assert metric_value(samples, "mnn_pending_images") == 0
    assert metric_value(samples, "mnn_ready") == 1
    labels = {"version": asked.get("/model").json()["version"], "source": "shipped"}
    assert metric_value(samples, "mnn_model_info", name="digits", **labels) == 1
    assert metric_value(samples, "process_resident_memory_bytes") > 10e6


def test_the_time_of_a_worker_is_counted_once_for_a_whole_batch(
    shared_server: Callable[..., Server], seven_png: bytes
) -> None:
    files = [("files", seven_png)] * 64
    server = shared_server(device="cpu", worker_threads=1)
    with server.client() as client, counted(client) as growth:
        began = time.monotonic()
        for _ in range(5):
            assert client.post("/predict/batch", files=files).status_code == 200
        seconds = time.monotonic() - began
    busy = metric_value(growth, "mnn_worker_busy_seconds_total")
    # Each of eight images that are computed together takes the time of all eight.
    assert 0.5 * metric_value(growth, "mnn_compute_seconds_sum") > busy > 0
    assert busy <= seconds


def test_reviews_are_counted_by_reason(asked: httpx.Client) -> None:
    blank = encoded(Image.new("L", (28, 28), 255))
    with counted(asked) as growth:
        reasons = asked.post("/predict", files={"file": blank}).json()["reasons"]
    assert "no_ink" in reasons
    assert metric_value(growth, "mnn_decisions_total", decision="review") == 1
    for reason in reasons:
        assert metric_value(growth, "mnn_review_reasons_total", reason=reason) == 1


def test_rejections_are_counted_by_reason(asked: httpx.Client) -> None:
    with counted(asked) as growth:
        asked.post("/predict", files={"file": b"no image"})
        asked.post("/predict", files={"file": b"0" * (11 * 2**20)})
        asked.post("/predict?level=2", files={"file": b"x"})
    for reason in ("unsupported_format", "too_large", "invalid_input"):
        assert metric_value(growth, "mnn_rejections_total", reason=reason) == 1, reason
    assert metric_value(growth, "mnn_rejections_total", reason="queue_full") == 0
    labels = {"route": "/predict", "method": "POST", "status": "413"}
    assert metric_value(growth, "mnn_requests_total", **labels) == 1


def test_paths_and_methods_of_clients_make_no_series_of_their_own(asked: httpx.Client) -> None:
    with counted(asked) as growth:
        for path in ("/nothing", "/nothing/else", "/web/none"):
            asked.get(path)
        asked.request("PROPFIND", "/predict")
    series = [
        dict(labels) for (name, labels), n in growth.items() if name == "mnn_requests_total" and n
    ]
    assert {labels["route"] for labels in series} == {"none", "/web/{path}", "/predict", "/metrics"}
    assert {labels["method"] for labels in series} == {"GET", "other"}


@pytest.mark.parametrize(
    "accepted",
    ["application/openmetrics-text; version=x", "text/plain; version=1.x, */*", ";=,;version", ""],
)
def test_any_other_accept_header_gets_text(asked: httpx.Client, accepted: str) -> None:
    answer = asked.get("/metrics", headers={"Accept": accepted})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "mnn_requests_total" in answer.text

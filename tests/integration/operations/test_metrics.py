"""`GET /metrics`: what Prometheus reads is what happened."""

import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.support.images import encoded
from tests.support.server import Server

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def asked(make_server: Callable[..., Server]) -> Iterator[httpx.Client]:
    """A service that nobody has asked anything yet."""
    with make_server(device="cpu", draws=40).client() as client:
        yield client


def read(client: httpx.Client) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, metric: str, /, **labels: str) -> float:
    return samples.get((metric, frozenset(labels.items())), 0.0)


def test_answers_are_counted_timed_and_described(asked: httpx.Client, seven_png: bytes) -> None:
    answer = asked.post("/predict", files={"file": seven_png}).json()
    batch = asked.post("/predict/batch", files=[("files", seven_png), ("files", b"none")]).json()
    assert "error" in batch["results"][1]
    samples = read(asked)
    requests = "mnn_requests_total"
    assert value(samples, requests, route="/predict", method="POST", status="200") == 1
    assert value(samples, requests, route="/predict/batch", method="POST", status="200") == 1
    # Three pictures were taken by a lane, two were answered.
    assert value(samples, "mnn_queue_wait_seconds_count") == 3
    assert value(samples, "mnn_compute_seconds_count") == 3
    assert value(samples, "mnn_compute_seconds_sum") > 0
    assert value(samples, "mnn_predictive_entropy_nats_count") == 2
    entropy = answer["uncertainty"]["predictive_entropy"]
    assert value(samples, "mnn_predictive_entropy_nats_sum") == pytest.approx(2 * entropy, abs=1e-5)
    assert value(samples, "mnn_decisions_total", decision=answer["decision"]) == 2
    assert value(samples, "mnn_pending_pictures") == 0
    assert value(samples, "mnn_ready") == 1
    version = asked.get("/model").json()["version"]
    assert value(samples, "mnn_model_info", name="digits", version=version, source="shipped") == 1
    assert value(samples, "process_resident_memory_bytes") > 10e6


def test_a_lanes_time_is_counted_once_however_many_pictures_it_takes(
    make_server: Callable[..., Server], seven_png: bytes
) -> None:
    batch = [("files", seven_png)] * 64
    with make_server(device="cpu", lanes=1).client() as client:
        began = time.monotonic()
        for _ in range(5):
            assert client.post("/predict/batch", files=batch).status_code == 200
        seconds = time.monotonic() - began
        samples = read(client)
    busy = value(samples, "mnn_lane_busy_seconds_total")
    # Each of eight that are taken together was worked on for all of the time that they took.
    assert 0.5 * value(samples, "mnn_compute_seconds_sum") > busy > 0
    assert busy <= seconds


def test_reviews_are_counted_by_reason(asked: httpx.Client) -> None:
    blank = encoded(Image.new("L", (28, 28), 255))
    reasons = asked.post("/predict", files={"file": blank}).json()["reasons"]
    assert "no_ink" in reasons
    samples = read(asked)
    assert value(samples, "mnn_decisions_total", decision="review") == 1
    for reason in reasons:
        assert value(samples, "mnn_review_reasons_total", reason=reason) == 1


def test_rejections_are_counted_by_reason(asked: httpx.Client) -> None:
    asked.post("/predict", files={"file": b"no picture"})
    asked.post("/predict", files={"file": b"0" * (11 * 2**20)})
    asked.post("/predict?level=2", files={"file": b"x"})
    samples = read(asked)
    for reason in ("not_a_picture", "too_large", "unreadable"):
        assert value(samples, "mnn_rejections_total", reason=reason) == 1, reason
    assert value(samples, "mnn_rejections_total", reason="queue_full") == 0
    assert value(samples, "mnn_requests_total", route="/predict", method="POST", status="413") == 1


def test_what_clients_make_up_makes_no_series_of_its_own(asked: httpx.Client) -> None:
    for path in ("/nothing", "/nothing/else", "/web/none"):
        asked.get(path)
    asked.request("PROPFIND", "/predict")
    samples = read(asked)
    found = {dict(labels)["route"] for name, labels in samples if name == "mnn_requests_total"}
    assert found == {"none", "/web/{name}", "/predict", "/health/ready"}
    methods = {dict(labels)["method"] for name, labels in samples if name == "mnn_requests_total"}
    assert methods == {"GET", "other"}


@pytest.mark.parametrize(
    "accepted",
    ["application/openmetrics-text; version=x", "text/plain; version=1.x, */*", ";=,;version", ""],
)
def test_whatever_is_accepted_gets_text(asked: httpx.Client, accepted: str) -> None:
    answer = asked.get("/metrics", headers={"Accept": accepted})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "mnn_requests_total" in answer.text


def test_openmetrics_is_given_to_who_asks_for_it(asked: httpx.Client) -> None:
    answer = asked.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")

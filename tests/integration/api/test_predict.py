"""`POST /predict`: the answer's fields and numbers, alone and beside other requests."""

import base64
import io
import math
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support.images import drawn_seven, encoded, sample_images
from tests.support.service.problems import TIMING, check_problem

FIELDS = {
    "prediction": str,
    "probability": float,
    "decision": str,
    "reasons": list,
    "calibrated": bool,
    "classes": list,
    "not_a_digit": dict,
    "uncertainty": dict,
    "prediction_set": list,
    "samples": int,
    "level": float,
    "model": dict,
    "preview": type(None),
    "draws": type(None),
}
MEASURES = ("predictive_entropy", "expected_entropy", "mutual_information")


IMAGES = sample_images()


def ask(client: httpx.Client, image: bytes, **query: Any) -> dict[str, Any]:
    answer = client.post("/predict", files={"file": image}, params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def numbers(body: dict[str, Any], field: str) -> np.ndarray:
    return np.array([entry[field] for entry in body["classes"]])


def test_the_seven_is_read_and_accepted(client: httpx.Client, seven_png: bytes) -> None:
    answer = client.post("/predict", files={"file": seven_png})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["prediction"] == "7"
    assert body["probability"] > 0.9
    assert (body["decision"], body["reasons"]) == ("accept", [])
    assert body["samples"] == 100
    assert body["level"] == 0.95


@pytest.mark.parametrize("name", IMAGES)
def test_every_field_has_its_type_and_range(client: httpx.Client, name: str) -> None:
    body = ask(client, IMAGES[name])
    assert {name: type(value) for name, value in body.items()} == FIELDS
    assert body["decision"] == ("review" if body["reasons"] else "accept")
    assert [entry["label"] for entry in body["classes"]] == list("0123456789")
    for entry in body["classes"]:
        assert set(entry) == {"label", "probability", "lower", "upper", "std"}
        assert 0 <= entry["lower"] <= entry["upper"] <= 1
        assert 0 <= entry["probability"] <= 1
        assert 0 <= entry["std"] <= 0.5
    other = body["not_a_digit"]
    assert set(other) == {"probability", "lower", "upper", "std"}
    assert 0 <= other["lower"] <= other["upper"] <= 1
    assert 0 <= other["probability"] <= 1
    assert 0 <= other["std"] <= 0.5
    assert set(body["uncertainty"]) == set(MEASURES)
    assert all(0 <= value <= math.log(10) for value in body["uncertainty"].values())
    assert body["prediction"] in body["prediction_set"]
    assert set(body["model"]) == {"name", "version"}
    for number in [body["probability"], *body["uncertainty"].values()]:
        assert number == round(number, 6)


@pytest.mark.parametrize("name", IMAGES)
def test_the_numbers_agree_with_each_other(client: httpx.Client, name: str) -> None:
    body = ask(client, IMAGES[name])
    probability = numbers(body, "probability")
    total, expected, mutual = (body["uncertainty"][name] for name in MEASURES)
    assert abs(probability.sum() - 1) < 1e-5
    assert abs(total - expected - mutual) < 1e-5
    assert body["prediction"] == body["classes"][probability.argmax()]["label"]
    assert body["probability"] == probability.max()


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_the_numbers_follow_from_the_draws(client: httpx.Client, level: float) -> None:
    body = ask(client, IMAGES["no digit"], draws=True, level=level)
    draws = np.array(body["draws"])
    assert draws.shape == (100, 10)
    np.testing.assert_allclose(draws.sum(1), 1, atol=1e-3)
    assert np.array_equal(draws, draws.round(4))
    lower, upper = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    np.testing.assert_allclose(draws.mean(0), numbers(body, "probability"), atol=1e-4)
    np.testing.assert_allclose(draws.std(0), numbers(body, "std"), atol=2e-4)
    np.testing.assert_allclose(lower, numbers(body, "lower"), atol=2e-4)
    np.testing.assert_allclose(upper, numbers(body, "upper"), atol=2e-4)
    logs = np.log(np.maximum(draws, 1e-12))
    expected = -(draws * logs).sum(1).mean()
    mean = numbers(body, "probability")
    total = -(mean * np.log(np.maximum(mean, 1e-12))).sum()
    assert body["uncertainty"]["expected_entropy"] == pytest.approx(expected, abs=5e-3)
    assert body["uncertainty"]["predictive_entropy"] == pytest.approx(total, abs=1e-4)
    assert numbers(body, "std").max() > 0.01  # the draws disagree, so the check means something


def test_a_wider_level_gives_wider_intervals(client: httpx.Client) -> None:
    answers = [ask(client, IMAGES["no digit"], level=level) for level in (0.5, 0.8, 0.98)]
    widths = [numbers(body, "upper") - numbers(body, "lower") for body in answers]
    assert [body["level"] for body in answers] == [0.5, 0.8, 0.98]
    assert (widths[0] <= widths[1]).all()
    assert (widths[1] <= widths[2]).all()
    assert widths[0].sum() < widths[1].sum() < widths[2].sum()


def test_fewer_samples_are_the_first_of_the_draws(client: httpx.Client) -> None:
    few = ask(client, IMAGES["no digit"], samples=50, draws=True)
    all_ = ask(client, IMAGES["no digit"], draws=True)
    assert few["samples"] == len(few["draws"]) == 50
    np.testing.assert_allclose(few["draws"], all_["draws"][:50], atol=1.01e-4)  # one rounding
    assert few["classes"] != all_["classes"]


def test_only_the_calibrated_number_of_draws_carries_the_guarantee(
    client: httpx.Client, seven_png: bytes
) -> None:
    assert ask(client, seven_png)["calibrated"] is True
    assert ask(client, seven_png, samples=100)["calibrated"] is True
    assert ask(client, seven_png, level=0.5)["calibrated"] is True
    assert ask(client, seven_png, samples=50)["calibrated"] is False


def test_the_preview_is_what_the_network_saw(client: httpx.Client, seven_png: bytes) -> None:
    start, data = ask(client, seven_png, preview=True)["preview"].split(",")
    assert start == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as preview:
        assert (preview.format, preview.mode, preview.size) == ("PNG", "L", (28, 28))
        pixels = np.asarray(preview)
    assert pixels.max() == 255  # the foreground is high ...
    assert pixels[:, 0].max() == 0  # ... on a background of 0
    assert pixels[4:14].sum() > pixels[14:24].sum()  # a seven has its bar above


@pytest.mark.parametrize("paper", [0, 128, 255])
def test_a_blank_image_asks_for_review(client: httpx.Client, paper: int) -> None:
    body = ask(client, encoded(Image.new("L", (100, 60), paper)))
    assert body["decision"] == "review"
    assert "no_ink" in body["reasons"]


def test_several_shapes_and_blots_ask_for_review(client: httpx.Client) -> None:
    two = Image.new("L", (400, 200), 240)
    two.paste(drawn_seven(), (0, 0))
    two.paste(drawn_seven(), (200, 0))
    blot = Image.new("L", (200, 200), 240)
    blot.paste(10, (50, 50, 150, 160))
    for image, reason in ((two, "several_shapes"), (blot, "not_digit_shaped")):
        body = client.post("/predict", files={"file": encoded(image)}).json()
        assert body["decision"] == "review"
        assert reason in body["reasons"]


def test_an_image_of_no_digit_asks_for_review(client: httpx.Client) -> None:
    body = ask(client, IMAGES["no digit"])
    assert body["decision"] == "review"
    assert "unlike_training" in body["reasons"]
    assert body["not_a_digit"]["probability"] > 0.5


def test_the_same_request_gives_the_same_bytes(client: httpx.Client) -> None:
    query = {"samples": 60, "level": 0.9, "draws": True, "preview": True}
    files = {"file": IMAGES["no digit"]}
    first, second = (client.post("/predict", files=files, params=query) for _ in range(2))
    assert first.status_code == 200
    assert first.content == second.content


@pytest.mark.not_through_ray("its load needs more than a replica of one CPU")
def test_answers_beside_other_requests_are_the_same_bytes_as_alone(client: httpx.Client) -> None:
    queries: list[dict[str, Any]] = [
        {},
        {"samples": 50},
        {"samples": 4, "level": 0.5},
        {"level": 0.8, "draws": True},
        {"samples": 77, "preview": True},
    ]
    images = [*IMAGES.values(), encoded(drawn_seven(60, ink=250, paper=5), "JPEG")]
    requests = [(image, query) for image in images for query in queries] * 2

    def send(request: tuple[bytes, dict[str, Any]]) -> bytes:
        answer = client.post("/predict", files={"file": request[0]}, params=request[1])
        assert answer.status_code == 200
        return answer.content

    alone = [send(request) for request in requests]
    order = random.Random(0).sample(range(len(requests)), len(requests))
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(send, [requests[i] for i in order]))
    assert together == [alone[i] for i in order]
    assert len(set(alone)) == len(images) * len(queries)


@pytest.mark.parametrize("request_id", ["a", "abc-123_X.y", "0" * 64])
def test_a_sane_request_id_is_echoed(
    client: httpx.Client, seven_png: bytes, request_id: str
) -> None:
    headers = {"X-Request-ID": request_id}
    answer = client.post("/predict", files={"file": seven_png}, headers=headers)
    assert answer.headers["x-request-id"] == request_id
    refused = client.post("/predict", files={"file": b"text"}, headers=headers)
    check_problem(refused, 415)
    assert refused.json()["request_id"] == request_id


@pytest.mark.not_through_ray("Ray's proxy repeats the client's ID beside that of the service")
@pytest.mark.parametrize(
    "request_id", ["", "0" * 65, "a b", "a;b", '"<script>"', "é".encode(), "{%0a}", "a/../b"]
)
def test_any_other_request_id_is_replaced(client: httpx.Client, request_id: str | bytes) -> None:
    headers = {"X-Request-ID": request_id}
    given = [
        client.get("/health/live", headers=headers),  # type: ignore[arg-type]
        client.post("/predict", headers=headers),  # type: ignore[arg-type]
    ]
    check_problem(given[1], 422)
    ids = [answer.headers["x-request-id"] for answer in given]
    assert ids[0] != ids[1]
    assert all(len(made) == 32 and made.isalnum() for made in ids)


def test_server_timing_says_where_the_time_of_an_answer_went(
    client: httpx.Client, seven_png: bytes
) -> None:
    answer = client.post("/predict", files={"file": seven_png})
    times = TIMING.fullmatch(answer.headers["server-timing"])
    assert times
    queue_ms, compute_ms, total_ms = map(float, times.groups())
    assert compute_ms > 0
    assert queue_ms + compute_ms <= total_ms + 0.1  # each is rounded

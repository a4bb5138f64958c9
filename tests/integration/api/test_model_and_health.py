"""`GET /model` and the health probes, also while the service starts."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from model import save_checkpoint
from tests.support.checkpoints import tiny_checkpoint
from tests.support.service.problems import check_problem
from tests.support.service.server import Server

ABSENT = "weights-that-are-not-there.safetensors"


@pytest.fixture(scope="module")
def starting(make_server: Callable[..., Server], seven_png: bytes) -> tuple[Server, Any]:
    """A service whose checkpoint is missing, with many draws so that loading takes a while.

    Returns:
        The service, ready, and its answers until then: (name, answer).
    """
    server = make_server(ready=False, draws=400, checkpoint=ABSENT)
    answers: list[tuple[str, httpx.Response]] = []
    deadline = time.monotonic() + 60
    with server.client() as client:
        while not (answers and answers[-1][0] == "ready" and answers[-1][1].status_code == 200):
            assert time.monotonic() < deadline, server.log.read_text()
            try:
                answers.append(("live", client.get("/health/live")))
                answers.append(("model", client.get("/model")))
                answers.append(("predict", client.post("/predict", files={"file": seven_png})))
                answers.append(("ready", client.get("/health/ready")))
            except httpx.ConnectError:
                time.sleep(0.02)  # not listening yet
    return server, answers


@pytest.fixture(scope="module")
def from_file(make_server: Callable[..., Server], tmp_path_factory: Any) -> Server:
    """A service of a small checkpoint in a file."""
    path: Path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(tiny_checkpoint(), path)
    return make_server(checkpoint=path, draws=40)


def described(server: Server) -> dict[str, Any]:
    with server.client() as client:
        answer = client.get("/model")
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


def answered(server: Server, image: bytes, **query: Any) -> dict[str, Any]:
    with server.client() as client:
        answer = client.post("/predict", files={"file": image}, params=query)
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


# The model


def test_the_description_is_complete(server: Server) -> None:
    body = described(server)
    assert body["name"] == "digits"
    assert re.fullmatch(r"[0-9a-f]{12}", body["version"])
    assert body["source"] == "shipped"
    assert body["labels"] == list("0123456789")
    assert "28x28" in body["input_contract"]
    assert body["draws"] == 100
    assert body["draws_reproduced"] is True
    assert type(body["seed"]) is int
    assert body["parameters"] > 10_000
    assert 0.1 < body["mflop_per_draw"] < 100
    assert body["device"] in ("cpu", "cuda")
    assert body["engine"]
    assert body["worker_threads"] >= 1


def test_the_description_states_the_rules_and_their_population(server: Server) -> None:
    decision, conformal = described(server)["decision"], described(server)["conformal"]
    assert 0 < decision["target"] < 0.1
    assert 0.5 < decision["confidence"] < 1
    assert decision["n_calibration"] >= 1000
    assert decision["n_draws"] == 100
    assert "MNIST" in decision["population"]
    assert decision["population"] in decision["guarantee"]
    assert 0.5 < conformal["coverage"] < 1
    assert conformal["n_calibration"] >= 1000


def test_the_description_states_held_out_metrics_with_their_n(server: Server) -> None:
    metrics = described(server)["metrics"]
    assert metrics["test"]["n"] == 10_000
    assert 0 < metrics["test"]["error"] < 0.02
    out_of_distribution = metrics.pop("foreign")
    for group in metrics.values():
        assert group["n"] > 0
        assert {"error", "nll", "brier_score", "calibration_error"} <= group.keys()
    for group in out_of_distribution.values():
        assert group["n"] > 0
        assert {"accepted", "unlike_training", "auroc"} <= group.keys()


def test_the_description_states_how_the_model_was_trained(server: Server) -> None:
    training = described(server)["training"]
    assert training["data"]["fit"]["n"] > 10_000
    assert re.fullmatch(r"[0-9a-f]{64}", training["data"]["fit"]["sha256"])
    assert re.fullmatch(r"[0-9a-f]{64}", training["data"]["test_sha256"])
    assert re.match(r"\d{4}-\d\d-\d\dT", training["created"])


def test_answers_name_their_model(server: Server, seven_png: bytes) -> None:
    body = described(server)
    assert answered(server, seven_png)["model"] == {
        "name": body["name"],
        "version": body["version"],
    }


@pytest.mark.not_through_ray("it compares two services by turns")
def test_more_draws_are_another_version_that_starts_with_the_same_draws(
    server: Server, starting: tuple[Server, Any], seven_png: bytes
) -> None:
    many, _ = starting
    assert described(many)["draws"] == 400
    assert described(many)["version"] != described(server)["version"]
    assert answered(many, seven_png)["calibrated"] is False
    first, same = answered(many, seven_png, samples=100), answered(server, seven_png)
    assert first["calibrated"] is True
    for mine, other in zip(first["classes"], same["classes"], strict=True):
        assert mine == pytest.approx(other, abs=1e-5)


@pytest.mark.not_through_ray("on Ray, MNN_CHECKPOINT has no effect; test_ray.py rolls files out")
def test_a_checkpoint_in_a_file_is_served(
    from_file: Server, server: Server, seven_png: bytes
) -> None:
    body = described(from_file)
    assert body["source"] == "file"
    assert body["parameters"] < 10_000
    assert body["decision"]["population"] == "nothing in particular"
    assert body["metrics"] == {"test": {"n": 10, "error": 0.5}}
    assert body["version"] != described(server)["version"]
    answer = answered(from_file, seven_png, level=0.95)  # the most that 40 draws allow
    assert answer["model"]["version"] == body["version"]
    assert answer["samples"] == 40
    with from_file.client() as client:
        refused = client.post("/predict?samples=41&level=0.9", files={"file": seven_png})
    assert "40" in check_problem(refused, 422)


@pytest.mark.not_through_ray("it changes the process's environment")
def test_without_torch_it_serves_the_same(
    make_server: Callable[..., Server],
    server: Server,
    seven_png: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('made unimportable')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    without = make_server()
    assert described(without)["engine"] == "onnxruntime"
    assert answered(without, seven_png) == answered(server, seven_png)


@pytest.mark.not_through_ray("it reads the log of a process")
def test_without_the_named_checkpoint_the_bundled_weights_are_served_with_a_warning(
    starting: tuple[Server, Any], server: Server
) -> None:
    without, _ = starting
    assert described(without)["source"] == "shipped"
    warnings = [line["message"] for line in without.logged() if line["level"] == "warning"]
    assert any(ABSENT in line and "bundled" in line for line in warnings)
    assert "does not exist" not in server.log.read_text()  # that one names none


# Health


def test_a_started_service_is_live_and_ready(client: httpx.Client) -> None:
    for state in ("live", "ready"):
        answer = client.get(f"/health/{state}")
        assert answer.status_code == 200
        assert answer.json() == {"status": state}
        assert answer.headers["x-request-id"]
        assert "total;dur=" in answer.headers["server-timing"]


@pytest.mark.not_through_ray("Ray sends nothing to a replica that is starting")
def test_while_it_starts_it_is_live_and_the_rest_is_503(
    starting: tuple[Server, Any],
) -> None:
    _, answers = starting
    assert {path for path, answer in answers if answer.status_code == 503} == {
        "ready",
        "model",
        "predict",
    }
    for path, answer in answers:
        if path == "live":
            assert answer.status_code == 200
        elif answer.status_code != 200:
            check_problem(answer, 503)
            assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.not_through_ray("Ray sends nothing to a replica that is starting")
def test_once_ready_it_stays_ready(starting: tuple[Server, Any]) -> None:
    _, answers = starting
    for path in ("ready", "model", "predict"):
        statuses = [answer.status_code for name, answer in answers if name == path]
        assert statuses == sorted(statuses, reverse=True)

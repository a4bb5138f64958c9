"""Have the service answer for its own document: `python -m docs.make_examples`.

It writes `service/examples.json`, the examples of the OpenAPI document, with what a service with
the shipped weights and default settings answers. `make pictures` runs it.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "service" / "examples.json"
PICTURES = ROOT / "docs" / "examples"
REPORT_BEGINS = 15  # characters of it in the example

Json = dict[str, Any]


def main() -> None:
    with started() as client:
        found = answers(client)
    EXAMPLES.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    print(f"{EXAMPLES.relative_to(ROOT)}: {len(found)} operations")


@contextmanager
def started() -> Iterator[httpx.Client]:
    """A client of a service that is started for it and ended after."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MNN_")}
    environment = {**inherited, "MNN_PORT": str(port), "MNN_DEVICE": "cpu"}
    # In an empty folder: no checkpoint of the developer's is picked up.
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([sys.executable, "-m", "service"], env=environment, cwd=folder)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                wait_until_ready(client)
                yield client
        finally:
            process.terminate()
            process.wait()


def wait_until_ready(client: httpx.Client) -> None:
    for _ in range(300):
        try:
            if client.get("/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        time.sleep(0.1)
    sys.exit("error: the service did not become ready")


def answers(client: httpx.Client) -> Json:
    """The examples by operation, status, media type and name."""
    model = client.get("/model").json()
    taken = {key: model[key] for key in ("name", "version")}
    report = client.get("/model/report").text[:REPORT_BEGINS]
    return {
        "POST /predict": success(
            accepted=("A drawn seven", ask(client)),
            review=("A letter, which a person should look at", ask(client, "letter.png")),
            everything=(
                "The seven with all that can be asked for, of four draws",
                ask(client, samples=4, level=0.5, preview=True, draws=True),
            ),
        ),
        "POST /predict/batch": success(mixed=("A seven, and a text", ask_batch(client))),
        "GET /model": success(shipped=("The shipped model, its figures cut short", brief(model))),
        "POST /model/reload": success(taken=("A checkpoint was taken", taken)),
        "GET /model/report": success("text/html", report=("Its beginning", report)),
        "GET /metrics": success("text/plain", model=("Some of its lines", some_metrics(client))),
        "GET /health/live": success(live=("It runs", client.get("/health/live").json())),
        "GET /health/ready": success(ready=("It is warm", client.get("/health/ready").json())),
        **inference_answers(client, f"/v2/models/{model['name']}", model["version"]),
    }


def inference_answers(client: httpx.Client, model: str, version: str) -> Json:
    """The same for the Open Inference Protocol."""

    def found(path: str) -> Json:
        return success(found=("What is found", client.get(path).json()))

    asked = json.loads((PICTURES / "infer.json").read_text())
    inferred = client.post(f"{model}/infer", json=asked).raise_for_status().json()
    answers = {
        "GET /v2": found("/v2"),
        "GET /v2/health/live": found("/v2/health/live"),
        "GET /v2/health/ready": found("/v2/health/ready"),
    }
    for declared in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        path = declared.format(name=model.rpartition("/")[2], version=version)
        answers |= {
            f"GET {declared}": found(path),
            f"GET {declared}/ready": found(f"{path}/ready"),
            f"POST {declared}/infer": success(seven=("Three outputs for a seven", inferred)),
        }
    return answers


def success(media_type: str = "application/json", **examples: tuple[str, Any]) -> Json:
    """Examples of an answer with status 200, each with its summary."""
    named = {name: {"summary": told, "value": value} for name, (told, value) in examples.items()}
    return {"200": {media_type: named}}


def ask(client: httpx.Client, name: str = "seven.png", **query: Any) -> Json:
    answer = client.post("/predict", params=query, files={"file": (PICTURES / name).read_bytes()})
    body: Json = answer.raise_for_status().json()
    return body


def ask_batch(client: httpx.Client) -> Json:
    files = [("files", (PICTURES / "seven.png").read_bytes()), ("files", b"This is a seven.")]
    answer = client.post("/predict/batch", files=files, headers={"X-Request-ID": "form-17"})
    body: Json = answer.raise_for_status().json()
    return body


def brief(model: Json) -> Json:
    """What `GET /model` says, with some of the figures alone: all of them are three pages."""
    test = {key: model["metrics"]["test"][key] for key in ("n", "error", "nll", "brier_score")}
    training = {key: model["training"][key] for key in ("dataset", "created")}
    return {**model, "metrics": {"test": test}, "training": training}


def some_metrics(client: httpx.Client) -> str:
    lines = client.get("/metrics").text.splitlines()
    return "\n".join(line for line in lines if "mnn_model_info" in line) + "\n"


if __name__ == "__main__":
    main()

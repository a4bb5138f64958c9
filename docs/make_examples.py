"""Record the examples of the OpenAPI document: `python -m docs.make_examples`.

It starts a service with the bundled weights and default settings, and writes its answers to
`service/api/examples.json`. `make images` runs it.
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
EXAMPLES = ROOT / "service" / "api" / "examples.json"
IMAGES = ROOT / "docs" / "examples"
REPORT_CHARACTERS = 15  # of the report, in its example

Json = dict[str, Any]


def main() -> None:
    """Start a service, record its answers and write them."""
    with running_service() as client:
        recorded = record(client)
    EXAMPLES.write_text(json.dumps(recorded, ensure_ascii=False, indent=1) + "\n")
    print(f"{EXAMPLES.relative_to(ROOT)}: {len(recorded)} operations")


@contextmanager
def running_service() -> Iterator[httpx.Client]:
    """Start a service, yield a client of it, and stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MNN_")}
    environment = {**inherited, "MNN_PORT": str(port), "MNN_DEVICE": "cpu"}
    # An empty working folder, so that it finds no checkpoint of the developer's.
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


def record(client: httpx.Client) -> Json:
    """Return the examples by operation, status, media type and name."""
    model = client.get("/model").json()
    reloaded = {key: model[key] for key in ("name", "version")}
    report = client.get("/model/report").text[:REPORT_CHARACTERS]
    return {
        "POST /predict": success(
            accepted=("A drawn seven", predict(client)),
            review=("A letter, which a person should look at", predict(client, "letter.png")),
            everything=(
                "The seven with every option, from four draws",
                predict(client, samples=4, level=0.5, preview=True, draws=True),
            ),
        ),
        "POST /predict/batch": success(mixed=("A seven, and a text file", predict_batch(client))),
        "GET /model": success(shipped=("The bundled model, with a few metrics", shortened(model))),
        "POST /model/reload": success(reloaded=("The checkpoint is in service", reloaded)),
        "GET /model/report": success("text/html", report=("Its first characters", report)),
        "GET /metrics": success("text/plain", model=("Some of its lines", model_metrics(client))),
        "GET /health/live": success(live=("The process runs", client.get("/health/live").json())),
        "GET /health/ready": success(
            ready=("The model is warm", client.get("/health/ready").json())
        ),
        **record_inference(client, f"/v2/models/{model['name']}", model["version"]),
    }


def record_inference(client: httpx.Client, model: str, version: str) -> Json:
    """Return the same for the Open Inference Protocol."""

    def answer(path: str) -> Json:
        return success(answer=("The answer", client.get(path).json()))

    request = json.loads((IMAGES / "infer.json").read_text())
    inferred = client.post(f"{model}/infer", json=request).raise_for_status().json()
    answers = {
        "GET /v2": answer("/v2"),
        "GET /v2/health/live": answer("/v2/health/live"),
        "GET /v2/health/ready": answer("/v2/health/ready"),
    }
    for declared in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        path = declared.format(name=model.rpartition("/")[2], version=version)
        answers |= {
            f"GET {declared}": answer(path),
            f"GET {declared}/ready": answer(f"{path}/ready"),
            f"POST {declared}/infer": success(seven=("Three outputs for a seven", inferred)),
        }
    return answers


def success(media_type: str = "application/json", **examples: tuple[str, Any]) -> Json:
    """Return examples of an answer with status 200, each with its summary."""
    named = {name: {"summary": text, "value": value} for name, (text, value) in examples.items()}
    return {"200": {media_type: named}}


def predict(client: httpx.Client, name: str = "seven.png", **query: Any) -> Json:
    answer = client.post("/predict", params=query, files={"file": (IMAGES / name).read_bytes()})
    body: Json = answer.raise_for_status().json()
    return body


def predict_batch(client: httpx.Client) -> Json:
    files = [("files", (IMAGES / "seven.png").read_bytes()), ("files", b"This is a seven.")]
    answer = client.post("/predict/batch", files=files, headers={"X-Request-ID": "form-17"})
    body: Json = answer.raise_for_status().json()
    return body


def shortened(model: Json) -> Json:
    """Keep a few of the metrics in `GET /model`: all of them fill three pages."""
    test = {key: model["metrics"]["test"][key] for key in ("n", "error", "nll", "brier_score")}
    training = {key: model["training"][key] for key in ("dataset", "created")}
    return {**model, "metrics": {"test": test}, "training": training}


def model_metrics(client: httpx.Client) -> str:
    lines = client.get("/metrics").text.splitlines()
    return "\n".join(line for line in lines if "mnn_model_info" in line) + "\n"


if __name__ == "__main__":
    main()

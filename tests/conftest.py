"""Fixtures that several rooms share: data, pictures, checkpoints and a running service."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image, ImageDraw

from model import Checkpoint, ConformalRule, Conv, ModelConfig, SelectiveRule
from model.posterior import Posterior

ROOT = Path(__file__).parent.parent
TINY = ModelConfig(convs=(Conv(2, 5, pool=True), Conv(3, 3, pool=True)), hidden=(6,))


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """A torchvision root that holds the real MNIST; the test is skipped where there is none."""
    root = Path(os.environ.get("MNN_DATA_DIR") or ROOT / "data")
    if not list((root / "MNIST" / "raw").glob("t10k-images-idx3-ubyte*")):
        reason = f"MNIST is not under {root}: set MNN_DATA_DIR to a torchvision root that holds it"
        if os.environ.get("MNN_REQUIRE_MNIST"):
            pytest.fail(reason)
        pytest.skip(reason)
    return root


def tiny_posterior(config: ModelConfig = TINY, *, scale: float = 0.1, seed: int = 3) -> Posterior:
    """A posterior of random means for a network small enough to check by hand."""
    rng = np.random.default_rng(seed)
    shapes = config.parameter_shapes()
    return Posterior(
        config,
        mean={n: rng.normal(0, 0.3, s).astype(np.float32) for n, s in shapes.items()},
        scale={n: np.full(s, scale, np.float32) for n, s in shapes.items()},
        seed=seed,
    )


def tiny_checkpoint(
    config: ModelConfig = TINY, *, n_draws: int = 20, threshold: float = 2.0
) -> Checkpoint:
    """A checkpoint around `tiny_posterior`, with rules of round numbers."""
    posterior = tiny_posterior(config)
    return Checkpoint(
        name="digits",
        posterior=posterior,
        digest=posterior.digest(),
        selective=SelectiveRule(
            "predictive_entropy", threshold, 0.01, 0.95, 1000, n_draws, "nothing in particular"
        ),
        conformal=ConformalRule(0.9, 0.8, 1000),
        metrics={"test": {"n": 10, "error": 0.5}},
        training={"dataset": "none"},
    )


def spoil(path: Path, change: Callable[[dict[str, np.ndarray], dict[str, Any]], object]) -> None:
    """Change the tensors or the metadata of a checkpoint in place, behind the writer's back."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    encoded = json.loads(data[8 : 8 + size])["__metadata__"]
    metadata = {key: json.loads(value) for key, value in encoded.items()}
    tensors = {name: values.copy() for name, values in safetensors.numpy.load(data).items()}
    change(tensors, metadata)
    again = {key: json.dumps(value) for key, value in metadata.items()}
    path.write_bytes(safetensors.numpy.save(tensors, metadata=again))


def drawn_seven(size: int = 200, *, ink: int = 20, paper: int = 240) -> Image.Image:
    """A seven, drawn with two strokes, dark on light unless told otherwise."""
    picture = Image.new("L", (size, size), paper)
    points = [(0.27 * size, 0.23 * size), (0.73 * size, 0.23 * size), (0.45 * size, 0.82 * size)]
    ImageDraw.Draw(picture).line(points, fill=ink, width=max(1, size // 12), joint="curve")
    return picture


def encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """The picture as a file's bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def oriented(orientation: int) -> bytes:
    """The seven as a JPEG that a camera held otherwise has stored turned, with the EXIF tag."""
    turned_before_storing = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    picture = drawn_seven()
    if orientation in turned_before_storing:
        picture = picture.transpose(turned_before_storing[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture, "JPEG", exif=exif, quality=95)


@pytest.fixture(scope="session")
def seven_png() -> bytes:
    """A drawn seven as a PNG file."""
    return encoded(drawn_seven())


@dataclass
class Server:
    """A service running in a process of its own."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def client(self, **options: object) -> httpx.Client:
        """A client for this service."""
        return httpx.Client(base_url=self.url, timeout=30, **options)  # type: ignore[arg-type]

    def logged(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self) -> int:
        """Stop it as an operator would; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


def free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def service_environment(**settings: object) -> dict[str, str]:
    """This environment with the service's settings replaced by the given ones."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MNN_")}
    return {**inherited, **{f"MNN_{k.upper()}": str(v) for k, v in settings.items()}}


def start_service(log: Path, cwd: Path, **settings: object) -> Server:
    """Start `python -m service`, on a free port if none is named, without waiting for it.

    No proxy is waited for at its stop, unless `drain_wait_s` says so.
    """
    port = int(str(settings.pop("port", None) or free_port()))
    settings = {"drain_wait_s": 0, **settings}
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            env=service_environment(port=port, **settings),
            cwd=cwd,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )
    return Server(f"http://127.0.0.1:{port}", process, log)


def wait_until_ready(server: Server, timeout_s: float = 60) -> None:
    """Wait for readiness; fails with the service's own log."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            if httpx.get(f"{server.url}/health/ready", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail(f"the service did not become ready:\n{server.log.read_text()}")


@pytest.fixture(scope="session")
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start services with given settings: `make_server(queue=1)`; all are stopped at the end.

    They run in an empty folder, so that no checkpoint of the developer's is picked up.
    """
    started: list[Server] = []

    def make(*, ready: bool = True, **settings: object) -> Server:
        folder = tmp_path_factory.mktemp("service")
        server = start_service(folder / "log.txt", folder, **settings)
        started.append(server)
        if ready:
            wait_until_ready(server)
        return server

    yield make
    for server in started:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="session")
def server(make_server: Callable[..., Server]) -> Server:
    """A service with the shipped weights and default settings, on the engine that is exact."""
    return make_server(device="cpu")


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[httpx.Client]:
    """A client for `server`."""
    with server.client() as client:
        yield client

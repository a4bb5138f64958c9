"""Fixtures that several rooms share: data, pictures, checkpoints and a running service."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.images import drawn_seven, encoded
from tests.support.paths import ROOT
from tests.support.server import Server, start_service, wait_until_ready


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


@pytest.fixture(scope="session")
def seven_png() -> bytes:
    """A drawn seven as a PNG file."""
    return encoded(drawn_seven())


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

"""Fixtures for all tests: data, images and a running service.

With `--through-ray` the service behind these fixtures is the one on a Ray cluster, asked through
Ray's proxy. Tests of `tests/integration` that cannot apply there are deselected.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.images import drawn_seven, encoded
from tests.support.paths import ROOT
from tests.support.service.server import Server, start_service, wait_until_ready

if TYPE_CHECKING:
    from tests.support.ray.cluster import Cluster

MakeServer = Callable[..., Server]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--through-ray`."""
    text = "ask the service through Ray's proxy; deselect the tests that cannot apply there"
    parser.addoption("--through-ray", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of tests that need a process of their own."""
    text = "not_through_ray(reason): does not apply to a service behind Ray's proxy"
    config.addinivalue_line("markers", text)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that apply through Ray, those of the default settings first."""
    if not config.getoption("through_ray"):
        return
    kept, dropped = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        (kept if _applies_through_ray(item) else dropped).append(item)
    items[:] = sorted(kept, key=lambda item: bool(_OWN_SETTINGS & set(_fixtures(item))))
    config.hook.pytest_deselected(items=dropped)


_OWN_SETTINGS = {"make_server", "shared_server"}


def _fixtures(item: pytest.Item) -> list[str]:
    return list(getattr(item, "fixturenames", ()))


def _applies_through_ray(item: pytest.Item) -> bool:
    if not item.nodeid.startswith("tests/integration/"):
        return True
    fixtures = set(_fixtures(item))
    asks = fixtures & {"server", "client", *_OWN_SETTINGS}
    return bool(asks) and not item.get_closest_marker("not_through_ray")


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
def ray_installed() -> None:
    """Skip the test where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        reason = "Ray is not installed: `make test-ray` makes an environment that has it"
        if os.environ.get("MNN_REQUIRE_RAY"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster(
    ray_installed: None,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator["Cluster"]:
    """A Ray cluster: a head, and two workers of one CPU each."""
    from tests.support.ray.cluster import started_cluster

    with started_cluster(tmp_path_factory.mktemp("cluster") / "log.txt", n_workers=2) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def make_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeServer]:
    """Start a service with the given settings: `make_server(max_queued_images=1)`.

    Each runs in an empty folder, so that it finds no checkpoint of the developer's. All are stopped
    at the end.
    """
    if request.config.getoption("through_ray"):
        yield request.getfixturevalue("cluster").make_server
        return
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
        server.process.terminate()
    for server in started:
        server.process.wait(timeout=30)


@pytest.fixture(scope="session")
def shared_server(make_server: MakeServer) -> MakeServer:
    """Get the service with the given settings, which all tests that ask for the same share."""
    servers: dict[frozenset[tuple[str, object]], Server] = {}

    def get(**settings: object) -> Server:
        key = frozenset(settings.items())
        if key not in servers:
            servers[key] = make_server(**settings)
        return servers[key]

    return get


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Server:
    """A service with the bundled weights and default settings, on the CPU engine."""
    if request.config.getoption("through_ray"):
        through_proxy: Server = request.getfixturevalue("cluster").default_server()
        return through_proxy
    alone: Server = request.getfixturevalue("shared_server")(device="cpu")
    return alone


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of `server`."""
    with server.client() as client:
        yield client

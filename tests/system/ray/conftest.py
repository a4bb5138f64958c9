"""A cluster of several Ray nodes, and the service on it in the place of the one by itself."""

import importlib.util
import itertools
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.declared import check_declared
from tests.support.paths import ROOT
from tests.support.server import service_environment

Json = dict[str, Any]

DEFAULTS = {"device": "cpu"}
ANSWER_S = 150  # longer than whatever the driver waits for


class Cluster:
    """Speaks with `tests.support.cluster`."""

    def __init__(self, log: Path, temporary: str) -> None:
        environment = service_environment() | {
            "PYTHONPATH": str(ROOT),  # for the workers, which start elsewhere
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": temporary,  # its sockets' names must be short
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        self.log, self.temporary = log, Path(temporary)
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.cluster"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                text=True,
                start_new_session=True,  # Ctrl-C is for pytest, which then ends the input
            )
        self._deployed: object = None
        self._lock = threading.Lock()
        try:
            self._answer()
            self.address: str = self.do("url")
        except BaseException:
            self.stop()
            raise

    def do(self, what: str, **arguments: Any) -> Any:
        """Have something done; returns its answer."""
        assert self.process.stdin is not None
        with self._lock:
            print(json.dumps({"do": what, **arguments}), file=self.process.stdin, flush=True)
            return self._answer()

    def deploy(self, settings: Json, replicas: int, **arguments: Any) -> None:
        """Deploy the application with these settings, unless it is as told already."""
        wanted = (settings, replicas, arguments)
        if self._deployed != wanted:
            self._deployed = None
            variables = {f"MNN_{name.upper()}": str(value) for name, value in settings.items()}
            status = self.do("deploy", settings=variables, replicas=replicas, **arguments)
            assert status["application"][0] == "RUNNING", status
            assert httpx.get(f"{self.address}/health/ready").status_code == 200
            self._deployed = wanted

    def changed(self) -> None:
        """What is deployed is no longer as it was: the next who asks has it deployed again."""
        self._deployed = None

    def stop(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # its nodes with it
            self.process.wait()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], ANSWER_S)[0]:
            pytest.fail(f"no answer within {ANSWER_S} s\n{self.log.read_text()[-4000:]}")
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the cluster's process has ended"}
        if "error" in answer:
            pytest.fail(f"{answer['error']}\n{self.log.read_text()[-4000:]}")
        return answer["ok"]


@dataclass
class RayServer:
    """The service with given settings on the cluster; whoever asks it anything has it there."""

    cluster: Cluster
    settings: Json
    replicas: int

    @property
    def url(self) -> str:
        """Ray's proxy."""
        self.cluster.deploy(self.settings, self.replicas)
        return self.cluster.address

    def client(self, **options: Any) -> httpx.Client:
        """A client, which may be answered nothing that is not declared."""
        hooks = {"request": [lambda _: self.url], "response": [check_declared]}
        return httpx.Client(base_url=self.url, timeout=30, event_hooks=hooks, **options)


@pytest.fixture(scope="session")
def ray_installed() -> None:
    """Skips where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        reason = "Ray is not installed: `make test-ray` makes an environment that has it"
        if os.environ.get("MNN_REQUIRE_RAY"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster(
    ray_installed: None,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    """A head and two workers of one CPU each."""
    temporary = tempfile.mkdtemp(prefix="ray-")
    started = Cluster(tmp_path_factory.mktemp("cluster") / "log.txt", temporary)
    try:
        for _ in range(2):
            started.do("add_node")
        yield started
    finally:
        started.stop()
        shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture(scope="session")
def server(cluster: Cluster) -> RayServer:
    """The service with default settings, on two replicas."""
    return RayServer(cluster, DEFAULTS, 2)


@pytest.fixture(scope="session")
def client(server: RayServer) -> Iterator[httpx.Client]:
    """A client for `server`."""
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def make_server(cluster: Cluster) -> Callable[..., RayServer]:
    """Services with given settings, each fresh and on one replica; one is there at a time."""
    number = itertools.count()
    return lambda **settings: RayServer(cluster, {**settings, "fresh": next(number)}, 1)

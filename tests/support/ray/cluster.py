"""A cluster of several Ray nodes, and the service on it in place of a process of its own."""

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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.paths import ROOT
from tests.support.service.declared import check_declared
from tests.support.service.server import service_environment

__all__ = ["DEFAULTS", "Cluster", "Json", "RayServer", "started_cluster"]

Json = dict[str, Any]

DEFAULTS = {"device": "cpu"}
ANSWER_TIMEOUT_S = 150  # longer than anything that the driver waits for


class Cluster:
    """Sends commands to `tests.support.ray.driver`."""

    def __init__(self, log: Path, temporary: str) -> None:
        environment = service_environment() | {
            "PYTHONPATH": str(ROOT),  # for the workers, which start elsewhere
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": temporary,  # the names of its sockets must be short
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        self.log, self.temporary = log, Path(temporary)
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.ray.driver"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                text=True,
                start_new_session=True,  # Ctrl-C is for pytest, which then closes the input
            )
        self._deployed: object = None
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        try:
            self._answer()
            self.address: str = self.do("url")
        except BaseException:
            self.stop()
            raise

    def do(self, command: str, **arguments: Any) -> Any:
        """Execute a command; returns its result."""
        assert self.process.stdin is not None
        with self._lock:
            print(json.dumps({"do": command, **arguments}), file=self.process.stdin, flush=True)
            return self._answer()

    def deploy(self, settings: Json, replicas: int, **arguments: Any) -> None:
        """Deploy the application with these settings, unless it is deployed with them already."""
        wanted = (settings, replicas, arguments)
        if self._deployed != wanted:
            self._deployed = None
            variables = {f"MNN_{name.upper()}": str(value) for name, value in settings.items()}
            status = self.do("deploy", settings=variables, replicas=replicas, **arguments)
            assert status["application"][0] == "RUNNING", status
            assert httpx.get(f"{self.address}/health/ready").status_code == 200
            self._deployed = wanted

    def changed(self) -> None:
        """Have the next `deploy` deploy in any case."""
        self._deployed = None

    def default_server(self) -> "RayServer":
        """The service with default settings, on two replicas."""
        return RayServer(self, DEFAULTS, 2)

    def make_server(self, **settings: Any) -> "RayServer":
        """A fresh service with these settings, on one replica; one is deployed at a time."""
        return RayServer(self, {**settings, "fresh": next(self._numbers)}, 1)

    def stop(self) -> None:
        """Stop everything."""
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
        if not select.select([self.process.stdout], [], [], ANSWER_TIMEOUT_S)[0]:
            pytest.fail(f"no answer within {ANSWER_TIMEOUT_S} s\n{self.log.read_text()[-4000:]}")
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the cluster's process has ended"}
        if "error" in answer:
            pytest.fail(f"{answer['error']}\n{self.log.read_text()[-4000:]}")
        return answer["ok"]


@dataclass
class RayServer:
    """The service with given settings on the cluster; a request to it deploys it if needed."""

    cluster: Cluster
    settings: Json
    replicas: int

    @property
    def url(self) -> str:
        """The address of Ray's proxy."""
        self.cluster.deploy(self.settings, self.replicas)
        return self.cluster.address

    def client(self, **options: Any) -> httpx.Client:
        """A client that accepts no answer that the OpenAPI document does not declare."""
        hooks = {"request": [lambda _: self.url], "response": [check_declared]}
        return httpx.Client(base_url=self.url, timeout=30, event_hooks=hooks, **options)


@contextmanager
def started_cluster(log: Path, *, n_workers: int) -> Iterator[Cluster]:
    """Run a head and workers of one CPU each."""
    temporary = tempfile.mkdtemp(prefix="ray-")
    cluster = Cluster(log, temporary)
    try:
        for _ in range(n_workers):
            cluster.do("add_node")
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(temporary, ignore_errors=True)

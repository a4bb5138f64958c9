"""The service as a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.declared import check_declared


@dataclass
class Server:
    """A service running in a process of its own."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def client(self, **options: object) -> httpx.Client:
        """A client for this service, which may answer nothing that it does not declare."""
        hooks = {"response": [check_declared]}
        return httpx.Client(base_url=self.url, timeout=30, event_hooks=hooks, **options)  # type: ignore[arg-type]

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

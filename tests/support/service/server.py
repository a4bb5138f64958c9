"""The service as a process of its own."""

import contextlib
import io
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
from unittest.mock import patch

import httpx
import pytest
from pydantic import ValidationError

from tests.support.service.declared import check_declared


@dataclass
class Server:
    """A service running in a process of its own."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def client(self, **options: object) -> httpx.Client:
        """A client that accepts no answer that the OpenAPI document does not declare."""
        hooks = {"response": [check_declared]}
        return httpx.Client(base_url=self.url, timeout=30, event_hooks=hooks, **options)  # type: ignore[arg-type]

    def logged(self) -> list[dict[str, Any]]:
        """Return the lines of its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self) -> int:
        """Stop it with SIGTERM; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


def free_port() -> int:
    """Return a port of the loopback interface that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def service_environment(**settings: object) -> dict[str, str]:
    """Return this environment with the given settings and no others."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MNN_")}
    return {**inherited, **{f"MNN_{k.upper()}": str(v) for k, v in settings.items()}}


def error_of_start(**settings: object) -> str:
    """Start the service in this process with invalid settings; returns what it prints."""
    from service import Settings
    from service.__main__ import main

    printed = io.StringIO()
    with (
        patch.dict(os.environ, service_environment(**settings), clear=True),
        patch.object(sys, "argv", ["service"]),
        contextlib.redirect_stderr(printed),
    ):
        with pytest.raises(ValidationError):
            Settings()  # else `main` would serve
        assert main() == 2
    return printed.getvalue()


def start_service(log: Path, cwd: Path, **settings: object) -> Server:
    """Start `python -m service` without waiting for it.

    It takes a free port unless `port` names one, and stops without a delay unless `drain_delay_s`
    sets one.
    """
    port = int(str(settings.pop("port", None) or free_port()))
    settings = {"drain_delay_s": 0, **settings}
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


def wait_until_ready(server: Server, timeout_s: float = 120) -> None:
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

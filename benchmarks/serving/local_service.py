"""The service on the loopback interface, started for a benchmark and stopped after it."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx

_ROOT = Path(__file__).parents[2]
_START_S = 90.0
_STOP_S = 20.0


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_until_ready(
    url: str, process: "subprocess.Popen[bytes] | None" = None, path: str = "/health/ready"
) -> None:
    """Wait until `GET path` below `url` answers 200.

    Raises:
        TimeoutError: If it does not in time.
        RuntimeError: If the server's process ends first.
    """
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"{url} ended with exit code {process.returncode}")
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{url}{path}", timeout=30).raise_for_status()
            return
        time.sleep(0.02)
    raise TimeoutError(f"{url} is not ready after {_START_S:g} s")


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server in the project's folder until the block ends; yields its process."""
    process = subprocess.Popen(command, cwd=_ROOT, env={**os.environ, **environment})
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def running_service(settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run the service with the bundled model and these settings; yields its URL once ready."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    own = {"MNN_PORT": str(port), "MNN_CHECKPOINT": "no-such-file"}
    with running([sys.executable, "-m", "service"], {**own, **(settings or {})}) as process:
        wait_until_ready(url, process)
        yield url

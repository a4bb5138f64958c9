"""The service in one process and in several: alone, behind nginx, and as replicas under Ray.

Each process has one lane, so that what is compared is how many there are and what stands before
them. All listen on the loopback interface.
"""

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

__all__ = ["ONE_LANE", "behind_nginx", "has_nginx", "has_ray", "processes", "under_ray"]

_ROOT = Path(__file__).parents[2]
_START_S = 90.0

ONE_LANE = {
    "MNN_DEVICE": "cpu", "MNN_LANES": "1", "MNN_LOG_LEVEL": "warning", "MNN_DRAIN_WAIT_S": "0",
}  # fmt: skip
"""The settings of every service here."""

_NGINX = """
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  upstream service {{ {choice} {servers} keepalive 64; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://service;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
}}
"""


def has_nginx() -> bool:
    """Whether the plain proxy is installed."""
    return shutil.which("nginx") is not None


def has_ray() -> bool:
    """Whether this environment has Ray (`make test-ray` makes one that has)."""
    return importlib.util.find_spec("ray") is not None


@contextlib.contextmanager
def processes(count: int) -> Iterator[list[str]]:
    """So many services; gives their addresses.

    Raises:
        TimeoutError: If one does not answer in time.
    """
    with contextlib.ExitStack() as stack:
        urls = []
        for _ in range(count):
            port = _free_port()
            environment = {**os.environ, **ONE_LANE, "MNN_PORT": str(port)}
            process = subprocess.Popen(
                [sys.executable, "-m", "service"], cwd=_ROOT, env=environment
            )
            stack.callback(_stop, process)
            urls.append(f"http://127.0.0.1:{port}")
        for url in urls:
            _wait(url)
        yield urls


@contextlib.contextmanager
def behind_nginx(urls: Sequence[str], folder: Path) -> Iterator[str]:
    """A plain proxy, which sends each request to whichever has the fewest; gives its address.

    Args:
        urls: The services.
        folder: A temporary folder of its own.

    Raises:
        TimeoutError: If it does not answer in time.
    """
    folder.mkdir()
    port = _free_port()
    servers = "".join(f"server {url.removeprefix('http://')}; " for url in urls)
    configuration = folder / "nginx.conf"
    choice = "least_conn;" if len(urls) > 1 else ""
    configuration.write_text(
        _NGINX.format(folder=folder, port=port, servers=servers, choice=choice)
    )
    process = subprocess.Popen(["nginx", "-p", folder, "-c", configuration])
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url)
        yield url
    finally:
        _stop(process)


@contextlib.contextmanager
def under_ray(replicas: Sequence[int]) -> Iterator[list[str]]:
    """One application with so many replicas for each entry, behind one proxy; their addresses."""
    # Before Ray is imported: its processes inherit it.
    os.environ.update({**ONE_LANE, "RAY_USAGE_STATS_ENABLED": "0"})
    import ray  # noqa: PLC0415 - only where it is wanted and installed
    from ray import serve  # noqa: PLC0415

    from deploy.ray_app import Options, app  # noqa: PLC0415

    port = _free_port()
    # More than there are: what is measured does not run at the same time.
    ray.init(
        num_cpus=sum(replicas), include_dashboard=False, log_to_driver=False,
        logging_level="warning",
    )  # fmt: skip
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
        urls = []
        for count in replicas:
            options = Options(min_replicas=count, max_replicas=count)
            serve.run(app(options), name=f"with-{count}", route_prefix=f"/{count}")
            urls.append(f"http://127.0.0.1:{port}/{count}")
            _wait(urls[-1])
        yield urls
    finally:
        try:
            serve.shutdown()
        finally:
            ray.shutdown()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _wait(url: str) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{url} does not answer after {_START_S:g} s")
        time.sleep(0.1)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

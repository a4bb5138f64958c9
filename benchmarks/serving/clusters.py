"""Deployments of the service: processes, behind nginx, and as replicas under Ray.

Each process has one worker thread, so deployments differ in the number of processes and in what
stands before them. All listen on the loopback interface.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.serving.local_service import free_port, running, wait_until_ready

ONE_WORKER = {
    "MNN_DEVICE": "cpu",
    "MNN_WORKER_THREADS": "1",
    "MNN_LOG_LEVEL": "warning",
    "MNN_DRAIN_DELAY_S": "0",
}
"""Settings of every service here."""

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
  upstream service {{ {balancing} {servers} keepalive 64; }}
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


@contextlib.contextmanager
def behind_nginx(urls: Sequence[str], folder: Path) -> Iterator[str]:
    """Run nginx, which sends each request to the service with the fewest; yields its URL.

    `folder` is a temporary folder, made here.
    """
    folder.mkdir()
    port = free_port()
    servers = "".join(f"server {url.removeprefix('http://')}; " for url in urls)
    balancing = "least_conn;" if len(urls) > 1 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _NGINX.format(folder=folder, port=port, servers=servers, balancing=balancing)
    )
    with running(["nginx", "-p", folder, "-c", configuration], {}) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process)
        yield url


@contextlib.contextmanager
def under_ray(replicas: Sequence[int]) -> Iterator[list[str]]:
    """Run one Ray Serve application per entry, with that many replicas; yields their URLs."""
    # Set before Ray is imported: its processes inherit the environment.
    os.environ.update({**ONE_WORKER, "RAY_USAGE_STATS_ENABLED": "0"})
    import ray  # noqa: PLC0415 - only in .venv-ray
    from ray import serve  # noqa: PLC0415

    from deploy.ray_app import Options, app  # noqa: PLC0415

    port = free_port()
    # More CPUs than there are: the applications are not measured at the same time.
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
            wait_until_ready(urls[-1])
        yield urls
    finally:
        try:
            serve.shutdown()
        finally:
            ray.shutdown()

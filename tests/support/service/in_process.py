"""The application served by a thread of this process, so that tests can reach into it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import httpx
import uvicorn
from fastapi import FastAPI

from service import Settings, create_app
from service.server.graceful_server import GracefulServer
from tests.support.service.server import free_port

__all__ = ["graceful", "running", "serving", "started", "wait_until_ready"]


@contextmanager
def running(app: FastAPI, lifespan: Literal["on", "off"] = "on") -> Iterator[httpx.Client]:
    """Serve an application on a socket of its own; gives a client."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan=lifespan, log_config=None))
    with serving(server, port) as client:
        yield client


@contextmanager
def started(app: FastAPI) -> Iterator[httpx.Client]:
    """Serve an application and wait until it is ready."""
    with running(app) as client:
        wait_until_ready(client)
        yield client


@contextmanager
def graceful(**settings: Any) -> Iterator[tuple[httpx.Client, FastAPI]]:
    """Serve an application as `python -m service` does, and wait until it is ready."""
    chosen = Settings(device="cpu", draws=40, drain_delay_s=0, port=free_port(), **settings)
    app = create_app(chosen)
    service = app.state.service
    server = GracefulServer(app, chosen, service.provider, service.metrics)
    with serving(server, chosen.port) as client:
        wait_until_ready(client)
        yield client, app


@contextmanager
def serving(server: uvicorn.Server, port: int) -> Iterator[httpx.Client]:
    """Run a server; gives a client."""
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(timeout=30)


def wait_until_ready(client: httpx.Client, timeout_s: float = 60) -> None:
    """Wait for readiness."""
    deadline = time.monotonic() + timeout_s
    while client.get("/health/ready").status_code != httpx.codes.OK:
        assert time.monotonic() < deadline
        time.sleep(0.02)

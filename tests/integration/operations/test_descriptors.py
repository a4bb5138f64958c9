"""The service raises a low limit of file descriptors."""

import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.service.raw_http import connected
from tests.support.service.server import Server

pytestmark = pytest.mark.not_through_ray("it limits the descriptors of a process")


@contextmanager
def soft_limit(descriptors: int) -> Iterator[None]:
    """Limit the descriptors of processes that are started meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_connections_than_the_soft_limit_are_accepted(
    make_server: Callable[..., Server],
) -> None:
    with soft_limit(100):
        server = make_server(device="cpu", draws=40)
    with ExitStack() as opened:
        for _ in range(150):
            opened.enter_context(connected(server))
        with connected(server) as last:
            last.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            last.settimeout(5)
            assert last.recv(15, socket.MSG_WAITALL) == b"HTTP/1.1 200 OK"
    assert "Too many open files" not in server.log.read_text()

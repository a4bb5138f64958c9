"""Services with settings that several modules need; each is started once."""

from collections.abc import Callable

import pytest

from tests.support.service.api_key import KEY
from tests.support.service.server import Server

SharedServer = Callable[..., Server]


@pytest.fixture(scope="session")
def small_server(shared_server: SharedServer) -> Server:
    """A service with few draws, which logs everything."""
    return shared_server(device="cpu", draws=40, log_level="debug")


@pytest.fixture(scope="session")
def keyed_server(shared_server: SharedServer) -> Server:
    """A service that requires its API key."""
    return shared_server(device="cpu", draws=40, api_key=KEY, require_api_key=True)


@pytest.fixture(scope="session")
def reload_key_server(shared_server: SharedServer) -> Server:
    """A service that requires its API key for reloads alone."""
    return shared_server(device="cpu", draws=40, api_key=KEY)


@pytest.fixture(scope="session")
def strict_server(shared_server: SharedServer) -> Server:
    """A service that accepts small files, and waits half a second for what is sent."""
    return shared_server(device="cpu", draws=40, max_upload_bytes=100_000, body_timeout_s=0.5)

"""`make` as a newcomer runs it: without anything of the environment of the tests."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.service.server import Server, free_port, wait_until_ready

INSTALLATION_S = 540


@pytest.fixture(scope="session")
def clean_environment() -> dict[str, str]:
    """The environment variables of a newcomer's shell."""
    environment = {
        key: value
        for key, value in os.environ.items()
        # ARGS and the like of `make test ARGS=...` are not meant for the commands under test.
        if not key.startswith(("MNN_", "COV_", "VIRTUAL_ENV", "PYTHON", "MAKE", "MFLAGS", "ARGS"))
    }
    own = str(Path(sys.prefix) / "bin")
    path = environment["PATH"].split(os.pathsep)
    environment["PATH"] = os.pathsep.join(entry for entry in path if entry != own)
    return environment


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean clone of what is committed."""
    target = tmp_path_factory.mktemp("clone")
    subprocess.run(["git", "clone", "--quiet", ROOT, target], check=True)
    return target


@pytest.fixture(scope="session")
def make_serve(
    clean_environment: dict[str, str],
) -> Callable[..., AbstractContextManager[Server]]:
    """Run `make serve` in a folder until the block ends: `make_serve(clone, "VENV=x")`."""

    @contextmanager
    def serving(folder: Path, log: Path, *arguments: str) -> Iterator[Server]:
        port = free_port()
        with log.open("w") as out:
            process = subprocess.Popen(
                ["make", "serve", f"MNN_PORT={port}", "MNN_DRAIN_DELAY_S=0", *arguments],
                cwd=folder,
                env=clean_environment,
                start_new_session=True,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )
        try:
            server = Server(f"http://127.0.0.1:{port}", process, log)
            wait_until_ready(server, INSTALLATION_S)
            yield server
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)

    return serving

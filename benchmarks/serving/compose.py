"""Containers of docker-compose.yml, in a Compose project of their own."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Compose:
    """`docker compose` for one project, published on the loopback interface."""

    project: str
    folder: Path = _ROOT  # with the sources
    settings: Mapping[str, str] = field(default_factory=dict)  # variables of docker-compose.yml

    def __call__(self, *arguments: str) -> str:
        """Run `docker compose`; returns its output.

        Raises:
            subprocess.CalledProcessError: If it fails; `stdout` has its errors, too.
        """
        return self.run("docker", "compose", "--project-name", self.project, *arguments)

    def run(self, *command: str) -> str:
        """Run another command, such as `docker inspect`, in the same way."""
        environment = {**os.environ, "MNN_PUBLISH": "127.0.0.1:", **self.settings}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, check=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout.strip()


@contextlib.contextmanager
def scaled(count: int, settings: Mapping[str, str]) -> Iterator[list[str]]:
    """Run `count` containers of the service; yields their URLs once ready, then removes them.

    Raises:
        subprocess.CalledProcessError: If Docker is not available or a container does not start.
    """
    compose = Compose("maybe-scaled", settings=settings)
    try:
        compose("up", "--build", "--wait", "--scale", f"service={count}")
        names = compose("ps", "--quiet", "service").split()
        ports = [compose.run("docker", "port", name, "8000/tcp") for name in names]
        yield [f"http://{port.splitlines()[0]}" for port in ports]
    finally:
        compose("down", "--volumes", "--rmi", "local")

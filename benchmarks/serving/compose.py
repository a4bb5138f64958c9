"""The containers of docker-compose.yml, in a project of their own."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Compose", "scaled"]

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Compose:
    """`docker compose` in one project, on the loopback interface.

    Attributes:
        project: Its name.
        folder: Where the sources are.
        settings: Variables of docker-compose.yml.
    """

    project: str
    folder: Path = _ROOT
    settings: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str) -> str:
        """Run it; gives what it prints.

        Raises:
            subprocess.CalledProcessError: If it fails; `stdout` has its errors, too.
        """
        return self.run("docker", "compose", "--project-name", self.project, *arguments)

    def run(self, *command: str) -> str:
        """The same for any command, such as `docker`."""
        environment = {**os.environ, "MNN_PUBLISH": "127.0.0.1:", **self.settings}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, check=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout.strip()


@contextlib.contextmanager
def scaled(count: int, settings: Mapping[str, str]) -> Iterator[list[str]]:
    """So many containers of the service, ready; gives their addresses. They are removed again.

    Raises:
        subprocess.CalledProcessError: If there is no Docker engine, or one does not start.
    """
    compose = Compose("maybe-scaled", settings=settings)
    try:
        compose("up", "--build", "--wait", "--scale", f"service={count}")
        names = compose("ps", "--quiet", "service").split()
        ports = [compose.run("docker", "port", name, "8000/tcp") for name in names]
        yield [f"http://{port.splitlines()[0]}" for port in ports]
    finally:
        compose("down", "--volumes", "--rmi", "local")

"""Server processes: start, stop, CPU and memory of the whole process tree."""

import contextlib
import http.client
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.serving.local_service import free_port
from benchmarks.serving.peers.contenders import Contender, Variant

_ROOT = Path(__file__).parents[3]
_START_S = 90
_STOP_S = 10
_BUSY_CPUS = 0.5  # some servers use less while they poll for work


class ServerError(RuntimeError):
    """A server did not start or answered wrongly; the message has the end of its log."""


@dataclass
class Server:
    """A running server.

    Attributes:
        contender: What it is.
        variant: Its configuration.
        port: Its port on the loopback interface.
        log: The file with its output.
        process: Its first process.
        start_s: Seconds from start to readiness.
        idle_cpus: CPUs that it uses while idle, once measured.
        stopped: Whether `stop` was called.
    """

    contender: Contender
    variant: Variant
    port: int
    log: Path
    process: subprocess.Popen[bytes]
    start_s: float = 0.0
    idle_cpus: float = 0.0
    stopped: bool = False

    def cpu_s(self) -> float:
        """CPU seconds of the process tree so far, with its ended and reaped processes."""
        total = 0.0
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                total += sum(process.cpu_times()[:4])  # user, system, children's user and system
        return total

    def memory_mb(self) -> float:
        """Memory of the process tree in MB; shared memory counts once (PSS)."""
        total = 0
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total / 1e6

    def measure_idle(self, seconds: float) -> None:
        """Set `idle_cpus`; call it while no request is under way."""
        before = self.cpu_s()
        time.sleep(seconds)
        self.idle_cpus = (self.cpu_s() - before) / seconds

    def wait_until_idle(self, timeout_s: float = 30.0) -> None:
        """Wait until requests of clients that have left are worked off."""
        deadline, step = time.monotonic() + timeout_s, 0.25
        while time.monotonic() < deadline:
            before = self.cpu_s()
            time.sleep(step)
            if self.cpu_s() - before < _BUSY_CPUS * step:
                return

    def request(
        self, method: str, path: str, body: bytes = b"", content_type: str = ""
    ) -> tuple[int, bytes]:
        """Send one request; returns status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Content-Type": content_type})
            response = connection.getresponse()
            return response.status, response.read()

    def wait_until_ready(self, deadline: float) -> None:
        """Wait until its readiness path answers 200.

        Raises:
            ServerError: If it ends first, or is not ready by the deadline.
        """
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.request("GET", self.contender.ready_path)[0] == http.HTTPStatus.OK:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ServerError(self.describe("did not start"))
            time.sleep(0.02)

    def describe(self, problem: str) -> str:
        """A message with the server's name, the problem and the end of its log."""
        log = self.log.read_text(errors="replace")[-2000:]
        return f"{self.contender.name} ({self.variant.label}) {problem}:\n{log}"

    def stop(self) -> None:
        """Terminate it; kill what is left after a while. A second call does nothing."""
        if self.stopped:
            return
        self.stopped = True
        tree = self._tree()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_STOP_S)
        for process in tree:  # some servers leave their workers behind
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()  # psutil checks that the PID is not another process's by now
        self.process.wait()

    def _tree(self) -> list[psutil.Process]:
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def start(contender: Contender, variant: Variant, folder: Path) -> Server:
    """Start a server and wait until it is ready.

    Args:
        contender: What to start.
        variant: Its configuration.
        folder: A temporary folder for its files.

    Raises:
        ServerError: If it does not become ready.
    """
    port = free_port()
    # An empty working folder, so that it does not find the developer's checkpoint.
    home = Path(tempfile.mkdtemp(dir=folder))
    log = home / "log.txt"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MNN_", "PEER_"))}
    environment = {
        **inherited,
        "PYTHONPATH": str(_ROOT),
        "TMPDIR": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        contender.port_setting: str(port),
        **variant.settings,
    }
    command = [contender.python, *(word.format(port=port) for word in contender.arguments)]
    began = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=home, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    server = Server(contender, variant, port, log, process)
    try:
        server.wait_until_ready(began + _START_S)
    except BaseException:
        server.stop()
        raise
    server.start_s = time.monotonic() - began
    return server


def busy_cpu_s() -> float:
    """CPU seconds that all processes of the machine have used on the CPUs granted to this one."""
    times = psutil.cpu_times(percpu=True)
    return sum(
        sum(times[cpu]) - times[cpu].idle - times[cpu].iowait - times[cpu].guest
        - times[cpu].guest_nice
        for cpu in os.sched_getaffinity(0)
    )  # fmt: skip

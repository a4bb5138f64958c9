"""Server processes: start, stop, CPU and memory of the whole process tree."""

import contextlib
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.serving.local_service import free_port, wait_until_ready
from benchmarks.serving.peers.contenders import Contender, Variant

_ROOT = Path(__file__).parents[3]
_STOP_S = 10
_BUSY_CPUS = 0.5  # some servers use less while they poll for work


class ServerError(RuntimeError):
    """A server did not start or answered wrongly; the message has the end of its log."""


@dataclass
class Server:
    """A running server."""

    contender: Contender
    variant: Variant
    url: str
    log: Path  # the file with its output
    process: subprocess.Popen[bytes]  # its first process
    start_s: float = 0.0  # from start to readiness
    idle_cpus: float = 0.0  # CPUs that it uses while idle, once measured
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
    """Start a server with its files in a temporary folder, and wait until it is ready.

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
    server = Server(contender, variant, f"http://127.0.0.1:{port}", log, process)
    try:
        wait_until_ready(server.url, process, contender.ready_path)
    except BaseException as error:
        server.stop()
        if isinstance(error, RuntimeError | TimeoutError):
            raise ServerError(server.describe("did not start")) from error
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

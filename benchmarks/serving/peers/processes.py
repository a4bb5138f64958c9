"""Servers as processes: starting and stopping them, and what their whole tree costs, by `/proc`."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.peers.contenders import Contender, Variant

__all__ = ["Server", "ServerError", "busy_cores_s", "start"]

_ROOT = Path(__file__).parents[3]
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_START_TIMEOUT_S = 90
_STOP_TIMEOUT_S = 10
_AT_WORK_CORES = 0.5  # less is what some spend on looking whether there is anything to do


class ServerError(RuntimeError):
    """A server did not start, or did not answer rightly; the message says what it logged."""


@dataclass
class Server:
    """A running server.

    Attributes:
        contender: What it is.
        variant: How it is configured.
        port: Of the loopback interface.
        start_s: Seconds from its start to its readiness.
        log: What it prints.
        process: Its first process, at the head of a session of its own.
        idle_cores: CPU cores that it keeps busy without a request, once measured.
        stopped: Whether `stop` was called.
    """

    contender: Contender
    variant: Variant
    port: int
    log: Path
    process: subprocess.Popen[bytes]
    start_s: float = 0.0
    idle_cores: float = 0.0
    stopped: bool = False

    def cpu_s(self) -> float:
        """CPU seconds of the whole tree so far, of its dead and reaped processes too."""
        return sum(_cpu_ticks(fields) for fields in self._tree().values()) * _TICK_S

    def memory_mb(self) -> float:
        """Memory of the whole tree in MB: what processes share counts once (PSS)."""
        return sum(map(_memory_kib, self._tree())) * 1024 / 1e6

    def measure_idle(self, seconds: float) -> None:
        """Set `idle_cores`; nothing must be asked meanwhile."""
        before = self.cpu_s()
        time.sleep(seconds)
        self.idle_cores = (self.cpu_s() - before) / seconds

    def settle(self, timeout_s: float = 30.0) -> None:
        """Wait until it has no more work: the clients of a load leave, their requests stay."""
        deadline, step = time.monotonic() + timeout_s, 0.25
        while time.monotonic() < deadline:
            before = self.cpu_s()
            time.sleep(step)
            if self.cpu_s() - before < _AT_WORK_CORES * step:
                return

    def post(self, body: bytes, content_type: str) -> tuple[int, bytes]:
        """Status and body of `POST /predict`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", "/predict", body, {"Content-Type": content_type})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def wait_until_ready(self, deadline: float) -> None:
        """Wait until it says so itself.

        Raises:
            ServerError: If it ends instead, or has not said so by the deadline.
        """
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ServerError(self.describe("did not start"))
            time.sleep(0.02)

    def describe(self, fault: str) -> str:
        """A message that names the server, its fault, and the end of what it printed."""
        said = self.log.read_text(errors="replace")[-2000:]
        return f"{self.contender.name} ({self.variant.label}) {fault}:\n{said}"

    def stop(self) -> None:
        """Ask it to stop; what is still there after a while is killed."""
        if self.stopped:  # its number may be another process's by now
            return
        self.stopped = True
        tree = self._tree()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_STOP_TIMEOUT_S)
        # Some leave their workers behind. Ours are told from later ones of the same number by when
        # they started.
        for pid, fields in {**tree, **self._tree()}.items():
            if _stat(pid)[_STARTED : _STARTED + 1] == fields[_STARTED : _STARTED + 1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection):
            try:
                connection.request("GET", self.contender.ready_path)
                return connection.getresponse().status == http.HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                return False

    def _tree(self) -> dict[int, list[str]]:
        """Every process of the server, by its parents or its session, with its `stat` fields."""
        every = {int(path.name): _stat(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
        every = {pid: fields for pid, fields in every.items() if fields}
        root = self.process.pid
        found = {pid for pid, fields in every.items() if root in (pid, int(fields[_SESSION]))}
        while more := {p for p, f in every.items() if int(f[_PARENT]) in found} - found:
            found |= more
        return {pid: every[pid] for pid in found}


def start(contender: Contender, variant: Variant, folder: Path) -> Server:
    """Start a server and wait until it is ready.

    Args:
        contender: What to start.
        variant: How to configure it.
        folder: A temporary folder for what it writes.

    Raises:
        ServerError: If it does not become ready.
    """
    port = _free_port()
    # An empty folder to run in, so that no checkpoint of the developer's is picked up.
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
        server.wait_until_ready(began + _START_TIMEOUT_S)
    except BaseException:
        server.stop()
        raise
    server.start_s = time.monotonic() - began
    return server


def busy_cores_s() -> float:
    """CPU seconds that anything on the machine has used of the cores that we may use."""
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in cores:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            total += user + nice + system + irq + softirq + steal
    return total * _TICK_S


# Positions in /proc/PID/stat after the command's name, which may itself hold spaces.
_PARENT, _SESSION, _STARTED = 1, 3, 19
_CPU = slice(11, 15)  # user and system, its own and its reaped children's


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):  # gone meanwhile
        return []


def _cpu_ticks(fields: list[str]) -> int:
    return sum(map(int, fields[_CPU]))


def _memory_kib(pid: int) -> int:
    for name, key in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
                if line.startswith(key):
                    return int(line.split()[1])
    return 0


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])

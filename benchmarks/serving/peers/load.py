"""Load generator: wrk posts one image over loopback sockets and reports as JSON."""

import io
import json
import resource
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks.serving.peers.processes import Server, ServerError, busy_cpu_s
from model import open_bytes

_BOUNDARY = "digit-boundary"
_CONTENT_TYPE = f"multipart/form-data; boundary={_BOUNDARY}"
_TIMEOUT_S = 60  # longer than any answer takes: a late answer is slow, not an error

_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "{content_type}"
wrk.body = "{body}"

function done(summary, latency, requests)
  local errors = summary.errors
  io.stderr:write(string.format(
    '{{"us":%d,"requests":%d,"status":%d,"socket":%d,"latencies":[',
    summary.duration, summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
  for i = 1, #latency do
    local us, count = latency(i)
    io.stderr:write(string.format('%s[%d,%d]', i > 1 and ',' or '', us, count))
  end
  io.stderr:write(']}}')
end
"""


@dataclass(frozen=True)
class Round:
    """One round of load on one server.

    Attributes:
        contender: The server's name.
        connections: Number of concurrent connections.
        seconds: Its duration.
        answered: Requests answered without an error.
        errors: Answers of status 400 and above, and socket errors.
        cpu_s: CPU seconds of the server's processes.
        memory_mb: Their memory at the end.
        generator_cpus: CPUs that the load generator used.
        other_cpus: CPUs that neither server nor generator used.
        latencies: Number of requests by latency in µs.
    """

    contender: str
    connections: int
    seconds: float
    answered: int
    errors: int
    cpu_s: float
    memory_mb: float
    generator_cpus: float
    other_cpus: float
    latencies: Counter[int]

    @property
    def rate(self) -> float:
        """Answered requests per second."""
        return self.answered / self.seconds


class Load:
    """The requests of the benchmark.

    Args:
        example: An image of a seven. `check` posts it; the load posts its 28×28 pixels after
            preprocessing.
        folder: A temporary folder for wrk's script.
    """

    def __init__(self, example: Path, folder: Path) -> None:
        self._example = example.read_bytes()
        buffer = io.BytesIO()
        Image.fromarray(open_bytes(self._example).pixels).save(buffer, "PNG")
        self._digit = buffer.getvalue()
        self._script = folder / "load.lua"
        body = "".join(f"\\{byte:03d}" for byte in _form(self._digit))
        self._script.write_text(_SCRIPT.format(content_type=_CONTENT_TYPE, body=body))

    @staticmethod
    def is_available() -> bool:
        """Whether wrk is installed."""
        return shutil.which("wrk") is not None

    def check(self, server: Server) -> None:
        """Check that a server answers correctly.

        Raises:
            ServerError: If it does not.
        """
        for image in (self._example, self._digit):
            status, body = server.request("POST", "/predict", _form(image), _CONTENT_TYPE)
            answer = json.loads(body) if status == 200 else {}
            if isinstance(answer, list):  # BentoML answers a batch with a list
                (answer,) = answer
            right = answer.get("prediction") == "7" and answer.get("decision") == "accept"
            if not (right and len(answer["classes"]) == 10 and answer["samples"] == 100):
                raise ServerError(server.describe(f"answered {status} {body[:500]!r}"))

    def run(self, server: Server, connections: int, seconds: float) -> Round:
        """Load a server with a number of concurrent connections.

        wrk's one thread shares the CPUs with the server. wrk corrects latencies for coordinated
        omission: a latency of over twice the mean also counts for the requests queued behind it.

        Raises:
            ServerError: If wrk fails.
        """
        url = f"http://127.0.0.1:{server.port}/predict"
        command = [
            "wrk", "--threads=1", f"--connections={connections}", f"--timeout={_TIMEOUT_S}s",
            f"--duration={max(1, round(seconds))}s", f"--script={self._script}", url,
        ]  # fmt: skip
        began, busy, own = time.monotonic(), busy_cpu_s(), time.process_time()
        children, cpu = _children_s(), server.cpu_s()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        cpu_s, wrk_s = server.cpu_s() - cpu, _children_s() - children
        wall_s, own_s = time.monotonic() - began, time.process_time() - own
        other_s = busy_cpu_s() - busy - cpu_s - wrk_s - own_s
        memory_mb = server.memory_mb()
        try:
            report = json.loads(done.stderr)
        except ValueError:
            raise ServerError(f"wrk failed: {done.stderr or done.stdout}") from None
        server.wait_until_idle()
        return Round(
            contender=server.contender.name,
            connections=connections,
            seconds=report["us"] / 1e6,
            answered=report["requests"] - report["status"],
            errors=report["status"] + report["socket"],
            cpu_s=cpu_s,
            memory_mb=memory_mb,
            generator_cpus=wrk_s / wall_s,
            other_cpus=max(0.0, other_s / wall_s),
            latencies=Counter(dict(report["latencies"])),
        )


def percentile_ms(latencies: Counter[int], percent: float) -> float:
    """Percentile of the latencies, in ms."""
    rank, seen = percent / 100 * latencies.total(), 0
    for us in sorted(latencies):
        seen += latencies[us]
        if seen >= rank:
            return us / 1000
    return float("nan")


def _form(image: bytes) -> bytes:
    head = (
        f"--{_BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="file"; filename="digit.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    return head.encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()


def _children_s() -> float:
    """CPU seconds of ended child processes; the difference of two calls is wrk's."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime

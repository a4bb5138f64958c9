"""The load: wrk, a compiled generator, posts one picture over real sockets and reports as JSON."""

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

from benchmarks.serving.peers.processes import Server, ServerError, busy_cores_s
from model import open_bytes

__all__ = ["Load", "Round", "percentile_ms"]

_BOUNDARY = "a-digit-and-nothing-else"
_CONTENT_TYPE = f"multipart/form-data; boundary={_BOUNDARY}"
_TIMEOUT_S = 60  # longer than any answer takes: a late one is slow, not an error

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
        seconds: How long it lasted.
        answered: Requests with a good answer.
        errors: Answers of status 400 and above, and failures of sockets.
        cpu_s: CPU seconds of the server's processes.
        memory_mb: Their memory at its end.
        generator_cores: CPU cores that the generator used.
        foreign_cores: CPU cores that neither the server nor the generator used.
        latencies: How often each latency in µs occurred.
    """

    seconds: float
    answered: int
    errors: int
    cpu_s: float
    memory_mb: float
    generator_cores: float
    foreign_cores: float
    latencies: Counter[int]

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return self.answered / self.seconds


class Load:
    """The requests to make.

    Args:
        example: A picture of a seven; it is what every answer is checked by, and its 28×28 pixels
            after the digit door are what the load posts.
        folder: A temporary folder for the generator's script.
    """

    def __init__(self, example: Path, folder: Path) -> None:
        """Write the script; see the class."""
        self._example = example.read_bytes()
        buffer = io.BytesIO()
        Image.fromarray(open_bytes(self._example).pixels).save(buffer, "PNG")
        self._digit = buffer.getvalue()
        self._script = folder / "load.lua"
        body = "".join(f"\\{byte:03d}" for byte in _form(self._digit))
        self._script.write_text(_SCRIPT.format(content_type=_CONTENT_TYPE, body=body))

    @staticmethod
    def is_available() -> bool:
        """Whether the generator is installed."""
        return shutil.which("wrk") is not None

    def check(self, server: Server) -> None:
        """Make sure that the answers are right.

        Raises:
            ServerError: If they are not.
        """
        for picture in (self._example, self._digit):
            status, body = server.post(_form(picture), _CONTENT_TYPE)
            answer = json.loads(body) if status == 200 else {}
            if isinstance(answer, list):  # BentoML answers a batch by a list
                (answer,) = answer
            right = answer.get("prediction") == "7" and answer.get("decision") == "accept"
            if not (right and len(answer["classes"]) == 10 and answer["samples"] == 100):
                raise ServerError(server.describe(f"answers {status} {body[:500]!r}"))

    def run(self, server: Server, connections: int, seconds: float) -> Round:
        """Keep as many requests under way as there are connections, for about so many seconds.

        Its one thread shares the cores with the server. wrk corrects its latencies for coordinated
        omission: one of over twice the mean stands for the requests that waited behind it, too.

        Raises:
            ServerError: If the generator fails.
        """
        url = f"http://127.0.0.1:{server.port}/predict"
        command = [
            "wrk", "--threads=1", f"--connections={connections}", f"--timeout={_TIMEOUT_S}s",
            f"--duration={max(1, round(seconds))}s", f"--script={self._script}", url,
        ]  # fmt: skip
        began, busy, own = time.monotonic(), busy_cores_s(), time.process_time()
        children, cpu = _children_s(), server.cpu_s()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        cpu_s, children_s = server.cpu_s() - cpu, _children_s() - children
        wall_s, own_s = time.monotonic() - began, time.process_time() - own
        foreign_s = busy_cores_s() - busy - cpu_s - children_s - own_s
        memory_mb = server.memory_mb()
        try:
            report = json.loads(done.stderr)
        except ValueError:
            raise ServerError(f"wrk failed: {done.stderr or done.stdout}") from None
        server.settle()
        return Round(
            seconds=report["us"] / 1e6,
            answered=report["requests"] - report["status"],
            errors=report["status"] + report["socket"],
            cpu_s=cpu_s,
            memory_mb=memory_mb,
            generator_cores=children_s / wall_s,
            foreign_cores=max(0.0, foreign_s / wall_s),
            latencies=Counter(dict(report["latencies"])),
        )


def percentile_ms(latencies: Counter[int], percent: float) -> float:
    """The least latency, in ms, that is not exceeded by `percent` of all."""
    wanted = percent / 100 * latencies.total()
    seen = 0
    for us in sorted(latencies):
        seen += latencies[us]
        if seen >= wanted:
            return us / 1000
    return float("nan")


def _form(picture: bytes) -> bytes:
    head = (
        f"--{_BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="file"; filename="digit.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    return head.encode() + picture + f"\r\n--{_BOUNDARY}--\r\n".encode()


def _children_s() -> float:
    """CPU seconds of children that have ended: between two calls, the generator's."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime

"""Load generator: wrk posts one image over loopback sockets and reports as JSON."""

import json
import resource
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.serving.peers.processes import Server, ServerError, busy_cpu_s
from benchmarks.serving.uploads import EXAMPLE, example_digit, upload

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
    """One round of load on one server."""

    contender: str
    connections: int
    seconds: float
    answered: int  # requests without an error
    errors: int  # answers of status 400 and above, and socket errors
    cpu_s: float  # of the server's processes
    memory_mb: float  # of the same at the end
    generator_cpus: float  # CPUs that the load generator used
    other_cpus: float  # CPUs that neither server nor generator used
    latencies: Counter[int]  # number of requests by latency in µs

    @property
    def rate(self) -> float:
        """Answered requests per second."""
        return self.answered / self.seconds


class Load:
    """The load of the benchmark: the example's 28×28 pixels, from a script in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._digit = upload("/predict", "file", example_digit())
        self._script = folder / "load.lua"
        body = "".join(f"\\{byte:03d}" for byte in self._digit.body)
        self._script.write_text(_SCRIPT.format(content_type=self._digit.content_type, body=body))

    def check(self, server: Server) -> None:
        """Check that a server answers correctly.

        Raises:
            ServerError: If it does not.
        """
        for sent in (upload("/predict", "file", EXAMPLE), self._digit):
            headers = {"Content-Type": sent.content_type}
            response = httpx.post(
                f"{server.url}{sent.path}", content=sent.body, headers=headers, timeout=30
            )
            answer = response.json() if response.status_code == 200 else {}
            if isinstance(answer, list):  # BentoML answers a batch with a list
                (answer,) = answer
            right = answer.get("prediction") == "7" and answer.get("decision") == "accept"
            if not (right and len(answer["classes"]) == 10 and answer["samples"] == 100):
                problem = f"answered {response.status_code} {response.content[:500]!r}"
                raise ServerError(server.describe(problem))

    def run(self, server: Server, connections: int, seconds: float) -> Round:
        """Load a server with a number of concurrent connections.

        wrk's one thread shares the CPUs with the server. wrk corrects latencies for coordinated
        omission: a latency of over twice the mean also counts for the requests queued behind it.

        Raises:
            ServerError: If wrk fails.
        """
        url = f"{server.url}{self._digit.path}"
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


def _children_s() -> float:
    """CPU seconds of ended child processes; the difference of two calls is wrk's."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime

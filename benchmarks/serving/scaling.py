"""One service and several, and the resources that 10,000 images per second need.

Measures the overhead of what stands before the service (nginx, Ray), the throughput of a second
process with requests of 16 images, and waiting times against queueing theory. Computes from them
what more machines need. `.venv-ray/bin/python`, which `make test-ray` makes, has Ray; nginx and wrk
are Debian packages. Rows of missing programs are skipped. `--containers` adds containers behind
nginx, built by a Docker engine.
"""

import http.client
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, quantiles, variance
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from benchmarks.common.report import Row, format_table, has, make_parser, write_json
from benchmarks.serving.clusters import ONE_WORKER, behind_nginx, under_ray
from benchmarks.serving.compose import scaled
from benchmarks.serving.local_service import running_service
from benchmarks.serving.queueing import mean_wait, wait_percentile
from benchmarks.serving.uploads import EXAMPLE, Upload, example_digit, upload

_BATCH = 16  # images of a batch request
_CLIENTS = 6  # for each worker thread: enough to keep it busy
_LOADS = (0.5, 0.7, 0.85)  # of the measured throughput
_TARGET = 10_000  # images per second
_UTILISATION = 0.7  # planned for worker threads and proxies
_PROXIED = "lower bound of requests per second through a proxy"
_MAX_IDLE_S = 2.0  # less than servers keep an idle connection open
_PHOTO_BYTES = 2_000_000  # a photograph of a phone
_HAS_NGINX, _HAS_WRK = shutil.which("nginx") is not None, shutil.which("wrk") is not None


@dataclass(frozen=True)
class Deployment:
    """Services behind one URL."""

    url: str
    workers: int = 1  # worker threads behind it, one in each process
    single: str | None = None  # the deployment with one process behind the same proxy


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    rounds: int = 5
    sequential: int = 40  # requests of each round, one after another
    seconds: float = 6.0  # of full load in each round
    poisson_s: float = 60.0  # at each load


_FULL, _QUICK = Plan(), Plan(rounds=1, sequential=10, seconds=2.0, poisson_s=4.0)


Deployments = Mapping[str, Deployment]


def main() -> int:
    """Run the command; returns its exit code."""
    parser = make_parser("serving.scaling", __doc__, quick="everything once and briefly")
    parser.add_argument("--containers", action="store_true", help="also containers behind nginx")
    options = parser.parse_args()
    missing = [tool for tool in ("docker", "nginx") if shutil.which(tool) is None]
    if options.containers and missing:
        print(f"error: --containers needs {' and '.join(missing)}", file=sys.stderr)
        return 2
    installed = {"nginx": _HAS_NGINX, "Ray": has("ray"), "wrk": _HAS_WRK}
    for name in (name for name, found in installed.items() if not found):
        print(f"skipped, not installed: {name}")
    try:
        results = _measure(_QUICK if options.quick else _FULL, with_containers=options.containers)
    except subprocess.CalledProcessError as error:
        print(f"error: {' '.join(map(str, error.cmd))}\n{error.stdout}", file=sys.stderr)
        return 1
    write_json(options.json, results)
    return 0


def _measure(plan: Plan, *, with_containers: bool) -> dict[str, Any]:
    """Measure all parts and print each when it is done."""
    tables: dict[str, list[Row]] = {}

    def report(title: str, rows: list[Row]) -> None:
        tables[title] = rows
        if rows:
            print(f"\n{title}\n{format_table(rows)}", flush=True)

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        deployments = _start(stack, folder, with_containers=with_containers)
        single = upload("/predict", "file", example_digit())
        batch = upload("/predict/batch", "files", *[EXAMPLE] * _BATCH)
        answer = _sender(single, deployments["a process"].url)()
        sizes = {"request": len(single.body), "answer": len(answer)}
        report("one image, no other load", _overhead(deployments, single, plan))
        rates = _throughput(deployments, batch, plan)
        title = f"throughput with requests of {_BATCH} images"
        report(title, _throughput_rows(deployments, rates))
        report(_PROXIED, _proxied(deployments, plan))
        report("waiting, predicted and measured", _waiting(deployments, batch, rates, plan))
    report(f"{_TARGET:,} images per second", _sizing(rates, tables[_PROXIED], sizes))
    return {"sizes": sizes, **tables}


def _start(stack: ExitStack, folder: Path, *, with_containers: bool) -> dict[str, Deployment]:
    urls = [stack.enter_context(running_service(ONE_WORKER)) for _ in range(2)]
    found = {"a process": Deployment(urls[0])}

    def add_behind_nginx(kind: str, plural: str, urls: Sequence[str]) -> None:
        one, two = f"a {kind} behind nginx", f"two {plural} behind nginx"
        for name, services in ((one, urls[:1]), (two, urls)):
            url = stack.enter_context(behind_nginx(services, folder / name.replace(" ", "-")))
            found[name] = Deployment(url, len(services), single=one)

    if _HAS_NGINX:
        add_behind_nginx("process", "processes", urls)
    if with_containers:
        add_behind_nginx("container", "containers", stack.enter_context(scaled(2, ONE_WORKER)))
    if has("ray"):
        one, two = stack.enter_context(under_ray((1, 2)))
        found["a replica under Ray"] = Deployment(one)
        found["two under Ray"] = Deployment(two, 2, single="a replica under Ray")
    return found


def _sender(request: Upload, url: str) -> Callable[[], bytes]:
    """Return a function that sends it on one connection; it raises for any status but 200."""
    target = urlsplit(url)
    connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
    headers = {"Content-Type": request.content_type}
    used = time.monotonic()

    def send() -> bytes:
        nonlocal used
        if time.monotonic() - used > _MAX_IDLE_S:
            connection.close()  # the next request reopens it
        connection.request("POST", target.path + request.path, request.body, headers)
        response = connection.getresponse()
        body, used = response.read(), time.monotonic()
        if response.status != 200:
            raise RuntimeError(f"{url} answered {response.status} {body[:200]!r}")
        return body

    return send


def _overhead(deployments: Deployments, request: Upload, plan: Plan) -> list[Row]:
    senders = {n: _sender(request, d.url) for n, d in deployments.items() if d.workers == 1}
    samples: dict[str, list[float]] = {name: [] for name in senders}
    for turn in tqdm(range(plan.rounds + 1), desc="sequential", disable=None, leave=False):
        for name, send in senders.items():
            times = _times(send, plan.sequential)
            if turn > 0:  # the first one warms up
                samples[name] += times
    base = median(samples["a process"])
    return [
        {
            "": name,
            "median ms": 1e3 * median(times),
            "p95 ms": 1e3 * quantiles(times, n=20)[-1],
            "ms more than a process": 1e3 * (median(times) - base),
        }
        for name, times in samples.items()
    ]


def _throughput(deployments: Deployments, request: Upload, plan: Plan) -> dict[str, float]:
    """Batch requests per second at full load, the median of the rounds."""
    rates: dict[str, list[float]] = {name: [] for name in deployments}
    for turn in tqdm(range(plan.rounds + 1), desc="full load", disable=None, leave=False):
        for name, deployment in deployments.items():
            rate = _full_load(request, deployment, plan.seconds if turn > 0 else 2.0)
            if turn > 0:
                rates[name].append(rate)
    return {name: median(measured) for name, measured in rates.items()}


def _full_load(request: Upload, deployment: Deployment, seconds: float) -> float:
    ends: list[float] = []
    began = time.perf_counter()

    def client() -> None:
        send = _sender(request, deployment.url)
        while time.perf_counter() - began < seconds:
            send()
            ends.append(time.perf_counter())

    _in_threads(client, _CLIENTS * deployment.workers)
    # Skip the first quarter, until all clients are at work, and what ends after the time.
    counted = [end for end in ends if seconds / 4 <= end - began <= seconds]
    return (len(counted) - 1) / (counted[-1] - counted[0])


def _throughput_rows(deployments: Deployments, rates: Mapping[str, float]) -> list[Row]:
    return [
        {
            "": name,
            "workers": str(deployments[name].workers),
            "requests/s": rate,
            "images/s": rate * _BATCH,
            "× single": rate / rates[deployments[name].single or name],
        }
        for name, rate in rates.items()
    ]


def _waiting(
    deployments: Deployments, request: Upload, rates: Mapping[str, float], plan: Plan
) -> list[Row]:
    """Response times of Poisson arrivals, measured and predicted.

    Predicted for one queue that all workers share, and for one queue per worker with random
    assignment of the requests.
    """
    rows: list[Row] = []
    # One process behind nginx waits as one process alone does.
    measured = [name for name, each in deployments.items() if each.single != name]
    alone = {
        name: _times(_sender(request, deployments[name].url), plan.sequential) for name in measured
    }
    turns = [(name, load) for name in measured for load in _LOADS]
    for name, load in tqdm(turns, desc="Poisson arrivals", disable=None, leave=False):
        each = deployments[name]
        # All deployments get the same arrivals, scaled to their throughput.
        seed = _LOADS.index(load)
        times = _poisson(request, each.url, load * rates[name], plan.poisson_s, seed=seed)
        service_s, alone_s = each.workers / rates[name], fmean(alone[name])
        cv2 = variance(alone[name]) / alone_s**2
        shared_s = mean_wait(each.workers, load * each.workers, service_s, service_cv2=cv2)
        separate_s = mean_wait(1, load, service_s, service_cv2=cv2)
        rows.append(
            {
                "": name,
                "load": load,
                "mean ms, one queue": 1e3 * (alone_s + shared_s),
                "a queue each": 1e3 * (alone_s + separate_s),
                "measured": 1e3 * fmean(times),
                "p95 ms, a queue each": 1e3 * (alone_s + wait_percentile(1, load, separate_s, 95)),
                "measured ": 1e3 * quantiles(times, n=20)[-1],
            }
        )
    return rows


def _poisson(
    request: Upload, url: str, per_second: float, seconds: float, *, seed: int
) -> list[float]:
    """Send requests at Poisson arrival times; returns seconds from arrival to answer."""
    generator, now = random.Random(seed), 0.0  # noqa: S311
    arrivals: list[float] = []
    while (now := now + generator.expovariate(per_second)) < seconds:
        arrivals.append(now)
    times: list[float] = []
    pending = iter(arrivals)  # shared by the clients: the interpreter lock guards each step
    began = time.perf_counter()

    def client() -> None:
        send = _sender(request, url)
        for arrival in pending:
            time.sleep(max(0.0, began + arrival - time.perf_counter()))
            send()
            times.append(time.perf_counter() - began - arrival)

    _in_threads(client, min(64, len(arrivals)))
    return times


def _proxied(deployments: Deployments, plan: Plan) -> list[Row]:
    """Throughput of `GET /health/live`, the cheapest request.

    The service may be the bottleneck, so the result is a lower bound for the proxy.
    """
    rows: list[Row] = []
    for name, each in deployments.items():
        if each.workers > 1 or not _HAS_WRK:
            continue
        command = ["wrk", "-t1", "-c32", f"-d{max(1, round(plan.seconds))}s"]
        done = subprocess.run(
            [*command, f"{each.url}/health/live"], capture_output=True, text=True, check=True
        )
        if "Non-2xx" in done.stdout:
            raise RuntimeError(f"{name} rejects requests: {done.stdout}")
        (rate,) = re.findall(r"Requests/sec:\s+([\d.]+)", done.stdout)
        rows.append({"": name, "requests/s": float(rate)})
    return rows


def _sizing(rates: Mapping[str, float], proxied: list[Row], sizes: Mapping[str, int]) -> list[Row]:
    """Resources for the target rate at the planned utilisation.

    The number of CPUs follows from two worker threads, which share their CPUs with the proxy.
    """
    needs: dict[str, float] = {}
    for name in ("two processes behind nginx", "two containers behind nginx", "two under Ray"):
        if name in rates:
            per_cpu = rates[name] * _BATCH / 2
            needs[f"CPUs, {name}, {_BATCH} images a request"] = _TARGET / per_cpu / _UTILISATION
    for queue, n in (("worker thread", 1), ("8 worker threads", 8)):
        load = n * _UTILISATION
        wait_s = wait_percentile(n, load, mean_wait(n, load, 1 / rates["a process"]), 99)
        needs[f"p99 wait, ms, one queue for each {queue}"] = 1e3 * wait_s
    needs["Gbit/s in, digits of 28×28"] = _TARGET * sizes["request"] * 8e-9
    needs["Gbit/s in, photographs of 2 MB"] = _TARGET * _PHOTO_BYTES * 8e-9
    needs["Gbit/s out"] = _TARGET * sizes["answer"] * 8e-9
    proxies = {"a process behind nginx": "nginx", "a replica under Ray": "Ray"}
    for row in proxied:
        if proxy := proxies.get(row[""]):
            count = _TARGET / row["requests/s"] / _UTILISATION
            needs[f"{proxy} proxies at most, 1 image a request"] = count
            needs[f"{proxy} proxies at most, {_BATCH} images a request"] = count / _BATCH
    return [{"": what, "needed": value} for what, value in needs.items()]


def _times(send: Callable[[], object], n: int) -> list[float]:
    """Seconds of `n` requests, one after another."""
    times = []
    for _ in range(n):
        began = time.perf_counter()
        send()
        times.append(time.perf_counter() - began)
    return times


def _in_threads(client: Callable[[], None], n: int) -> None:
    """Run `n` clients at once; an exception of one is raised."""
    with ThreadPoolExecutor(n) as pool:
        list(pool.map(lambda _: client(), range(n)))


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.serving.scaling`: one service and several, and what 10,000 pictures a second need.

What stands before the service costs (a plain proxy, Ray's), what a second process brings with
requests of 16 pictures, whether queueing theory foretells how long requests wait, and what follows
from that for more than one machine. `.venv-ray/bin/python`, which `make test-ray` makes, has Ray;
nginx and wrk are Debian's. Without one of them its rows are left out. `--containers` adds
containers behind nginx, for which a Docker engine builds the image.
"""

import argparse
import http.client
import io
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, quantiles, variance
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image
from tqdm import tqdm

from benchmarks.common.report import Row, format_table, write_json
from benchmarks.serving.clusters import (
    ONE_LANE,
    behind_nginx,
    has_nginx,
    has_ray,
    processes,
    under_ray,
)
from benchmarks.serving.compose import scaled
from benchmarks.serving.queueing import mean_wait, wait_percentile
from model import open_bytes

__all__ = ["main"]

_EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "seven.png"
_PICTURES = 16  # of a heavy request
_CLIENTS = 6  # for each lane: enough that none waits for work
_LOADS = (0.5, 0.7, 0.85)  # of what was found to be the most
_WANTED = 10_000  # pictures a second
_UTILISATION = 0.7  # what lanes and proxies are sized for
_PASSED_ON = "requests a second that a proxy passes on, at least"
_IDLE_S = 2.0  # less than servers keep a connection for that nothing is asked on
_PHOTO_BYTES = 2_000_000  # a telephone's photograph


@dataclass(frozen=True)
class Contender:
    """Services behind one address.

    Attributes:
        url: The address.
        lanes: How many lanes are behind it, one in each process.
        single: The name of the contender that is one of its kind behind the same proxy; None for
            what stands by itself.
    """

    url: str
    lanes: int = 1
    single: str | None = None


@dataclass(frozen=True)
class Plan:
    """How much to measure; `--quick` measures little."""

    rounds: int = 5
    alone: int = 40  # requests of each round, one after another
    seconds: float = 6.0  # of full load in each round
    arriving_s: float = 60.0  # at each load


_FULL, _QUICK = Plan(), Plan(rounds=1, alone=10, seconds=2.0, arriving_s=4.0)


@dataclass(frozen=True)
class Asked:
    """A request that is made again and again."""

    path: str
    content_type: str
    body: bytes

    def of(self, url: str) -> Callable[[], bytes]:
        """Ask there, on one connection that is kept; raises for any answer but 200."""
        where = urlsplit(url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
        headers = {"Content-Type": self.content_type}
        used = time.monotonic()

        def ask() -> bytes:
            nonlocal used
            if time.monotonic() - used > _IDLE_S:
                connection.close()  # it is opened again
            connection.request("POST", where.path + self.path, self.body, headers)
            answer = connection.getresponse()
            body, used = answer.read(), time.monotonic()
            if answer.status != 200:
                raise RuntimeError(f"{url} answers {answer.status} {body[:200]!r}")
            return body

        return ask


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.scaling", description=__doc__
    )
    parser.add_argument("--json", type=Path, help="also write the results there")
    parser.add_argument("--quick", action="store_true", help="everything once and briefly")
    parser.add_argument("--containers", action="store_true", help="containers behind nginx, too")
    options = parser.parse_args()
    missing = [tool for tool in ("docker", "nginx") if shutil.which(tool) is None]
    if options.containers and missing:
        print(f"error: --containers needs {' and '.join(missing)}", file=sys.stderr)
        return 2
    for name, there in (("nginx", has_nginx()), ("Ray", has_ray())):
        if not there:
            print(f"{name}: left out, not installed here")
    try:
        results = _measure(_QUICK if options.quick else _FULL, with_containers=options.containers)
    except subprocess.CalledProcessError as error:
        print(f"error: {' '.join(map(str, error.cmd))}\n{error.stdout}", file=sys.stderr)
        return 1
    if options.json:
        write_json(options.json, results)
    return 0


def _measure(plan: Plan, *, with_containers: bool) -> dict[str, Any]:
    """All parts, each told as soon as it is there."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        contenders = _start(stack, folder, with_containers=with_containers)
        light, heavy = _light(), _heavy()
        results: dict[str, Any] = {
            "sizes": {
                "request": len(light.body),
                "answer": len(light.of(contenders["a process"].url)()),
            }
        }
        parts: dict[str, list[Row]] = {}

        def tell(title: str, rows: list[Row]) -> None:
            parts[title] = rows
            if rows:
                print(f"\n{title}\n{format_table(rows)}", flush=True)

        tell("one picture, nothing beside it", _overhead(contenders, light, plan))
        most = _most(contenders, heavy, plan)
        title = f"requests of {_PICTURES} pictures, as many as can be answered"
        tell(title, _rates(contenders, most))
        tell(_PASSED_ON, _passed_on(contenders, plan))
        tell("waiting, foretold and found", _waiting(contenders, heavy, most, plan))
    tell(f"{_WANTED:,} pictures a second", _sized(most, parts[_PASSED_ON], results["sizes"]))
    return {**results, **parts}


def _start(stack: ExitStack, folder: Path, *, with_containers: bool) -> dict[str, Contender]:
    urls = stack.enter_context(processes(2))
    found = {"a process": Contender(urls[0])}

    def add_behind_nginx(kind: str, plural: str, urls: Sequence[str]) -> None:
        one, two = f"a {kind} behind nginx", f"two {plural} behind nginx"
        for name, behind in ((one, urls[:1]), (two, urls)):
            url = stack.enter_context(behind_nginx(behind, folder / name.replace(" ", "-")))
            found[name] = Contender(url, len(behind), single=one)

    if has_nginx():
        add_behind_nginx("process", "processes", urls)
    if with_containers:
        add_behind_nginx("container", "containers", stack.enter_context(scaled(2, ONE_LANE)))
    if has_ray():
        one, two = stack.enter_context(under_ray((1, 2)))
        found["a replica under Ray"] = Contender(one)
        found["two under Ray"] = Contender(two, 2, single="a replica under Ray")
    return found


def _light() -> Asked:
    """One digit of 28×28 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(open_bytes(_EXAMPLE.read_bytes()).pixels).save(buffer, "PNG")
    return _asked("/predict", [("file", ("seven.png", buffer.getvalue(), "image/png"))])


def _heavy() -> Asked:
    picture = ("files", ("seven.png", _EXAMPLE.read_bytes(), "image/png"))
    return _asked("/predict/batch", [picture] * _PICTURES)


def _asked(path: str, files: list[tuple[str, tuple[str, bytes, str]]]) -> Asked:
    form = httpx.Request("POST", "http://localhost", files=files)
    return Asked(path, form.headers["content-type"], form.read())


def _overhead(contenders: Mapping[str, Contender], light: Asked, plan: Plan) -> list[Row]:
    single = {name: each for name, each in contenders.items() if each.lanes == 1}
    asks = {name: light.of(each.url) for name, each in single.items()}
    taken: dict[str, list[float]] = {name: [] for name in single}
    for turn in tqdm(range(plan.rounds + 1), desc="one at a time", disable=None, leave=False):
        for name, ask in asks.items():
            times = [_timed(ask) for _ in range(plan.alone)]
            if turn > 0:  # the first is for warming up
                taken[name] += times
    least = median(taken["a process"])
    return [
        {
            "": name,
            "median ms": 1e3 * median(times),
            "95 % ms": 1e3 * quantiles(times, n=20)[-1],
            "ms more than a process": 1e3 * (median(times) - least),
        }
        for name, times in taken.items()
    ]


def _most(contenders: Mapping[str, Contender], heavy: Asked, plan: Plan) -> dict[str, float]:
    """Heavy requests per second at full load: the median of the rounds."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in tqdm(range(plan.rounds + 1), desc="full load", disable=None, leave=False):
        for name, each in contenders.items():
            rate = _full_load(heavy, each, plan.seconds if turn > 0 else 2.0)
            if turn > 0:
                rates[name].append(rate)
    return {name: median(found) for name, found in rates.items()}


def _full_load(heavy: Asked, contender: Contender, seconds: float) -> float:
    ends: list[float] = []
    began = time.perf_counter()

    def ask_on() -> None:
        ask = heavy.of(contender.url)
        while time.perf_counter() - began < seconds:
            ask()
            ends.append(time.perf_counter())

    _in_threads([ask_on] * (_CLIENTS * contender.lanes))
    # From the end of the first quarter, when all are at work, to the last answer within the time.
    counted = [end for end in ends if seconds / 4 <= end - began <= seconds]
    return (len(counted) - 1) / (counted[-1] - counted[0])


def _rates(contenders: Mapping[str, Contender], most: Mapping[str, float]) -> list[Row]:
    rows: list[Row] = []
    for name, rate in most.items():
        each = contenders[name]
        rows.append(
            {
                "": name,
                "lanes": str(each.lanes),
                "requests/s": rate,
                "pictures/s": rate * _PICTURES,
                "× one of its kind": rate / most[each.single or name],
            }
        )
    return rows


def _waiting(
    contenders: Mapping[str, Contender], heavy: Asked, most: Mapping[str, float], plan: Plan
) -> list[Row]:
    """Requests that come by chance (Poisson): how long they take, and by theory would.

    If whoever is free next took the longest waiting from one queue; and if each request is sent by
    chance to one lane, which has a queue of its own.
    """
    rows: list[Row] = []
    # One behind nginx waits as one by itself does.
    measured = [name for name, each in contenders.items() if each.single != name]
    turns = [(name, load) for name in measured for load in _LOADS]
    alone: dict[str, list[float]] = {}
    for name, load in tqdm(turns, desc="chance arrivals", disable=None, leave=False):
        each = contenders[name]
        if name not in alone:
            ask = heavy.of(each.url)
            alone[name] = [_timed(ask) for _ in range(plan.alone)]
        service_s = each.lanes / most[name]
        # The same chance for all, but for their pace.
        seed = _LOADS.index(load)
        took = _arriving(heavy, each.url, load * most[name], plan.arriving_s, seed=seed)
        cv2, lone_s = variance(alone[name]) / fmean(alone[name]) ** 2, fmean(alone[name])
        together_s = mean_wait(each.lanes, load * each.lanes, service_s, service_cv2=cv2)
        apart_s = mean_wait(1, load, service_s, service_cv2=cv2)
        rows.append(
            {
                "": name,
                "load": load,
                "mean ms, one queue": 1e3 * (lone_s + together_s),
                "each its own": 1e3 * (lone_s + apart_s),
                "found": 1e3 * fmean(took),
                "95 % ms, each its own": 1e3 * (lone_s + wait_percentile(1, load, apart_s, 95)),
                "found ": 1e3 * quantiles(took, n=20)[-1],
            }
        )
    return rows


def _arriving(
    heavy: Asked, url: str, per_second: float, seconds: float, *, seed: int
) -> list[float]:
    """Seconds from each arrival to its answer."""
    chance, now = random.Random(seed), 0.0  # noqa: S311
    due: list[float] = []
    while (now := now + chance.expovariate(per_second)) < seconds:
        due.append(now)
    taken: list[float] = []
    turn = iter(due)
    lock = threading.Lock()
    began = time.perf_counter()

    def ask_on() -> None:
        ask = heavy.of(url)
        while True:
            with lock:
                when = next(turn, None)
            if when is None:
                return
            time.sleep(max(0.0, began + when - time.perf_counter()))
            ask()
            taken.append(time.perf_counter() - began - when)

    _in_threads([ask_on] * min(64, len(due)))
    return taken


def _passed_on(contenders: Mapping[str, Contender], plan: Plan) -> list[Row]:
    """`GET /health/live`, which costs a service the least there is.

    The service behind a proxy may be what bounds it: the proxy alone passes on so many at least.
    """
    if shutil.which("wrk") is None:
        print("wrk: left out, not installed here")
        return []
    rows: list[Row] = []
    for name, each in contenders.items():
        if each.lanes > 1:
            continue
        command = ["wrk", "-t1", "-c32", f"-d{max(1, round(plan.seconds))}s"]
        done = subprocess.run(
            [*command, f"{each.url}/health/live"], capture_output=True, text=True, check=True
        )
        if "Non-2xx" in done.stdout:
            raise RuntimeError(f"{name} refuses what it is asked: {done.stdout}")
        rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", done.stdout)[0])
        rows.append({"": name, "requests/s": rate})
    return rows


def _sized(most: Mapping[str, float], passed_on: list[Row], sizes: Mapping[str, int]) -> list[Row]:
    """What so many pictures a second need, at a utilisation with room.

    Cores by what two lanes did on the cores that they share with what stands before them.
    """
    rows: list[Row] = []
    for name in ("two processes behind nginx", "two containers behind nginx", "two under Ray"):
        if name in most:
            cores = 2 * _WANTED / (most[name] * _PICTURES) / _UTILISATION
            rows.append({"": f"cores, as {name}, {_PICTURES} a request", "needed": cores})
    heavy_s = 1 / most["a process"]
    for queue, n in (("lane", 1), ("8 lanes", 8)):
        wait_s = mean_wait(n, n * _UTILISATION, heavy_s)
        wait_s = wait_percentile(n, n * _UTILISATION, wait_s, 99)
        rows.append(
            {"": f"99 % wait at most, ms, a queue for each {queue}", "needed": 1e3 * wait_s}
        )
    rows += [
        {"": "Gbit/s in, digits of 28×28", "needed": _WANTED * sizes["request"] * 8e-9},
        {"": "Gbit/s in, photographs of 2 MB", "needed": _WANTED * _PHOTO_BYTES * 8e-9},
        {"": "Gbit/s out", "needed": _WANTED * sizes["answer"] * 8e-9},
    ]
    for row in passed_on:
        if row[""] in {"a process behind nginx", "a replica under Ray"}:
            proxies = _WANTED / row["requests/s"] / _UTILISATION
            what = row[""].removeprefix("a process behind ").replace("a replica under ", "")
            rows += [
                {"": f"proxies of {what} at most, a picture a request", "needed": proxies},
                {"": f"the same, {_PICTURES} a request", "needed": proxies / _PICTURES},
            ]
    return rows


def _timed(ask: Callable[[], object]) -> float:
    began = time.perf_counter()
    ask()
    return time.perf_counter() - began


def _in_threads(works: list[Callable[[], None]]) -> None:
    """Do all at once; what one raises is raised."""
    faults: list[Exception] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised below
            faults.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


if __name__ == "__main__":
    sys.exit(main())

"""Tables of the results of `benchmarks.serving.serve`."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.common.report import format_table
from benchmarks.serving.peers.load import Round, percentile_ms

_DISTURBED_CPUS = 0.15  # used by other processes: the round counts as disturbed
_PREFERRED = 32  # connections of the ratios, if measured
PEERS = ("litserve", "bentoml", "uvloop", "httptools")


def load_rows(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Summarise the rounds of each contender and number of connections."""
    rows = []
    for (contender, connections), group in _groups(rounds).items():
        latencies: Counter[int] = sum((done.latencies for done in group), Counter())
        rates = [done.rate for done in group]
        rows.append(
            {
                "contender": contender,
                "connections": connections,
                "requests/s": _rate(group),
                "± %": 50 * (max(rates) - min(rates)) / max(_rate(group), 1e-9),
                "p50 ms": percentile_ms(latencies, 50),
                "p95 ms": percentile_ms(latencies, 95),
                "p99 ms": percentile_ms(latencies, 99),
                "CPU ms each": _cpu_ms(group),
                "MB": max(done.memory_mb for done in group),
                "errors": sum(done.errors for done in group),
            }
        )
    return rows


def ratio_rows(rounds: Sequence[Round], ours: str) -> list[dict[str, Any]]:
    """Compare our requests per second and CPU per request with the others'."""
    connections = _connections(rounds)
    others = {name: group for (name, c), group in _groups(rounds).items() if c == connections}
    own = others.pop(ours, None)
    if own is None:
        return []
    rows = []
    for name, group in others.items():
        ratios = [a.rate / max(b.rate, 1e-9) for a, b in zip(own, group, strict=True)]
        rows.append(
            {
                f"{ours}, {connections} connections, against": name,
                "requests/s": f"{_rate(own) / max(_rate(group), 1e-9):.2f} ×",
                "single rounds": f"{min(ratios):.2f} to {max(ratios):.2f}",
                "CPU each": f"1/{_cpu_ms(group) / _cpu_ms(own):.2f}",
            }
        )
    return rows


def engine_rows(
    costs: Mapping[str, Sequence[float]], rounds: Sequence[Round], ours: str
) -> list[dict[str, Any]]:
    """Show the cost of the engine alone, and what a request to our service costs beyond it."""
    own = _groups(rounds).get((ours, _connections(rounds)))
    rows: list[dict[str, Any]] = []
    for way, numbers in costs.items():
        middle, least = median(numbers), min(numbers)
        row = {"CPU ms per image": way, "median": middle, "min": least}
        if own:
            request = _cpu_ms(own)
            row[f"of a request's {request:.2f}, beyond the median"] = request - middle
            row["beyond the min"] = request - least
        rows.append(row)
    return rows


def format_results(results: Mapping[str, Any]) -> str:
    """Format all tables and the notes on them."""
    titles = {
        "trials": "Tried configurations, of which the fastest is measured",
        "starts": "Starts: from the process to the first 200 of its readiness",
        "load": "Load; `CPU ms each` and `MB` (PSS) cover a server's whole process tree",
        "ratios": "Ratios",
        "engine": "The engine alone, in one process",
    }
    parts = [f"{t}\n\n{format_table(results[key])}" for key, t in titles.items() if results[key]]
    rounds = results["rounds"]
    generator = max((row["generator_cpus"] for row in rounds), default=0.0)
    notes = [f"wrk shared the CPUs, with one thread that used at most {generator:.2f} of them."]
    installed = [f"{name} {version}" for name, version in results["peer_versions"].items()]
    if installed:
        notes.append(f"The peers had {', '.join(installed)}.")
    notes += [
        f"{name} used the interpreter {python}."
        for name, python in results["interpreters"].items()
        if python != sys.executable
    ]
    if not results["plan"]["trial_s"]:
        notes.append("No configuration was tried out: each peer used its first one.")
    notes += [
        f"{row['contender']} uses {row['idle CPUs']:.2f} CPUs while idle, so it ran only in its "
        "own rounds."
        for row in results["starts"]
        if row["stopped while idle"]
    ]
    disturbed = [row["other_cpus"] for row in rounds if row["other_cpus"] > _DISTURBED_CPUS]
    if disturbed:
        notes.append(
            f"{len(disturbed)} of {len(rounds)} rounds were disturbed: other processes used up to "
            f"{max(disturbed):.2f} CPUs."
        )
    return "\n\n".join([*parts, "\n".join(notes)])


def _groups(rounds: Sequence[Round]) -> dict[tuple[str, int], list[Round]]:
    groups: dict[tuple[str, int], list[Round]] = {}
    for done in rounds:
        groups.setdefault((done.contender, done.connections), []).append(done)
    return groups


def _connections(rounds: Sequence[Round]) -> int:
    measured = {done.connections for done in rounds}
    return _PREFERRED if _PREFERRED in measured else max(measured)


def _rate(rounds: Sequence[Round]) -> float:
    return sum(done.answered for done in rounds) / sum(done.seconds for done in rounds)


def _cpu_ms(rounds: Sequence[Round]) -> float:
    return 1000 * sum(done.cpu_s for done in rounds) / max(sum(d.answered for d in rounds), 1)

"""From rounds of load to the tables that are printed."""

import importlib.metadata
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from benchmarks.common.report import format_table
from benchmarks.serving.peers.load import Round, percentile_ms

__all__ = ["Turn", "engine_rows", "load_rows", "peer_versions", "ratio_rows", "text", "turn_rows"]

_FOREIGN_CORES = 0.15  # more than this used elsewhere, and a round is called disturbed
_PREFERRED = 32  # the concurrency of the ratios, if measured
_PEERS = ("litserve", "bentoml", "uvloop", "httptools")


class Turn(NamedTuple):
    """One round, and whose it was."""

    contender: str
    concurrency: int
    done: Round


def peer_versions() -> dict[str, str]:
    """Of what only the peers' environment has."""
    found = {}
    for name in _PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def turn_rows(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Every round by itself, without its latencies."""
    return [
        {
            "contender": turn.contender,
            "concurrency": turn.concurrency,
            "requests/s": turn.done.rate,
            **{name: value for name, value in vars(turn.done).items() if name != "latencies"},
        }
        for turn in turns
    ]


def load_rows(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The rounds of each contender and concurrency taken together."""
    rows = []
    for (contender, concurrency), rounds in _grouped(turns):
        latencies: Counter[int] = sum((done.latencies for done in rounds), Counter())
        rates = [done.rate for done in rounds]
        rows.append(
            {
                "contender": contender,
                "at once": concurrency,
                "requests/s": _rate(rounds),
                "± %": 50 * (max(rates) - min(rates)) / max(_rate(rounds), 1e-9),
                "p50 ms": percentile_ms(latencies, 50),
                "p95 ms": percentile_ms(latencies, 95),
                "p99 ms": percentile_ms(latencies, 99),
                "CPU ms each": _cpu_ms(rounds),
                "MB": max(done.memory_mb for done in rounds),
                "errors": sum(done.errors for done in rounds),
            }
        )
    return rows


def ratio_rows(turns: Sequence[Turn], ours: str) -> list[dict[str, Any]]:
    """How many times the others' requests per second ours are, and how much less CPU they take."""
    concurrency = _concurrency(turns)
    at = {name: rounds for (name, c), rounds in _grouped(turns) if c == concurrency}
    if ours not in at:
        return []
    own = at.pop(ours)
    return [
        {
            f"{ours}, at {concurrency} at once, against": name,
            "requests/s": f"{_rate(own) / max(_rate(rounds), 1e-9):.2f} ×",
            "in single rounds": " to ".join(f"{ratio:.2f}" for ratio in _extremes(own, rounds)),
            "CPU each": f"1/{_cpu_ms(rounds) / _cpu_ms(own):.2f}",
        }
        for name, rounds in at.items()
    ]


def engine_rows(
    costs: Mapping[str, Sequence[float]], turns: Sequence[Turn], ours: str
) -> list[dict[str, Any]]:
    """What the engine costs alone, and what a request to our service costs beyond that."""
    concurrency = _concurrency(turns)
    own = [t.done for t in turns if (t.contender, t.concurrency) == (ours, concurrency)]
    rows: list[dict[str, Any]] = []
    for way, numbers in costs.items():
        row = {"CPU ms per picture": way, "median": median(numbers), "least": min(numbers)}
        if own:
            of = f"of a request's {_cpu_ms(own):.2f}"
            row[f"{of}, beyond the median"] = _cpu_ms(own) - median(numbers)
            row["beyond the least"] = _cpu_ms(own) - min(numbers)
        rows.append(row)
    return rows


def text(results: Mapping[str, Any]) -> str:
    """All tables, and what to know about them."""
    parts = []
    for title, key in (
        ("Configurations tried, the best of which is measured", "trials"),
        ("Starts: from the process to the first 200 of its readiness", "starts"),
        ("Load; `CPU ms each` and `MB` (PSS) are of a server's whole process tree", "load"),
        ("Ratios", "ratios"),
        ("The engine by itself, in one process", "engine"),
    ):
        if rows := results[key]:
            parts.append(f"{title}\n\n{format_table(rows)}")
    generator = max((row["generator_cores"] for row in results["rounds"]), default=0.0)
    notes = [f"wrk shared the cores, with one thread that used at most {generator:.2f} of them."]
    installed = [f"{name} {version}" for name, version in results["peer_versions"].items()]
    if installed:
        notes.append(f"The peers had {', '.join(installed)}.")
    notes += [
        f"{name} ran by {python}, not by the peers' interpreter."
        for name, python in results["interpreters"].items()
        if python != sys.executable
    ]
    if not results["plan"]["trial_s"]:
        notes.append("No configuration was tried out: each peer ran in the first of its own.")
    notes += [
        f"{row['contender']} keeps {row['idle cores']:.2f} cores busy while idle: it ran only for "
        "its own rounds."
        for row in results["starts"]
        if row["stopped while idle"]
    ]
    disturbed = [row for row in results["rounds"] if row["foreign_cores"] > _FOREIGN_CORES]
    if disturbed:
        most = max(row["foreign_cores"] for row in disturbed)
        notes.append(
            f"{len(disturbed)} of {len(results['rounds'])} rounds were disturbed: something else "
            f"used up to {most:.2f} cores meanwhile."
        )
    return "\n\n".join([*parts, "\n".join(notes)])


def _grouped(turns: Sequence[Turn]) -> Iterator[tuple[tuple[str, int], list[Round]]]:
    groups: dict[tuple[str, int], list[Round]] = {}
    for turn in turns:
        groups.setdefault((turn.contender, turn.concurrency), []).append(turn.done)
    yield from groups.items()


def _concurrency(turns: Sequence[Turn]) -> int:
    measured = {turn.concurrency for turn in turns}
    return _PREFERRED if _PREFERRED in measured else max(measured)


def _rate(rounds: Sequence[Round]) -> float:
    return sum(done.answered for done in rounds) / sum(done.seconds for done in rounds)


def _cpu_ms(rounds: Sequence[Round]) -> float:
    return 1000 * sum(done.cpu_s for done in rounds) / max(sum(d.answered for d in rounds), 1)


def _extremes(own: Sequence[Round], other: Sequence[Round]) -> tuple[float, float]:
    ratios = [a.rate / max(b.rate, 1e-9) for a, b in zip(own, other, strict=True)]
    return min(ratios), max(ratios)

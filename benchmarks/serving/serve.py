"""Requests per second of the service, compared with other servers.

wrk loads each server over loopback sockets, all in one interleaved run: this service; a plain
FastAPI route; LitServe and BentoML with the same loop over draws, and with this project's engine.
Each peer runs in the fastest of the configurations that its documents recommend. Run it with
`.venv-peers/bin/python` (`make peers`); without LitServe and BentoML
their rows are skipped.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from benchmarks.common.report import make_parser, versions, write_json
from benchmarks.serving.peers import tables
from benchmarks.serving.peers.contenders import CONTENDERS, OURS, Contender, Variant
from benchmarks.serving.peers.engine_cost import engine_costs
from benchmarks.serving.peers.load import Load, Round
from benchmarks.serving.peers.processes import Server, ServerError, start

_IDLE_CPUS = 0.05  # a server that uses more while idle would disturb the others
_MAX_ROUND_S = 20.0


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    connections: Sequence[int] = (1, 8, 32, 128)
    seconds: float = 4.0
    rounds: int = 2
    starts: int = 3
    warm_up_s: float = 2.0
    trial_s: float = 3.0  # of each configuration; 0 takes the first one without a trial
    trial_connections: int = 32
    engine_repeats: int = 15


_FULL = Plan()
_QUICK = Plan((8,), seconds=2.0, starts=1, warm_up_s=1.0, trial_s=0.0, engine_repeats=5)


def main() -> int:
    """Run the command; returns its exit code."""
    parser = make_parser("serving.serve", __doc__, quick="8 connections, short, no trials")
    parser.add_argument("--seconds", type=float, help="of each round of load; default: 4, quick: 2")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=[c.key for c in CONTENDERS],
        help="measure these servers only: %(choices)s",
    )  # fmt: skip
    options = parser.parse_args()
    if sys.platform != "linux" or shutil.which("wrk") is None:
        print("error: needs wrk (`apt-get install wrk`) and Linux, for PSS memory", file=sys.stderr)
        return 2
    plan = _QUICK if options.quick else _FULL
    if options.seconds:
        plan = replace(plan, seconds=options.seconds)
    chosen = []
    for contender in (c for c in CONTENDERS if c.key in (options.only or [c.key])):
        if missing := contender.missing():
            print(f"{contender.name}: skipped, not installed: {' and '.join(missing)}")
        else:
            chosen.append(contender)
    if not chosen:
        print("error: nothing is left to measure", file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory() as folder:
            results = _Benchmark(plan, Path(folder)).run(chosen)
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(tables.format_results(results))
    write_json(options.json, {"serve": results})
    return 0


class _Benchmark:
    """One run of the benchmark, with its plan, its load and a temporary folder."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._load = Load(folder)

    def run(self, contenders: Sequence[Contender]) -> dict[str, Any]:
        """Measure all contenders."""
        repeats = self._plan.engine_repeats
        before = engine_costs(repeats)
        trials = self._try_variants(contenders)
        with ExitStack() as stack:
            servers, starts = [], []
            for contender in tqdm(contenders, desc="start", disable=None):
                server, row = self._start(contender, _fastest(contender, trials))
                stack.callback(server.stop)
                servers.append(server)
                starts.append(row)
            rounds = self._interleave(servers)
        after = engine_costs(repeats)
        costs = {way: before[way] + after[way] for way in before}
        return {
            "plan": vars(self._plan),
            "interpreters": {c.name: c.python for c in contenders},
            "peer_versions": versions(tables.PEERS),
            "trials": trials,
            "starts": starts,
            "rounds": [
                {k: v for k, v in vars(done).items() if k != "latencies"} | {"rate": done.rate}
                for done in rounds
            ],
            "load": tables.load_rows(rounds),
            "ratios": tables.ratio_rows(rounds, OURS.name),
            "engine": tables.engine_rows(costs, rounds, OURS.name),
        }

    def _try_variants(self, contenders: Sequence[Contender]) -> list[dict[str, Any]]:
        """Measure every configuration of contenders that have several."""
        plan, rows = self._plan, []
        choices = [(c, v) for c in contenders if len(c.variants) > 1 for v in c.variants]
        for contender, variant in tqdm(choices if plan.trial_s else [], desc="try", disable=None):
            with self._running(contender, variant) as server:
                tried = self._load.run(server, plan.trial_connections, plan.trial_s)
            rows.append(
                {
                    "contender": contender.name,
                    "configuration": variant.label,
                    "connections": plan.trial_connections,
                    "requests/s": tried.rate,
                    "errors": tried.errors,
                }
            )
        return rows

    def _start(self, contender: Contender, variant: Variant) -> tuple[Server, dict[str, Any]]:
        """Start a server several times; warm up the last one and keep it, if it can be idle."""
        seconds, memories = [], []
        for attempt in range(self._plan.starts):
            server = start(contender, variant, self._folder)
            seconds.append(server.start_s)
            memories.append(server.memory_mb())
            if attempt < self._plan.starts - 1:
                server.stop()
        try:
            self._warm_up(server)
            server.measure_idle(2.0)
        except BaseException:
            server.stop()
            raise
        if server.idle_cpus > _IDLE_CPUS:
            server.stop()
        row = {
            "contender": contender.name,
            "configuration": variant.label,
            "start s": median(seconds),
            "MB then": median(memories),
            "idle CPUs": server.idle_cpus,
            "stopped while idle": server.stopped,
        }
        return server, row

    def _interleave(self, servers: Sequence[Server]) -> list[Round]:
        """Run rounds of load on all servers in turn, so that drift of the machine affects all."""
        plan = self._plan
        order = [(n, s) for n in plan.connections for _ in range(plan.rounds) for s in servers]
        rates: dict[str, float] = {}
        rounds = []
        for connections, server in (bar := tqdm(order, desc="load", disable=None)):
            contender = server.contender
            bar.set_postfix_str(f"{contender.key} {connections}")
            # Several times as long as an answer takes, so that start and end matter little.
            answer_s = connections / rates.get(contender.key, float("inf"))
            seconds = min(max(plan.seconds, 4 * answer_s), _MAX_ROUND_S)
            if server.stopped:
                with self._running(contender, server.variant) as own:
                    done = self._load.run(own, connections, seconds)
            elif server.process.poll() is None:
                done = self._load.run(server, connections, seconds)
            else:
                raise ServerError(server.describe("ended by itself"))
            rates[contender.key] = max(done.rate, 1.0)
            rounds.append(done)
        return rounds

    @contextmanager
    def _running(self, contender: Contender, variant: Variant) -> Iterator[Server]:
        """Run a server, checked and warm, until the block ends."""
        server = start(contender, variant, self._folder)
        try:
            self._warm_up(server)
            yield server
        finally:
            server.stop()

    def _warm_up(self, server: Server) -> None:
        self._load.check(server)
        self._load.run(server, 8, self._plan.warm_up_s)


def _fastest(contender: Contender, trials: Sequence[dict[str, Any]]) -> Variant:
    rates = {
        t["configuration"]: t["requests/s"] for t in trials if t["contender"] == contender.name
    }
    return max(contender.variants, key=lambda variant: rates.get(variant.label, 0.0))


if __name__ == "__main__":
    sys.exit(main())

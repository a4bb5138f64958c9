"""`python -m benchmarks.serving.serve`: requests per second of the service against what else there is.

Over real sockets of the loopback interface, with wrk as the load generator, in one interleaved
run: this service; the plain FastAPI route that one would write first; LitServe and BentoML with the
same loop over draws, and with this project's engine. Each peer in the best of the configurations
that its documents recommend. Run it with `.venv-peers/bin/python` (`python -m
benchmarks.common.make_peers`): without LitServe and BentoML their rows are left out.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image
from tqdm import tqdm

from benchmarks.common.report import write_json
from benchmarks.serving.peers import tables
from benchmarks.serving.peers.contenders import CONTENDERS, OURS, Contender, Variant
from benchmarks.serving.peers.engine_cost import engine_costs
from benchmarks.serving.peers.load import Load
from benchmarks.serving.peers.processes import Server, ServerError, start
from benchmarks.serving.peers.tables import Turn
from model import open_bytes

__all__ = ["main"]

_EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "seven.png"
_IDLE_CORES = 0.05  # a server that keeps more busy while idle would disturb the others
_LONGEST_ROUND_S = 20.0


@dataclass(frozen=True)
class Plan:
    """How much to measure; `--quick` measures little."""

    concurrencies: Sequence[int] = (1, 8, 32, 128)
    seconds: float = 4.0
    rounds: int = 2
    starts: int = 3
    warm_up_s: float = 2.0
    trial_s: float = 3.0  # of each configuration; 0 takes the first without a trial
    trial_concurrency: int = 32
    engine_repeats: int = 15


_FULL = Plan()
_QUICK = Plan((8,), seconds=2.0, starts=1, warm_up_s=1.0, trial_s=0.0, engine_repeats=5)


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.serve", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the results there")
    parser.add_argument("--quick", action="store_true", help="one concurrency, short, no trials")
    parser.add_argument("--seconds", type=float, help="of each round of load; default: 4, quick: 2")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=[c.key for c in CONTENDERS],
        help="measure these alone: %(choices)s",
    )  # fmt: skip
    options = parser.parse_args()
    if not Load.is_available():
        print(
            "error: the load generator wrk is not installed; `apt-get install wrk` on Debian and "
            "Ubuntu, `brew install wrk` on macOS",
            file=sys.stderr,
        )
        return 2
    if not Path("/proc/self/stat").exists():
        print("error: costs are read from /proc, which only Linux has", file=sys.stderr)
        return 2
    plan = _QUICK if options.quick else _FULL
    if options.seconds:
        plan = replace(plan, seconds=options.seconds)
    chosen = list(_available([c for c in CONTENDERS if c.key in (options.only or [c.key])]))
    if not chosen:
        print("error: nothing is left to measure", file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory() as folder:
            results = _measure(chosen, plan, Path(folder), _picture(Path(folder)))
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(tables.text(results))
    if options.json:
        write_json(options.json, {"serve": results})
    return 0


def _picture(folder: Path) -> Path:
    """A digit of 28×28 pixels as a PNG: what the network sees of a picture of the documents."""
    path = folder / "seven.png"
    Image.fromarray(open_bytes(_EXAMPLE.read_bytes()).pixels).save(path)
    return path


def _available(wanted: Sequence[Contender]) -> Iterator[Contender]:
    for contender in wanted:
        if missing := contender.missing():
            print(f"{contender.name}: left out, {' and '.join(missing)} not installed here")
        else:
            yield contender


def _measure(
    contenders: Sequence[Contender], plan: Plan, folder: Path, picture: Path
) -> dict[str, Any]:
    load = Load(picture, folder)
    before = engine_costs(picture, plan.engine_repeats)
    trials = _try_variants(contenders, load, plan, folder)
    with ExitStack() as stack:
        servers, starts = [], []
        for contender in tqdm(contenders, desc="start", disable=None):
            server, row = _start(contender, _best(contender, trials), load, plan, folder)
            stack.callback(server.stop)
            servers.append(server)
            starts.append(row)
        turns = _interleave(servers, load, plan, folder)
    after = engine_costs(picture, plan.engine_repeats)
    return {
        "plan": vars(plan),
        "interpreters": {c.name: c.python for c in contenders},
        "peer_versions": tables.peer_versions(),
        "trials": trials,
        "starts": starts,
        "rounds": tables.turn_rows(turns),
        "load": tables.load_rows(turns),
        "ratios": tables.ratio_rows(turns, OURS.name),
        "engine": tables.engine_rows(
            {way: before[way] + after[way] for way in before}, turns, OURS.name
        ),
    }


def _try_variants(
    contenders: Sequence[Contender], load: Load, plan: Plan, folder: Path
) -> list[dict[str, Any]]:
    """Requests per second of every configuration, where there is a choice."""
    choices = [(c, v) for c in contenders if len(c.variants) > 1 for v in c.variants]
    rows = []
    for contender, variant in tqdm(choices if plan.trial_s else [], desc="choose", disable=None):
        with _running(contender, variant, load, plan, folder) as server:
            tried = load.run(server, plan.trial_concurrency, plan.trial_s)
        rows.append(
            {
                "contender": contender.name,
                "configuration": variant.label,
                "connections": plan.trial_concurrency,
                "requests/s": tried.rate,
                "errors": tried.errors,
            }
        )
    return rows


def _best(contender: Contender, trials: Sequence[dict[str, Any]]) -> Variant:
    rates = {
        t["configuration"]: t["requests/s"] for t in trials if t["contender"] == contender.name
    }
    return max(contender.variants, key=lambda variant: rates.get(variant.label, 0.0))


def _start(
    contender: Contender, variant: Variant, load: Load, plan: Plan, folder: Path
) -> tuple[Server, dict[str, Any]]:
    """Start a server several times; the last one stays and is warmed up, if it can be idle."""
    seconds, memories = [], []
    for attempt in range(plan.starts):
        server = start(contender, variant, folder)
        seconds.append(server.start_s)
        memories.append(server.memory_mb())
        if attempt < plan.starts - 1:
            server.stop()
    try:
        load.check(server)
        load.run(server, 8, plan.warm_up_s)
        server.measure_idle(2.0)
    except BaseException:
        server.stop()
        raise
    if _is_restless(server):
        server.stop()
    row = {
        "contender": contender.name,
        "configuration": variant.label,
        "start s": median(seconds),
        "MB then": median(memories),
        "idle cores": server.idle_cores,
        "stopped while idle": server.stopped,
    }
    return server, row


def _is_restless(server: Server) -> bool:
    return server.idle_cores > _IDLE_CORES


def _interleave(servers: Sequence[Server], load: Load, plan: Plan, folder: Path) -> list[Turn]:
    """Rounds of load, every contender in turn, so that all meet the same drift of the machine."""
    order = [
        (concurrency, server)
        for concurrency in plan.concurrencies
        for _ in range(plan.rounds)
        for server in servers
    ]
    rates: dict[str, float] = {}
    turns = []
    for concurrency, server in (bar := tqdm(order, desc="load", disable=None)):
        contender = server.contender
        bar.set_postfix_str(f"{contender.key} {concurrency}")
        # Several times an answer's time: a round must not consist of its first and last moments.
        usual_s = concurrency / rates.get(contender.key, float("inf"))
        seconds = min(max(plan.seconds, 4 * usual_s), _LONGEST_ROUND_S)
        if server.stopped:
            with _running(contender, server.variant, load, plan, folder) as own:
                done = load.run(own, concurrency, seconds)
        elif server.process.poll() is None:
            done = load.run(server, concurrency, seconds)
        else:
            raise ServerError(server.describe("ended by itself"))
        rates[contender.key] = max(done.rate, 1.0)
        turns.append(Turn(contender.name, concurrency, done))
    return turns


@contextmanager
def _running(
    contender: Contender, variant: Variant, load: Load, plan: Plan, folder: Path
) -> Iterator[Server]:
    """A checked and warm server that is stopped afterwards."""
    server = start(contender, variant, folder)
    try:
        load.check(server)
        load.run(server, 8, plan.warm_up_s)
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.training.ranks`: what a training step costs on one rank, and on several.

Every rank computes with one thread, so that one and two of them are compared on two cores by what
they share alone. Runs take turns; each starts its processes anew, as torchrun does.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.common.report import Row, format_table, write_json
from benchmarks.training.steps import endless
from model.architecture import DIGIT_READER
from training.config import PRESETS
from training.data.datasets import Mnist
from training.distributed import joined, started_ranks
from training.fitting.trainer import Fitter, new_network

__all__ = ["main"]

_CPU = torch.device("cpu")
_N_TRAIN = 16_384  # pictures, more than are shown
_WARM = 8  # steps that are not timed


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.ranks", description=__doc__
    )
    parser.add_argument("--json", type=Path, help="also write the results there")
    parser.add_argument("--ranks", type=int, default=2, help="how many; at least 2")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each")
    parser.add_argument("--steps", type=int, default=40, help="timed in each run")
    parser.add_argument("--quick", action="store_true", help="one run of each, of few steps")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return _measure(options.steps)
    if options.quick:
        options.rounds, options.steps = 1, 8
    counts = (1, options.ranks)
    found: dict[int, list[float]] = {count: [] for count in counts}
    turns = [count for _ in range(options.rounds) for count in counts]
    for count in tqdm(turns, desc="runs", disable=None, leave=False):
        found[count].append(_run(count, options.steps))
    step_s = {count: statistics.median(seconds) for count, seconds in found.items()}
    rows: list[Row] = [
        {
            "ranks": str(count),
            "ms per step": 1e3 * step_s[count],
            "from": 1e3 * min(found[count]),
            "to": 1e3 * max(found[count]),
            "× one rank": step_s[1] / step_s[count],
        }
        for count in counts
    ]
    print(format_table(rows))
    if options.json:
        write_json(options.json, {"ranks": rows, "steps": options.steps})
    return 0


def _run(count: int, steps: int) -> float:
    """Seconds per step with so many ranks, each in a process of its own."""
    alone = (sys.executable, "-m")
    together = (*alone, "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m")
    done = subprocess.run(
        [
            *(alone if count == 1 else together),
            "benchmarks.training.ranks",
            "--measure",
            f"--steps={steps}",
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds: float = json.loads(done.stdout)
    return seconds


def _measure(steps: int) -> int:
    """Print the seconds per step of the shipped network's fit, as one of the ranks."""
    torch.set_num_threads(1)
    ranks = started_ranks()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(_N_TRAIN, 1, 28, 28, generator=generator)
    labels = torch.randint(10, (_N_TRAIN,), generator=generator)
    non_digits = torch.rand(1024, 1, 28, 28, generator=generator)
    config = replace(PRESETS[Mnist.name].fit, imitated=0.0)
    with joined(ranks, _CPU):
        fitter = Fitter(
            new_network(DIGIT_READER, config),
            config,
            images,
            labels,
            _CPU,
            non_digits=non_digits,
            ranks=ranks,
        )
        run = endless(fitter)
        for _ in range(_WARM):
            next(run)
        began = time.perf_counter()
        for _ in range(steps):
            next(run)
        seconds = (time.perf_counter() - began) / steps
        if ranks.is_first:
            print(json.dumps(seconds))
        del fitter, run
    return 0


if __name__ == "__main__":
    sys.exit(main())

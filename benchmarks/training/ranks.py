"""Cost of a training step on one rank (process) and on several.

Every rank uses one thread, so one and two ranks can be compared on two CPUs. Runs take turns; each
starts new processes, as torchrun does.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace

import torch
from tqdm import tqdm

from benchmarks.common.report import Row, format_table, make_parser, write_json
from benchmarks.training.train import endless
from model.architecture import DIGIT_CNN
from training.config import PRESETS
from training.data.datasets import Mnist
from training.distributed import process_group, world_from_environment
from training.fitting.trainer import Fitter, TrainingSet, new_network

_CPU = torch.device("cpu")
_N_TRAIN = 16_384  # images, more than the steps take
_WARM_UP = 8  # steps that are not timed


def main() -> int:
    """Run the command; returns its exit code."""
    parser = make_parser("training.ranks", __doc__, quick="one run of each, with few steps")
    parser.add_argument("--ranks", type=int, default=2, help="number of ranks, at least 2")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each number of ranks")
    parser.add_argument("--steps", type=int, default=40, help="timed steps of each run")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return _measure(options.steps)
    if options.quick:
        options.rounds, options.steps = 1, 8
    counts = (1, options.ranks)
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    turns = [count for _ in range(options.rounds) for count in counts]
    for count in tqdm(turns, desc="runs", disable=None, leave=False):
        seconds[count].append(_run(count, options.steps))
    step_s = {count: statistics.median(runs) for count, runs in seconds.items()}
    rows: list[Row] = [
        {
            "ranks": str(count),
            "ms per step": 1e3 * step_s[count],
            "from": 1e3 * min(seconds[count]),
            "to": 1e3 * max(seconds[count]),
            "× one rank": step_s[1] / step_s[count],
        }
        for count in counts
    ]
    print(format_table(rows))
    write_json(options.json, {"ranks": rows, "steps": options.steps})
    return 0


def _run(count: int, steps: int) -> float:
    """Return the seconds per step with `count` ranks, each in its own process."""
    command = [sys.executable, "-m"]
    if count > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m"]
    command += ["benchmarks.training.ranks", "--measure", f"--steps={steps}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return float(subprocess.check_output(command, env=environment))


def _measure(steps: int) -> int:
    """Fit the bundled architecture as one of the ranks; the first prints the seconds per step."""
    torch.set_num_threads(1)
    world = world_from_environment()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(_N_TRAIN, 1, 28, 28, generator=generator)
    labels = torch.randint(10, (_N_TRAIN,), generator=generator)
    outliers = torch.rand(1024, 1, 28, 28, generator=generator)
    config = replace(PRESETS[Mnist.name].fit, imitated=0.0)
    with process_group(world, _CPU):
        network = new_network(DIGIT_CNN, config)
        data = TrainingSet(images, labels, outliers=outliers)
        fitter = Fitter(network, config, data, world=world)
        run = endless(fitter)
        for _ in range(_WARM_UP):
            next(run)
        began = time.perf_counter()
        for _ in range(steps):
            next(run)
        seconds = (time.perf_counter() - began) / steps
        if world.is_main:
            print(seconds)
        del fitter, run
    return 0


if __name__ == "__main__":
    sys.exit(main())

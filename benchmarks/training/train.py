"""`python -m benchmarks.training.train`: what the Bayesian costs in training, and the way to 99.4 %.

Steps: milliseconds per step of 128 pictures, with and without augmentation, of this project's fit,
of the same network trained deterministically, and of bayesian-torch with its own KL (where it is
installed, see `benchmarks.common.make_peers`). Adam for all; blocks of steps take turns, medians count.
The data pipeline is the taking of a batch and its distortion, timed alone. An epoch is so many
steps; what it does once, before its first step, is left out.

`--accuracy`: seconds of training until 99.4 % of the MNIST *test* pictures are right, judged after
each epoch; judging is not counted. Looking at the test pictures is allowed here because this
benchmark chooses nothing: no weight, setting or threshold of this project comes from it. The
others have a run with this project's learning rate and one with a usual one.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.images import find_mnist, random_pictures
from benchmarks.common.networks import has, library_versions
from benchmarks.common.report import format_table, write_json
from benchmarks.training.race import race
from benchmarks.training.steps import step_rows
from model.system.cpu import granted_cpus
from training.cli_options import positive
from training.config import PRESETS
from training.data.datasets import Mnist, preprocess, split

__all__ = ["main"]

_ROUNDS, _QUICK_ROUNDS = 11, 3
_EPOCHS = 20
_N_RANDOM = 47_000  # as many as the fit part of MNIST has


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.train", description=__doc__
    )
    parser.add_argument("--json", type=Path, help="also write the results there")
    parser.add_argument("--quick", action="store_true", help="few repetitions: a smoke test")
    parser.add_argument("--accuracy", action="store_true", help="also the way to 99.4 %%: minutes")
    parser.add_argument(
        "--epochs", type=positive, default=_EPOCHS, help="bound on the way (default: %(default)s)"
    )
    options = parser.parse_args()
    mnist = find_mnist()
    if options.accuracy and mnist is None:
        print("error: --accuracy needs MNIST under MNN_DATA_DIR or data/", file=sys.stderr)
        return 2
    if not has("bayesian_torch"):
        print(
            "left out, not installed here: bayesian-torch. `python -m benchmarks.common.make_peers` makes"
            " .venv-peers, whose Python has it."
        )
    threads = min(PRESETS[Mnist.name].threads, granted_cpus())
    torch.set_num_threads(threads)
    results: dict[str, Any] = {"threads": threads, "libraries": library_versions()}

    images, labels, source = _step_pictures(mnist)
    rounds = _QUICK_ROUNDS if options.quick else _ROUNDS
    rows = step_rows(images, labels, rounds=rounds)
    print(f"\na training step, {threads} threads, {len(labels)} {source}\n{format_table(rows)}")
    results["step"] = {"pictures": source, "quick": options.quick, "rows": rows}

    if options.accuracy and mnist is not None:
        parts = split(
            mnist.train(), n_validation=mnist.n_validation, n_calibration=mnist.n_calibration
        )
        test = mnist.test()
        rows = race(
            (_as_input(preprocess(parts.fit, "fit").pixels), torch.from_numpy(parts.fit.labels)),
            (_as_input(preprocess(test, "test").pixels), torch.from_numpy(test.labels)),
            epochs=options.epochs,
        )
        print(f"\nthe way to 99.4 % of the test pictures, {threads} threads\n{format_table(rows)}")
        results["accuracy"] = rows
    if options.json:
        write_json(options.json, results)
    return 0


def _step_pictures(mnist: Mnist | None) -> tuple[Tensor, Tensor, str]:
    """Pictures to take steps with: not through the digit door, which changes no cost."""
    if mnist is None:
        labels = np.random.default_rng(0).integers(0, 10, _N_RANDOM)
        return _as_input(random_pictures(_N_RANDOM)), torch.from_numpy(labels), "random pictures"
    part = split(
        mnist.train(), n_validation=mnist.n_validation, n_calibration=mnist.n_calibration
    ).fit
    return _as_input(part.images), torch.from_numpy(part.labels), "MNIST pictures"


def _as_input(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).float()[:, None] / 255


if __name__ == "__main__":
    sys.exit(main())

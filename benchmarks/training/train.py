"""Cost of a Bayesian training step, in milliseconds per step of 128 images.

Compares this project's fit, the same network trained deterministically, and bayesian-torch with its
own KL term (in the environment of `make peers`), with and without
augmentation. All use Adam; blocks of steps take turns, and the table shows medians. The data
pipeline (take a batch, augment it) is also timed alone. An epoch counts its steps, not what it does
once before the first.
"""

import sys

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.images import find_mnist, random_images
from benchmarks.common.networks import has, library_versions
from benchmarks.common.report import format_table, make_parser, write_json
from benchmarks.training.steps import step_rows
from model.system import granted_cpus
from training.config import PRESETS
from training.data.datasets import Mnist, Part, split

_ROUNDS, _QUICK_ROUNDS = 11, 3
_N_RANDOM = 47_000  # the size of MNIST's fit part


def main() -> int:
    """Run the command; returns its exit code."""
    options = make_parser("training.train", __doc__, quick="few repetitions").parse_args()
    if not has("bayesian_torch"):
        print(
            "skipped, not installed: bayesian-torch. `make peers` makes .venv-peers, which has it."
        )
    threads = min(PRESETS[Mnist.name].threads, granted_cpus())
    torch.set_num_threads(threads)
    images, labels, source = _training_images()
    rows = step_rows(images, labels, rounds=_QUICK_ROUNDS if options.quick else _ROUNDS)
    print(f"\na training step, {threads} threads, {len(labels)} {source}\n{format_table(rows)}")
    step = {"images": source, "quick": options.quick, "rows": rows}
    write_json(options.json, {"threads": threads, "libraries": library_versions(), "step": step})
    return 0


def _training_images() -> tuple[Tensor, Tensor, str]:
    """Images (N, 1, 28, 28), labels and their source; preprocessing does not change the cost."""
    mnist = find_mnist()
    if mnist is None:
        labels = np.random.default_rng(0).integers(0, 10, _N_RANDOM)
        part, source = Part(random_images(_N_RANDOM), labels), "random images"
    else:
        n_validation, n_calibration = mnist.n_validation, mnist.n_calibration
        parts = split(mnist.train(), n_validation=n_validation, n_calibration=n_calibration)
        part, source = parts.fit, "MNIST images"
    images = torch.from_numpy(part.images).float()[:, None] / 255
    return images, torch.from_numpy(part.labels), source


if __name__ == "__main__":
    sys.exit(main())

"""Cost of a Bayesian training step, in milliseconds per step of 128 images.

Compares this project's fit, the same network trained deterministically, and bayesian-torch with its
own KL term (in the environment of `make peers`), with and without
augmentation. All use Adam; blocks of steps take turns, and the table shows medians. The data
pipeline (take a batch, augment it) is also timed alone. An epoch counts its steps, not what it does
once before the first.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.common.images import find_mnist, random_images
from benchmarks.common.networks import bayesian_torch_network, library_kl
from benchmarks.common.report import Row, format_table, has, make_parser, write_json
from model import ModelConfig
from model.architecture import DIGIT_CNN
from model.system import granted_cpus
from training.baselines.networks import DeterministicCNN
from training.config import PRESETS
from training.data.datasets import Mnist, Part, split
from training.fitting.objective import Fittable
from training.fitting.trainer import FitConfig, Fitter, TrainingSet, new_network

_ROUNDS, _QUICK_ROUNDS = 11, 3
_N_RANDOM = 47_000  # the size of MNIST's fit part
_BLOCK = 16  # steps timed together
_PIPELINE = "data pipeline alone"
_DETERMINISTIC = "deterministic"
_MANY_EPOCHS = 1000  # more than run, so that the learning rate does not reach its end


def main() -> int:
    """Run the command; returns its exit code."""
    options = make_parser("training.train", __doc__, quick="few repetitions").parse_args()
    if not has("bayesian_torch"):
        print("skipped, not installed: bayesian-torch (`make peers`)")
    threads = min(PRESETS[Mnist.name].threads, granted_cpus())
    torch.set_num_threads(threads)
    images, labels, source = _training_images()
    rows = _step_rows(images, labels, rounds=_QUICK_ROUNDS if options.quick else _ROUNDS)
    print(f"\na training step, {threads} threads, {len(labels)} {source}\n{format_table(rows)}")
    step = {"images": source, "quick": options.quick, "rows": rows}
    write_json(options.json, {"threads": threads, "step": step})
    return 0


def _training_images() -> tuple[Tensor, Tensor, str]:
    """Images (N, 1, 28, 28), labels and their source; preprocessing does not change the cost."""
    mnist = find_mnist()
    if mnist is None:
        labels = np.random.default_rng(0).integers(0, 10, _N_RANDOM)
        part, source = Part(random_images(_N_RANDOM), labels), "random images"
    else:
        part, source = split(mnist).fit, "MNIST images"
    images = torch.from_numpy(part.images).float()[:, None] / 255
    return images, torch.from_numpy(part.labels), source


def _step_rows(images: Tensor, labels: Tensor, *, rounds: int) -> list[Row]:
    """Time a step of each contender, with and without augmentation; returns one row each."""
    # Rendered images are made before the fit, so they do not change the cost of a step.
    config = replace(PRESETS[Mnist.name].fit, epochs=_MANY_EPOCHS, imitated=0.0)
    contenders: dict[tuple[bool, str], Iterator[object]] = {}
    for augmented in (True, False):
        used = config if augmented else replace(config, augmentation=None)
        for name, network in _networks(used, len(labels)).items():
            fit = Fitter(network, used, TrainingSet(images, labels))
            contenders[augmented, name] = endless(fit)
        contenders[augmented, _PIPELINE] = _pipeline(used, images, labels)
    times: dict[tuple[bool, str], list[float]] = {key: [] for key in contenders}
    turns = list(itertools.product(range(rounds + 1), contenders))
    for turn, key in tqdm(turns, desc="blocks of steps", disable=None, leave=False):
        started = time.perf_counter()
        for _ in itertools.islice(contenders[key], _BLOCK):
            pass
        if turn > 0:  # the first one warms up
            times[key].append((time.perf_counter() - started) / _BLOCK)
    step = {key: statistics.median(values) for key, values in times.items()}
    n_steps = -(-len(labels) // config.batch_size)
    return [
        {
            "contender": name,
            "augmentation": "yes" if augmented else "no",
            "ms per step": seconds * 1e3,
            "× deterministic": seconds / step[augmented, _DETERMINISTIC],
            "s per epoch": seconds * n_steps,
            "data pipeline": f"{step[augmented, _PIPELINE] / seconds:.1%}",
        }
        for (augmented, name), seconds in step.items()
    ]


def endless(fit: Fitter[Any]) -> Iterator[object]:
    """Run epoch after epoch, yielding after every step."""
    while True:
        yield from fit.run_epoch()


def _networks(config: FitConfig, n_train: int) -> dict[str, Fittable]:
    model = replace(DIGIT_CNN, not_a_digit=False)
    generator = torch.Generator().manual_seed(config.seed)
    networks: dict[str, Fittable] = {
        "Bayesian, this project": new_network(model, config),
        _DETERMINISTIC: DeterministicCNN(model, generator=generator),
    }
    if has("bayesian_torch"):
        kl_scale = n_train / (config.beta * config.batch_size)
        networks["Bayesian, bayesian-torch"] = _BayesianTorch(model, kl_scale)
    return networks


def _pipeline(config: FitConfig, images: Tensor, labels: Tensor) -> Iterator[object]:
    """Take and augment batches, as every fit does before its forward pass."""
    generator = torch.Generator().manual_seed(config.seed)
    while True:
        order = torch.randperm(len(labels), generator=generator)
        for batch in torch.split(order, config.batch_size):
            x, y = images[batch], labels[batch]
            if config.augmentation is not None:
                x = config.augmentation(x, generator)
            yield x, y


class _BayesianTorch(nn.Module):
    """A network of bayesian-torch with the interface and the loss that `Fitter` needs.

    The library adds KL / batch size to the loss, where `Objective` adds β KL / N.
    """

    def __init__(self, model: ModelConfig, kl_scale: float) -> None:
        super().__init__()
        self.config = model
        self._kl_scale = kl_scale
        self._network = bayesian_torch_network(model)

    def forward_local(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002 - the library draws from PyTorch's global generator
        logits: Tensor = self._network(x)
        return logits

    def kl_divergence(self) -> Tensor:
        return self._kl_scale * library_kl(self._network)


if __name__ == "__main__":
    sys.exit(main())

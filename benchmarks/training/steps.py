"""Milliseconds per training step, for `benchmarks.training.train` and `ranks`."""

import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.networks import has
from benchmarks.common.report import Row
from benchmarks.training.fits import Fit, bayesian_torch_fit, deterministic_fit
from model.architecture import DIGIT_CNN
from training.config import PRESETS
from training.data.datasets import Mnist
from training.fitting.trainer import FitConfig, Fitter, new_network

__all__ = ["endless", "step_rows"]

_BLOCK = 16  # steps timed together
_PIPELINE = "data pipeline alone"
_DETERMINISTIC = "deterministic"
_MANY_EPOCHS = 1000  # more than run, so that the learning rate does not reach its end


def step_rows(images: Tensor, labels: Tensor, *, rounds: int) -> list[Row]:
    """Time a step of each contender, with and without augmentation; returns one row each.

    Args:
        images: Images (N, 1, H, W), float in [0, 1].
        labels: Their classes (N,), int64.
        rounds: Blocks of steps of each.
    """
    # Rendered images are made before the fit, so they do not change the cost of a step.
    config = replace(PRESETS[Mnist.name].fit, epochs=_MANY_EPOCHS, imitated=0.0)
    contenders: dict[tuple[bool, str], Iterator[object]] = {}
    for augmented in (True, False):
        used = config if augmented else replace(config, augmentation=None)
        fits = _fits(used, images, labels)
        contenders |= {(augmented, name): endless(fit) for name, fit in fits.items()}
        contenders[augmented, _PIPELINE] = _pipeline(used, images, labels)
    times: dict[tuple[bool, str], list[float]] = {key: [] for key in contenders}
    turns = list(itertools.product(range(rounds + 1), contenders))
    for turn, key in tqdm(turns, desc="blocks of steps", disable=None, leave=False):
        seconds = _block(contenders[key])
        if turn > 0:  # the first one warms up
            times[key].append(seconds)
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


def _fits(config: FitConfig, images: Tensor, labels: Tensor) -> dict[str, Fit]:
    model = replace(DIGIT_CNN, not_a_digit=False)
    fits: dict[str, Fit] = {
        "Bayesian, this project": Fitter(
            new_network(model, config), config, images, labels, torch.device("cpu")
        ),
        _DETERMINISTIC: deterministic_fit(model, config, images, labels),
    }
    if has("bayesian_torch"):
        fits["Bayesian, bayesian-torch"] = bayesian_torch_fit(model, config, images, labels)
    return fits


def endless(fit: Fit) -> Iterator[object]:
    """Run epoch after epoch, yielding after every step."""
    while True:
        yield from fit.run_epoch()


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


def _block(steps: Iterator[object]) -> float:
    """Return the seconds per step of the next block."""
    started = time.perf_counter()
    for _ in itertools.islice(steps, _BLOCK):
        pass
    return (time.perf_counter() - started) / _BLOCK

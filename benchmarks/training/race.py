"""Seconds of training until an accuracy is reached; see `benchmarks.training.train`."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.networks import has
from benchmarks.common.report import Row
from benchmarks.training.fits import Fit, bayesian_torch_fit, deterministic_fit
from model.architecture import DIGIT_READER
from training.config import PRESETS
from training.data.datasets import Mnist
from training.fitting.trainer import Fitter, new_network

__all__ = ["TARGET", "race"]

TARGET = 0.994
_USUAL_RATE = 1e-3  # Adam's own default
_CHUNK = 1000  # pictures judged at once

Pictures = tuple[Tensor, Tensor]


@dataclass
class _Racer:
    """A fit, how its network answers, and how it fares."""

    name: str
    learning_rate: float
    fit: Fit
    answer: Callable[[Tensor], Tensor]  # logits of one draw
    n_draws: int = 1
    seconds: float = 0.0
    accuracies: list[float] = field(default_factory=list)

    @property
    def arrived(self) -> bool:
        return bool(self.accuracies) and self.accuracies[-1] >= TARGET


def race(train: Pictures, test: Pictures, *, epochs: int) -> list[Row]:
    """One row per racer. They take turns, an epoch each, and stop where they arrive.

    Args:
        train: Pictures (N, 1, H, W), float in [0, 1], and classes (N,).
        test: The same, to judge by.
        epochs: Bound on the epochs of each, over which its learning rate falls to 0.
    """
    racers = _racers(train, epochs)
    with tqdm(total=len(racers) * epochs, desc="epochs", disable=None, leave=False) as bar:
        for _ in range(epochs):
            for racer in racers:
                if not racer.arrived:
                    bar.set_postfix_str(racer.name)
                    _run_epoch(racer, test)
                bar.update()
    return [
        {
            "contender": racer.name,
            "learning rate": racer.learning_rate,
            f"s to {TARGET:.1%}": racer.seconds if racer.arrived else "not reached",
            "epochs": len(racer.accuracies),
            "s per epoch": racer.seconds / len(racer.accuracies),
            "best accuracy": f"{max(racer.accuracies):.2%}",
        }
        for racer in racers
    ]


def _run_epoch(racer: _Racer, test: Pictures) -> None:
    started = time.perf_counter()
    for _ in racer.fit.run_epoch():
        pass
    racer.seconds += time.perf_counter() - started
    racer.accuracies.append(_accuracy(racer, *test))


@torch.inference_mode()
def _accuracy(racer: _Racer, images: Tensor, labels: Tensor) -> float:
    """Share of right answers by the mean of the draws' probabilities."""
    right = 0
    for x, y in zip(torch.split(images, _CHUNK), torch.split(labels, _CHUNK), strict=True):
        draws = [racer.answer(x).softmax(dim=1) for _ in range(racer.n_draws)]
        right += int((torch.stack(draws).mean(dim=0).argmax(dim=1) == y).sum())
    return right / len(labels)


def _racers(train: Pictures, epochs: int) -> list[_Racer]:
    preset = PRESETS[Mnist.name]
    config = replace(preset.fit, epochs=epochs, imitated=0.0)  # all see the same pictures
    torch.manual_seed(config.seed)  # the others' initial weights, and bayesian-torch's noise
    model, n_draws = replace(DIGIT_READER, not_a_digit=False), preset.validation_draws
    ours = Fitter(new_network(model, config), config, *train, torch.device("cpu"))

    def one_draw(x: Tensor) -> Tensor:
        return ours.network.forward(x, ours.network.sample())

    racers = [_Racer("Bayesian, this project", config.learning_rate, ours, one_draw, n_draws)]
    for rate in (config.learning_rate, _USUAL_RATE):
        used = replace(config, learning_rate=rate)
        fit = deterministic_fit(model, used, *train)
        racers.append(_Racer("deterministic", rate, fit, fit.network))
        if has("bayesian_torch"):
            fit = bayesian_torch_fit(model, used, *train)
            racers.append(_Racer("Bayesian, bayesian-torch", rate, fit, fit.network, n_draws))
    return racers

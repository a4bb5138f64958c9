"""Training of other networks in the same loop as `training.fitting.trainer.Fitter`."""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common.networks import bayesian_torch_network, deterministic_network, library_kl
from model import ModelConfig
from training.fitting.trainer import FitConfig, learning_rate_factor

__all__ = ["Fit", "OtherFit", "bayesian_torch_fit", "deterministic_fit"]


class Fit(Protocol):
    """A fit of this project or another."""

    def run_epoch(self) -> Iterator[object]:
        """Run one epoch, yielding after every step."""
        ...


class OtherFit:
    """A fit with the order, learning rates, augmentation and Adam of `Fitter`.

    Args:
        network: Maps images (B, 1, H, W) to logits (B, C).
        config: Settings of the fit; those of the posterior are not used.
        images: Images (N, 1, H, W), float in [0, 1].
        labels: Their classes (N,), int64.
        extra_loss: A term added to the mean negative log-likelihood of a batch.
    """

    def __init__(
        self,
        network: nn.Module,
        config: FitConfig,
        images: Tensor,
        labels: Tensor,
        extra_loss: Callable[[nn.Module], Tensor] | None = None,
    ) -> None:
        self.network = network
        self._config = config
        self._images, self._labels = images, labels
        self._extra_loss = extra_loss
        self._generator = torch.Generator().manual_seed(config.seed)
        self._optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
        self._epoch = 0

    def run_epoch(self) -> Iterator[float]:
        """Run one epoch, yielding the loss after every step."""
        config = self._config
        self.network.train()
        warmup = min(0.5, config.warmup_epochs / config.epochs)
        order = torch.randperm(len(self._labels), generator=self._generator)
        batches = torch.split(order, config.batch_size)
        for i, batch in enumerate(batches):
            done = (self._epoch * len(batches) + i + 1) / (config.epochs * len(batches) + 1)
            for group in self._optimizer.param_groups:
                group["lr"] = config.learning_rate * learning_rate_factor(done, warmup)
            yield self._step(self._images[batch], self._labels[batch])
        self._epoch += 1

    def _step(self, images: Tensor, labels: Tensor) -> float:
        if self._config.augmentation is not None:
            images = self._config.augmentation(images, self._generator)
        loss = functional.cross_entropy(self.network(images), labels)
        if self._extra_loss is not None:
            loss = loss + self._extra_loss(self.network)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._optimizer.step()
        return loss.item()


def deterministic_fit(
    model: ModelConfig, config: FitConfig, images: Tensor, labels: Tensor
) -> OtherFit:
    """Fit the same architecture with one value for each weight."""
    return OtherFit(deterministic_network(model), config, images, labels)


def bayesian_torch_fit(
    model: ModelConfig, config: FitConfig, images: Tensor, labels: Tensor
) -> OtherFit:
    """Fit the same architecture with bayesian-torch and the loss of its README."""

    def kl(network: nn.Module) -> Tensor:
        return library_kl(network) / config.batch_size

    return OtherFit(bayesian_torch_network(model), config, images, labels, kl)

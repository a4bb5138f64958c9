r"""Fitting the posterior: stochastic variational inference with local reparameterisation.

The objective, minimised with Adam, is the mean negative log-likelihood of a batch plus the KL
divergence from the prior, counted once for the whole training set:

.. math:: L = -\frac{1}{|B|} \sum_{i \in B} \ln p(y_i | x_i, w) + \beta\, KL(q \| p) / N

With β = 1 this is the negative ELBO per training image.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.architecture import ModelConfig
from model.network import BayesianCNN
from training.augment import AffineAugmentation

__all__ = ["EpochSummary", "FitConfig", "Fitter", "learning_rate_factor"]


@dataclass(frozen=True)
class FitConfig:
    """Everything that decides a fit besides the data and the architecture.

    Attributes:
        epochs: Passes over the fit part.
        batch_size: Images per step.
        learning_rate: Adam's largest step size, reached after `warmup_epochs`.
        beta: Weight β of the KL term; 1 is the ELBO, less gives a colder posterior.
        warmup_epochs: Epochs over which the step size rises linearly before its cosine decay to 0.
        initial_scale: Standard deviation of every posterior at the start.
        seed: Seed of initial means, order, augmentation and noise.
        augmentation: The random distortions, or None for none.
        imitated: Share of the pictures that are shown as imitations (`training.imitate`) in each
            epoch, in [0, 1].
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 2e-3
    beta: float = 0.1
    warmup_epochs: float = 1.0
    initial_scale: float = 0.02
    seed: int = 0
    augmentation: AffineAugmentation | None = field(default_factory=AffineAugmentation)
    imitated: float = 0.0


@dataclass(frozen=True)
class EpochSummary:
    """Means over one epoch, in nats; `kl` is the sum over all weights before its last step.

    `negative_elbo` is per image with β = 1, whatever β the fit used.
    """

    epoch: int
    nll: float
    kl: float
    negative_elbo: float


def learning_rate_factor(progress: float, warmup: float) -> float:
    """Linear rise over the first `warmup` share of the steps, then half a cosine down to 0.

    Args:
        progress: Share of all steps done, in [0, 1].
        warmup: Share of all steps spent rising, in [0, 1).

    Returns:
        The factor of the largest learning rate, in [0, 1].
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


class Fitter:
    """A fit in progress: the network, Adam's moments, the random state and the epoch count.

    Its whole state is a flat mapping of tensors (`state`), so an interrupted fit continues
    exactly as if it had not been interrupted.

    Args:
        model_config: Architecture and prior.
        config: How to fit.
        images: The fit part (N, 1, H, W), float in [0, 1].
        labels: Its classes (N,), int64.
        device: Where to compute.
        imitations: An imitation of each image (N, 1, 28, 28); needed if any are to be shown. They
            are an augmentation, no further data: N stays the number of images.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        config: FitConfig,
        images: Tensor,
        labels: Tensor,
        device: torch.device,
        *,
        imitations: Tensor | None = None,
    ) -> None:
        """Make a fit at epoch 0; see the class.

        Raises:
            ValueError: If imitations are to be shown and are not given for every image.
        """
        if config.imitated and (imitations is None or imitations.shape != images.shape):
            raise ValueError("an imitation of each image is needed to show imitated ones")
        self.config = config
        self.epoch = 0
        self._images, self._labels = images.to(device), labels.to(device)
        self._imitations = imitations.to(device) if imitations is not None else None
        # Initial means come from the CPU so that they are the same on every device.
        self.network = BayesianCNN(
            model_config,
            initial_scale=config.initial_scale,
            generator=torch.Generator().manual_seed(config.seed),
        ).to(device)
        self._generator = torch.Generator(device).manual_seed(config.seed)
        self._optimizer = torch.optim.Adam(
            self.network.parameters(), lr=config.learning_rate, fused=True
        )

    @property
    def n_train(self) -> int:
        """N, the number of images of the fit part."""
        return len(self._labels)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one epoch; the last batch may be smaller."""
        return math.ceil(self.n_train / self.config.batch_size)

    def run_epoch(self) -> Iterator[tuple[float, float]]:
        """Run one epoch, yielding (nll, kl) after every step, in nats.

        The epoch counts as done, and `state` may be saved, once the iterator is exhausted.
        """
        warmup = min(0.5, self.config.warmup_epochs / self.config.epochs)
        order = torch.randperm(self.n_train, generator=self._generator, device=self._images.device)
        total_steps = self.config.epochs * self.steps_per_epoch
        for i, batch in enumerate(torch.split(order, self.config.batch_size)):
            done = (self.epoch * self.steps_per_epoch + i + 1) / (total_steps + 1)
            for group in self._optimizer.param_groups:
                group["lr"] = self.config.learning_rate * learning_rate_factor(done, warmup)
            yield self._step(self._shown(batch), self._labels[batch])
        self.epoch += 1

    def summarise(self, steps: list[tuple[float, float]]) -> EpochSummary:
        """Condense the steps of the epoch just finished."""
        nll = float(np.mean([nll for nll, _ in steps]))
        kl = steps[-1][1]
        return EpochSummary(self.epoch, nll, kl, nll + kl / self.n_train)

    def state(self) -> dict[str, Tensor]:
        """Everything that a later `restore` needs, as CPU tensors by name."""
        tensors = {"epoch": torch.tensor(self.epoch), "generator": self._generator.get_state()}
        for name, parameter in self.network.named_parameters():
            tensors[f"parameter.{name}"] = parameter.detach().cpu()
            moments = self._optimizer.state.get(parameter, {})
            for key, value in moments.items():
                tensors[f"adam.{key}.{name}"] = value.detach().cpu()
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned.

        Raises:
            KeyError: If a tensor is missing.
            ValueError: If a tensor has another shape.
        """
        for name, parameter in self.network.named_parameters():
            saved = state[f"parameter.{name}"]
            if saved.shape != parameter.shape:
                raise ValueError(
                    f"{name} is {tuple(saved.shape)}, expected {tuple(parameter.shape)}"
                )
            with torch.no_grad():
                parameter.copy_(saved)
            moments = {
                key: state[f"adam.{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }
            self._optimizer.state[parameter] = {
                key: value.clone() if key == "step" else value.to(parameter.device, copy=True)
                for key, value in moments.items()
            }
        self._generator.set_state(state["generator"])
        self.epoch = int(state["epoch"])

    def _shown(self, batch: Tensor) -> Tensor:
        """The images of a batch, some of them as their imitations."""
        images = self._images[batch]
        if not self.config.imitated or self._imitations is None:
            return images
        chance = torch.rand(len(batch), generator=self._generator, device=images.device)
        imitated = (chance < self.config.imitated)[:, None, None, None]
        return torch.where(imitated, self._imitations[batch], images)

    def _step(self, images: Tensor, labels: Tensor) -> tuple[float, float]:
        if self.config.augmentation is not None:
            images = self.config.augmentation(images, self._generator)
        logits = self.network.forward_local(images, self._generator)
        nll = functional.cross_entropy(logits, labels)
        kl = self.network.kl_divergence()
        loss = nll + self.config.beta * kl / self.n_train
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._optimizer.step()
        return nll.item(), kl.item()

r"""Fitting the posterior: stochastic variational inference with local reparameterisation.

Adam minimises the mean negative log-likelihood of a batch plus the KL divergence from the prior,
counted once for the whole fit part:

.. math:: L = -\frac{1}{|B|} \sum_{i \in B} \ln p(y_i | x_i, w) + \beta\, KL(q \| p) / N

With β = 1 this is the negative ELBO per training image.

A network with the outcome "not a digit" (`ModelConfig.not_a_digit`) is also fitted to outliers M
beside each batch. The likelihood is then that of all outcomes, and the outliers have the weight τ,
as if τ outliers came with each digit:

.. math:: -\frac{1}{|B|} \sum_{i \in B} \ln p(y_i | x_i, w)
          - \frac{\tau}{|M|} \sum_{j \in M} \ln p(\text{no digit} | x_j, w)

Outliers do not enter the likelihood of the classes given a digit. So they do not flatten it, and
the disagreement between draws far from the data remains.

Most outliers soon become easy and teach nothing more. So a share of them is drawn in proportion to
their last negative log-likelihood, which needs no further computation.

Source of the sampling: Loshchilov and Hutter (2016), "Online Batch Selection for Faster Training of
Neural Networks"; for outliers, Chen et al. (2021), "ATOM: Robustifying Out-of-Distribution
Detection Using Outlier Mining".
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from model.architecture import ModelConfig
from model.nn.network import BayesianCNN
from training.distributed import SINGLE_PROCESS, World
from training.fitting.augment import Distortion
from training.fitting.objective import Fittable, Objective, Terms

_MIN_HARDNESS = 0.01  # nats; so that an easy outlier can still be drawn


@dataclass(frozen=True)
class FitConfig:
    """Settings of a fit. The field names are part of the checkpoint format.

    Attributes:
        epochs: Passes over the fit part.
        batch_size: Images per step.
        learning_rate: Adam's largest step size, reached after `warmup_epochs`.
        beta: Weight β of the KL term; 1 is the ELBO, less gives a colder posterior.
        warmup_epochs: Epochs of linear warmup before the cosine decay to 0.
        initial_scale: Initial standard deviation of every posterior.
        seed: Seed of initial means, order, augmentation and noise.
        augmentation: The random distortions; None for none.
        imitated: Share of the images replaced by their renderings (`training.synthesis.rendering`)
            in each epoch, in [0, 1].
        non_digits: Number of outliers (`training.synthesis.outliers`) beside each batch.
        non_digit_weight: τ, the weight of the outliers, in outliers for each digit.
        expected_non_digits: Outliers expected for each digit in use; after the fit,
            `correct_prior_shift` moves the odds there from τ. None leaves them.
        hard_share: Share of the outliers drawn by their last negative log-likelihood, in [0, 1];
            the others are drawn uniformly.
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 2e-3
    beta: float = 0.1
    warmup_epochs: float = 1.0
    initial_scale: float = 0.02
    seed: int = 0
    augmentation: Distortion | None = field(default_factory=Distortion)
    imitated: float = 0.0
    non_digits: int = 0
    non_digit_weight: float = 0.0
    expected_non_digits: float | None = None
    hard_share: float = 0.0


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The fit part as tensors, all images floats in [0, 1].

    Attributes:
        images: The digits (N, 1, 28, 28).
        labels: Their classes (N,), int64.
        renderings: A rendering of each digit (N, 1, 28, 28), needed if `FitConfig.imitated` is not
            0. They are an augmentation: N stays the number of images.
        outliers: Images of no class (M, 1, 28, 28), needed if the network has that outcome. They do
            not count in N.
    """

    images: Tensor
    labels: Tensor
    renderings: Tensor | None = None
    outliers: Tensor | None = None


class Step(NamedTuple):
    """Terms of one step in nats: NLL of the classes, KL of all weights, NLL of digit or not."""

    nll: float
    kl: float
    not_a_digit_nll: float


@dataclass(frozen=True)
class EpochSummary:
    """Means over one epoch, in nats. The field names are part of the checkpoint format.

    Attributes:
        epoch: Number of the epoch, from 1.
        nll: Negative log-likelihood of the class given a digit.
        kl: Sum over all weights before the last step.
        negative_elbo: Per image with β = 1, whatever β the fit uses.
        not_a_digit_nll: Negative log-likelihood of digit or not; 0 without that outcome.
    """

    epoch: int
    nll: float
    kl: float
    negative_elbo: float
    not_a_digit_nll: float = 0.0


def learning_rate_factor(progress: float, warmup: float) -> float:
    """Factor of the largest learning rate: linear warmup, then cosine decay to 0.

    Args:
        progress: Share of all steps done, in [0, 1].
        warmup: Share of warmup steps, in [0, 1).
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


N = TypeVar("N", bound=Fittable)


class Fitter(Generic[N]):
    """A fit in progress: network, optimizer, random state and epoch count.

    `state` returns all of it as tensors, so that an interrupted fit resumes exactly.

    Args:
        network: The network, on its device.
        config: Settings of the fit.
        data: The training set; the fit moves it to the network's device.
        world: The processes that fit together. All get equal arguments, and each computes its
            shard of every batch.

    Raises:
        ValueError: If renderings or outliers are needed and missing, or if some batch has fewer
            images than there are ranks.
    """

    def __init__(
        self, network: N, config: FitConfig, data: TrainingSet, *, world: World = SINGLE_PROCESS
    ) -> None:
        has_outliers = network.config.not_a_digit
        renderings, outliers = data.renderings, data.outliers
        if has_outliers and (outliers is None or not config.non_digits):
            raise ValueError('the outcome "not a digit" needs outliers to be fitted')
        if config.imitated and (renderings is None or renderings.shape != data.images.shape):
            raise ValueError("a rendering of each image is needed")
        smallest = (len(data.labels) - 1) % config.batch_size + 1
        if world.size > min(smallest, config.non_digits if has_outliers else smallest):
            raise ValueError(
                f"{world.size} ranks are too many for the last batch of {smallest} images"
                + (f" with {config.non_digits} outliers beside it" if has_outliers else "")
            )
        self.network = network
        self.config = config
        self.world = world
        self.epoch = 0
        parameters = [parameter for _, parameter in network.named_parameters()]
        device = parameters[0].device
        self._images, self._labels = data.images.to(device), data.labels.to(device)
        self._renderings = renderings.to(device) if renderings is not None else None
        self._outliers = outliers.to(device) if has_outliers and outliers is not None else None
        # The hardness of an outlier that has not been drawn is the NLL of a uniform prediction.
        n_outliers = 0 if self._outliers is None else len(self._outliers)
        unseen = math.log(network.config.n_outputs)
        self._hardness = torch.full((n_outliers,), unseen, device=device)
        # One generator for what all ranks decide alike, one for each rank's own images.
        self._generator = torch.Generator(device).manual_seed(config.seed)
        self._own = self._generator if world.size == 1 else torch.Generator(device)
        self._objective: Objective | DistributedDataParallel = Objective(
            network, beta=config.beta, outlier_weight=config.non_digit_weight, n_train=self.n_train
        )
        if world.size > 1:
            self._objective = DistributedDataParallel(
                self._objective, device_ids=[device] if device.type == "cuda" else None
            )
        self._optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)

    @property
    def n_train(self) -> int:
        """N, the number of images of the fit part."""
        return len(self._labels)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one epoch; the last batch may be smaller."""
        return math.ceil(self.n_train / self.config.batch_size)

    def run_epoch(self) -> Iterator[Step]:
        """Run one epoch, yielding the terms of every step.

        The epoch is complete, and `state` may be saved, once the iterator is exhausted.
        """
        warmup = min(0.5, self.config.warmup_epochs / self.config.epochs)
        if self._own is not self._generator:
            # Seeded anew in each epoch, so that `state` need not hold all ranks' generators.
            self._own.manual_seed(self.world.seed(self.config.seed, self.epoch))
        order = torch.randperm(self.n_train, generator=self._generator, device=self._images.device)
        total_steps = self.config.epochs * self.steps_per_epoch
        for i, batch in enumerate(torch.split(order, self.config.batch_size)):
            done = (self.epoch * self.steps_per_epoch + i + 1) / (total_steps + 1)
            for group in self._optimizer.param_groups:
                group["lr"] = self.config.learning_rate * learning_rate_factor(done, warmup)
            images, own = self._batch_images(batch), self.world.shard(batch)
            yield self._step(images, self._labels[own], self._draw_outliers(), n_digits=len(batch))
        self.epoch += 1

    def summarise(self, steps: list[Step]) -> EpochSummary:
        """Summarise the steps of the epoch just completed, over all ranks."""
        mean_steps = self.world.mean(steps)
        nll, _, not_a_digit_nll = (float(mean) for mean in np.mean(mean_steps, axis=0))
        kl = steps[-1].kl
        elbo = nll + not_a_digit_nll + kl / self.n_train
        return EpochSummary(self.epoch, nll, kl, elbo, not_a_digit_nll)

    def state(self) -> dict[str, Tensor]:
        """The whole state for `restore`, as CPU tensors by name."""
        tensors = {
            "epoch": torch.tensor(self.epoch),
            "generator": self._generator.get_state(),
            "hardness": self._hardness.cpu(),
        }
        for name, parameter in self.network.named_parameters():
            tensors[f"parameter.{name}"] = parameter.detach().cpu()
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"adam.{key}.{name}"] = value.detach().cpu()
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Resume from a `state`.

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
            cpu, device = torch.device("cpu"), parameter.device
            self._optimizer.state[parameter] = {
                key: state[f"adam.{key}.{name}"].to(cpu if key == "step" else device, copy=True)
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
        if state["hardness"].shape != self._hardness.shape:
            raise ValueError(
                f"the state has {len(state['hardness'])} outliers, expected {len(self._hardness)}"
            )
        self._hardness = state["hardness"].to(self._hardness.device, copy=True)
        self._generator.set_state(state["generator"])
        self.epoch = int(state["epoch"])

    def _batch_images(self, batch: Tensor) -> Tensor:
        """This rank's images of a batch, a random share of them replaced by renderings."""
        own = self.world.shard(batch)
        images = self._images[own]
        if not self.config.imitated or self._renderings is None:
            return images
        chance = torch.rand(len(batch), generator=self._generator, device=images.device)
        rendered = (self.world.shard(chance) < self.config.imitated)[:, None, None, None]
        return torch.where(rendered, self._renderings[own], images)

    def _draw_outliers(self) -> Tensor | None:
        """Indices of this rank's outliers for a batch, hard ones first."""
        if self._outliers is None:
            return None
        n_hard = self.world.shard_size(round(self.config.hard_share * self.config.non_digits))
        chosen = torch.randint(
            len(self._outliers),
            (self.world.shard_size(self.config.non_digits) - n_hard,),
            generator=self._own,
            device=self._outliers.device,
        )
        if n_hard:
            hard = torch.multinomial(self._hardness, n_hard, generator=self._own)
            chosen = torch.cat([hard, chosen])
        return chosen

    def _step(
        self,
        images: Tensor,
        labels: Tensor,
        outliers: Tensor | None = None,
        *,
        n_digits: int | None = None,
    ) -> Step:
        """Run one step on this rank's digits and outliers, given by their indices.

        `n_digits` is |B|, the number of digits on all ranks; as many as here if None.
        """
        if outliers is not None and self._outliers is not None:
            images = torch.cat([images, self._outliers[outliers]])
        if self.config.augmentation is not None:
            images = self.config.augmentation(images, self._own)
        n_outliers = 0 if outliers is None else len(outliers)
        terms: Terms = self._objective(
            images,
            labels,
            self._own,
            self.world.mean_weight(len(labels), n_digits or len(labels)),
            self.world.mean_weight(n_outliers, self.config.non_digits),
        )
        self._optimizer.zero_grad(set_to_none=True)
        terms.loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._optimizer.step()
        if outliers is not None:
            self._update_hardness(outliers, terms.outlier_nll)
        return Step(terms.nll.item(), terms.kl.item(), terms.not_a_digit_nll.item())

    def _update_hardness(self, outliers: Tensor, nll: Tensor) -> None:
        """Record, on every rank, the NLL of the outliers of all ranks."""
        # float64 represents the indices exactly.
        rows = torch.stack([outliers.double(), nll.clamp_min(_MIN_HARDNESS).double()], dim=1)
        rows = self.world.all_gather_rows(rows, self.config.non_digits)
        self._hardness[rows[:, 0].long()] = rows[:, 1].float()


def correct_prior_shift(
    weights: Mapping[str, NDArray[np.float32]], model_config: ModelConfig, config: FitConfig
) -> dict[str, NDArray[np.float32]]:
    """Move the prior odds of "not a digit" from those of the fit to those of the use.

    By Bayes' rule another share of outliers multiplies every image's odds by one factor. So its
    logarithm is added to the outcome's bias. The odds between digits do not change.

    Args:
        weights: By the names of `ModelConfig.parameter_shapes`; the means of a posterior.
        model_config: Their architecture.
        config: The settings of their fit.

    Source: Saerens, Latinne and Decaestecker (2002), "Adjusting the Outputs of a Classifier to New
    a Priori Probabilities".
    """
    moved = dict(weights)
    if model_config.not_a_digit and config.expected_non_digits is not None:
        output_bias = list(model_config.parameter_shapes())[-1]
        moved[output_bias] = moved[output_bias].copy()
        moved[output_bias][-1] += math.log(config.expected_non_digits / config.non_digit_weight)
    return moved


def new_network(model_config: ModelConfig, config: FitConfig) -> BayesianCNN:
    """The initial network of a fit, on the CPU; its seed decides the means."""
    generator = torch.Generator().manual_seed(config.seed)
    return BayesianCNN(model_config, initial_scale=config.initial_scale, generator=generator)

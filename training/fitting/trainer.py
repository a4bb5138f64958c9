r"""Fitting the posterior: stochastic variational inference with local reparameterisation.

The objective, minimised with Adam, is the mean negative log-likelihood of a batch plus the KL
divergence from the prior, counted once for the whole training set:

.. math:: L = -\frac{1}{|B|} \sum_{i \in B} \ln p(y_i | x_i, w) + \beta\, KL(q \| p) / N

With β = 1 this is the negative ELBO per training image.

A network with one more outcome, being no digit (`ModelConfig.not_a_digit`), is shown non-digits M
beside each batch. The likelihood is then that of all outcomes, and a non-digit weighs a share τ of
a digit, as if so many had come with each digit:

.. math:: -\frac{1}{|B|} \sum_{i \in B} \ln p(y_i | x_i, w)
          - \frac{\tau}{|M|} \sum_{j \in M} \ln p(\text{no digit} | x_j, w)

Non-digits say nothing about the classes given that it is a digit: what the networks say of those is
not taught to be flat where they know nothing, so their disagreement stays what it is.

Most non-digits are soon told with ease and teach nothing more. So a share of them is drawn in
proportion to their negative log-likelihood when last shown, which costs no further computation.

Source of that: Loshchilov and Hutter (2016), "Online Batch Selection for Faster Training of Neural
Networks"; for non-members, Chen et al. (2021), "ATOM: Robustifying Out-of-Distribution Detection
Using Outlier Mining".
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
from training.distributed import ALONE, Ranks
from training.fitting.augment import Distortion
from training.fitting.objective import Fittable, Objective, Terms

__all__ = [
    "EpochSummary",
    "FitConfig",
    "Fitter",
    "Step",
    "at_expected_odds",
    "learning_rate_factor",
    "new_network",
]

_EASIEST = 0.01  # nats; keeps what is told with ease from never being shown again


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
        imitated: Share of the pictures that are shown as imitations (`training.synthesis.rendering`) in each
            epoch, in [0, 1].
        non_digits: How many non-digits (`training.synthesis.outliers`) are shown beside each batch.
        non_digit_weight: τ, how many non-digits are to count for each digit.
        expected_non_digits: How many non-digits come with each digit where the model is used; after
            the fit the odds of the outcome are moved there from τ (`at_expected_odds`). None
            leaves them.
        hard_share: Share of the non-digits that is drawn by how badly they were told when last
            shown, in [0, 1]; the others are drawn with equal chance.
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


class Step(NamedTuple):
    """One step, in nats: NLL of the classes, KL of all weights, NLL of digit or not."""

    nll: float
    kl: float
    not_a_digit_nll: float


@dataclass(frozen=True)
class EpochSummary:
    """Means over one epoch, in nats; `kl` is the sum over all weights before its last step.

    `nll` is that of the class given that it is a digit, `not_a_digit_nll` what telling digits from
    others adds, 0 if there is no outcome for it. `negative_elbo` is per image with β = 1, whatever
    β the fit used.
    """

    epoch: int
    nll: float
    kl: float
    negative_elbo: float
    not_a_digit_nll: float = 0.0


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


N = TypeVar("N", bound=Fittable)


class Fitter(Generic[N]):
    """A fit in progress: the network, Adam's moments, the random state and the epoch count.

    Its whole state is a flat mapping of tensors (`state`), so an interrupted fit continues
    exactly as if it had not been interrupted.

    Args:
        network: What to fit, on the device where to compute.
        config: How to fit.
        images: The fit part (N, 1, H, W), float in [0, 1].
        labels: Its classes (N,), int64.
        device: Where to compute.
        imitations: An imitation of each image (N, 1, 28, 28); needed if any are to be shown. They
            are an augmentation, no further data: N stays the number of images.
        non_digits: Pictures of no class (M, 1, 28, 28), float in [0, 1]; needed if the network has
            an outcome for them. They do not count in N.
        ranks: The processes that fit together. All are given the same of everything above, and
            each computes its part of every batch.
    """

    def __init__(
        self,
        network: N,
        config: FitConfig,
        images: Tensor,
        labels: Tensor,
        device: torch.device,
        *,
        imitations: Tensor | None = None,
        non_digits: Tensor | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Make a fit at epoch 0; see the class.

        Raises:
            ValueError: If imitations are to be shown and are not given for every image, if the
                network is to know non-digits and none are given or to be shown, or if there are
                batches too small to give every rank a picture.
        """
        knows = network.config.not_a_digit
        if knows and (non_digits is None or not config.non_digits):
            raise ValueError("a network that is to know what is not a digit must be shown some")
        if config.imitated and (imitations is None or imitations.shape != images.shape):
            raise ValueError("an imitation of each image is needed to show imitated ones")
        smallest = (len(labels) - 1) % config.batch_size + 1
        if ranks.count > min(smallest, config.non_digits if knows else smallest):
            raise ValueError(
                f"{ranks.count} ranks are too many for the last batch of {smallest} pictures"
                + (f" with {config.non_digits} non-digits beside it" if knows else "")
            )
        self.network = network
        self.config = config
        self.ranks = ranks
        self.epoch = 0
        self._images, self._labels = images.to(device), labels.to(device)
        self._imitations = imitations.to(device) if imitations is not None else None
        self._non_digits = non_digits.to(device) if knows and non_digits is not None else None
        # Until a non-digit has been shown it counts as one of which nothing is known.
        self._hardness = torch.full(
            (0 if self._non_digits is None else len(self._non_digits),),
            math.log(network.config.n_outputs),
            device=device,
        )
        # What all ranks decide alike, and what each decides for its own pictures.
        self._generator = torch.Generator(device).manual_seed(config.seed)
        self._own = self._generator if ranks.count == 1 else torch.Generator(device)
        self._objective: Objective | DistributedDataParallel = Objective(
            network,
            beta=config.beta,
            non_digit_weight=config.non_digit_weight,
            n_train=len(labels),
        )
        if ranks.count > 1:
            self._objective = DistributedDataParallel(
                self._objective, device_ids=[device] if device.type == "cuda" else None
            )
        self._optimizer = torch.optim.Adam(
            [parameter for _, parameter in network.named_parameters()],
            lr=config.learning_rate,
            fused=True,
        )

    @property
    def n_train(self) -> int:
        """N, the number of images of the fit part."""
        return len(self._labels)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one epoch; the last batch may be smaller."""
        return math.ceil(self.n_train / self.config.batch_size)

    def run_epoch(self) -> Iterator[Step]:
        """Run one epoch, yielding its figures after every step.

        The epoch counts as done, and `state` may be saved, once the iterator is exhausted.
        """
        warmup = min(0.5, self.config.warmup_epochs / self.config.epochs)
        if self._own is not self._generator:
            # Anew in each epoch, so that a saved state need not hold the generators of all ranks.
            self._own.manual_seed(self.ranks.seed(self.config.seed, self.epoch))
        order = torch.randperm(self.n_train, generator=self._generator, device=self._images.device)
        total_steps = self.config.epochs * self.steps_per_epoch
        for i, batch in enumerate(torch.split(order, self.config.batch_size)):
            done = (self.epoch * self.steps_per_epoch + i + 1) / (total_steps + 1)
            for group in self._optimizer.param_groups:
                group["lr"] = self.config.learning_rate * learning_rate_factor(done, warmup)
            shown, own = self._shown(batch), self.ranks.part(batch)
            yield self._step(shown, self._labels[own], self._chosen(), n_digits=len(batch))
        self.epoch += 1

    def summarise(self, steps: list[Step]) -> EpochSummary:
        """Condense the steps of the epoch just finished, over all ranks."""
        mean_steps = self.ranks.mean(steps)
        nll, _, other = (float(mean) for mean in np.mean(mean_steps, axis=0))
        kl = steps[-1].kl
        return EpochSummary(self.epoch, nll, kl, nll + other + kl / self.n_train, other)

    def state(self) -> dict[str, Tensor]:
        """Everything that a later `restore` needs, as CPU tensors by name."""
        tensors = {
            "epoch": torch.tensor(self.epoch),
            "generator": self._generator.get_state(),
            "hardness": self._hardness.cpu(),
        }
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
        if state["hardness"].shape != self._hardness.shape:
            raise ValueError(
                f"the state knows {len(state['hardness'])} non-digits, there are "
                f"{len(self._hardness)}"
            )
        self._hardness = state["hardness"].to(self._hardness.device, copy=True)
        self._generator.set_state(state["generator"])
        self.epoch = int(state["epoch"])

    def _shown(self, batch: Tensor) -> Tensor:
        """This rank's images of a batch, some of them as their imitations."""
        own = self.ranks.part(batch)
        images = self._images[own]
        if not self.config.imitated or self._imitations is None:
            return images
        chance = torch.rand(len(batch), generator=self._generator, device=images.device)
        imitated = (self.ranks.part(chance) < self.config.imitated)[:, None, None, None]
        return torch.where(imitated, self._imitations[own], images)

    def _chosen(self) -> Tensor | None:
        """Which non-digits this rank is to show beside a batch, the hard ones first."""
        if self._non_digits is None:
            return None
        n_all = round(self.config.hard_share * self.config.non_digits)
        n_hard = self.ranks.share(n_all)
        chosen = torch.randint(
            len(self._non_digits),
            (self.ranks.share(self.config.non_digits) - n_hard,),
            generator=self._own,
            device=self._non_digits.device,
        )
        if n_hard:
            hard = torch.multinomial(self._hardness, n_hard, generator=self._own)
            chosen = torch.cat([hard, chosen])
        return chosen

    def _step(
        self,
        images: Tensor,
        labels: Tensor,
        chosen: Tensor | None = None,
        *,
        n_digits: int | None = None,
    ) -> Step:
        """One step with this rank's digits and non-digits.

        Args:
            images: The digits (B, 1, H, W).
            labels: Their classes (B,).
            chosen: Which non-digits to show (M,).
            n_digits: |B|, how many digits all ranks show; as many as this one if None.
        """
        shown = images
        if chosen is not None and self._non_digits is not None:
            shown = torch.cat([images, self._non_digits[chosen]])
        if self.config.augmentation is not None:
            shown = self.config.augmentation(shown, self._own)
        n_non_digits = 0 if chosen is None else len(chosen)
        terms: Terms = self._objective(
            shown,
            labels,
            self._own,
            self.ranks.weight(len(labels), n_digits or len(labels)),
            self.ranks.weight(n_non_digits, self.config.non_digits),
        )
        self._optimizer.zero_grad(set_to_none=True)
        terms.loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._optimizer.step()
        if chosen is not None:
            self._note_hardness(chosen, terms.each_non_digit)
        return Step(terms.nll.item(), terms.kl.item(), terms.not_a_digit_nll.item())

    def _note_hardness(self, chosen: Tensor, each: Tensor) -> None:
        """Keep, on every rank, how badly the non-digits of all ranks were told."""
        # Indices are exact as floating point numbers of double precision.
        rows = torch.stack([chosen.double(), each.clamp_min(_EASIEST).double()], dim=1)
        rows = self.ranks.gather_rows(rows, self.config.non_digits)
        self._hardness[rows[:, 0].long()] = rows[:, 1].float()


def at_expected_odds(
    weights: Mapping[str, NDArray[np.float32]], model_config: ModelConfig, config: FitConfig
) -> dict[str, NDArray[np.float32]]:
    """Weights whose odds of being no digit are those of the use instead of those of the fit.

    How rare non-digits are where the model is used is one thing, how many are needed to learn them
    another. By Bayes' rule a change of the share multiplies the odds of every picture by the same
    factor: it adds its logarithm to the outcome's bias. The odds between digits do not change.

    Args:
        weights: By the names of `ModelConfig.parameter_shapes`; means, if they are a posterior's.
        model_config: Their architecture.
        config: How they were fitted.

    Source: Saerens, Latinne and Decaestecker (2002), "Adjusting the Outputs of a Classifier to New
    a Priori Probabilities".
    """
    moved = dict(weights)
    if model_config.not_a_digit and config.expected_non_digits is not None:
        last = list(model_config.parameter_shapes())[-1]  # the bias of the outputs
        moved[last] = moved[last].copy()
        moved[last][-1] += math.log(config.expected_non_digits / config.non_digit_weight)
    return moved


def new_network(
    model_config: ModelConfig, config: FitConfig, device: torch.device | None = None
) -> BayesianCNN:
    """The network that a fit starts from.

    Args:
        model_config: Architecture and prior.
        config: The fit, for its seed and the scale at its start.
        device: Where it is to be; the CPU if None. Its initial means are the same everywhere.
    """
    return BayesianCNN(
        model_config,
        initial_scale=config.initial_scale,
        generator=torch.Generator().manual_seed(config.seed),
    ).to(device or torch.device("cpu"))

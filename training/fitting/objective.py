r"""What a fit minimises, of one rank's part of a batch.

The objective of all R ranks is that of the whole batch B and of all non-digits M beside it (see
`training.fitting.trainer`). Rank r, with its parts :math:`B_r` and :math:`M_r`, takes

.. math:: L_r = -\frac{R}{|B|} \sum_{i \in B_r} \ln p(y_i | x_i, w)
          - \frac{\tau R}{|M|} \sum_{j \in M_r} \ln p(\text{no digit} | x_j, w)
          + \beta\, KL(q \| p) / N

The mean over the ranks, which their gradients are averaged to, is the objective itself: the
likelihoods add up, and the KL term, alike on every rank, counts once and not R times.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.architecture import ModelConfig

__all__ = ["Fittable", "Objective", "Terms"]


class Fittable(Protocol):
    """What a fit asks of a network, a `BayesianCNN` or one to compare it with."""

    @property
    def config(self) -> ModelConfig:
        """Architecture and prior."""
        ...

    def forward_local(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits (B, C or C + 1) with noise of each picture's own."""
        ...

    def kl_divergence(self) -> Tensor:
        """What the prior adds to the objective, in nats."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All parameters by name."""
        ...


class Terms(NamedTuple):
    """The objective and its parts, scalars in nats, and the NLL of each non-digit shown (M,)."""

    loss: Tensor
    nll: Tensor
    kl: Tensor
    not_a_digit_nll: Tensor
    each_non_digit: Tensor


class Objective(nn.Module):
    """The objective as a module, so that PyTorch can average its gradient over ranks.

    Args:
        network: What is fitted.
        beta: Weight β of the KL term.
        non_digit_weight: τ, how many non-digits are to count for each digit.
        n_train: N, the number of images of the fit part.
    """

    def __init__(
        self, network: Fittable, *, beta: float, non_digit_weight: float, n_train: int
    ) -> None:
        """Hold the network and the weights; see the class."""
        super().__init__()
        self.network = network
        self._beta, self._non_digit_weight, self._n_train = beta, non_digit_weight, n_train

    def forward(
        self,
        shown: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        digit_share: float,
        non_digit_share: float,
    ) -> Terms:
        """The objective for pictures as they are shown.

        Args:
            shown: Digits, and after them the non-digits (B + M, 1, H, W).
            labels: The digits' classes (B,).
            generator: Source of the noise.
            digit_share: R B / |B|: this rank's digits over the mean of all ranks; 1 if alone.
            non_digit_share: The same of the non-digits.
        """
        logits = self.network.forward_local(shown, generator)
        n_digits, n_classes = len(labels), self.network.config.n_classes
        nll = functional.cross_entropy(logits[:n_digits, :n_classes], labels) * digit_share
        other_nll, each = torch.zeros_like(nll), logits.new_zeros(0)
        if len(shown) > n_digits:
            log_p = functional.log_softmax(logits, dim=1)
            is_digit = log_p[:n_digits, :n_classes].logsumexp(dim=1)
            each = -log_p[n_digits:, n_classes]
            others = self._non_digit_weight * each.mean() * non_digit_share
            other_nll = others - is_digit.mean() * digit_share
        kl = self.network.kl_divergence()
        loss = nll + other_nll + self._beta * kl / self._n_train
        return Terms(loss, nll, kl, other_nll, each.detach())

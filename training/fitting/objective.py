r"""The objective of a fit, as one rank computes it on its shard of a batch.

The objective over all R ranks is that of the whole batch B and its outliers M (see
`training.fitting.trainer`). Rank r, with the shards :math:`B_r` and :math:`M_r`, computes

.. math:: L_r = -\frac{R}{|B|} \sum_{i \in B_r} \ln p(y_i | x_i, w)
          - \frac{\tau R}{|M|} \sum_{j \in M_r} \ln p(\text{no digit} | x_j, w)
          + \beta\, KL(q \| p) / N

PyTorch averages the gradients over the ranks. In the mean the likelihoods add up, and the KL term,
equal on every rank, counts once and not R times.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.architecture import ModelConfig


class Fittable(Protocol):
    """A network that can be fitted: a `BayesianCNN` or a baseline."""

    @property
    def config(self) -> ModelConfig:
        """Architecture and prior."""

    def forward_local(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits (B, C or C + 1), with independent noise for each image."""

    def kl_divergence(self) -> Tensor:
        """Divergence from the prior, in nats."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All parameters by name."""


class Terms(NamedTuple):
    """The objective and its terms, scalars in nats, and the NLL of each outlier (M,)."""

    loss: Tensor
    nll: Tensor
    kl: Tensor
    not_a_digit_nll: Tensor
    outlier_nll: Tensor


class Objective(nn.Module):
    """The objective as a module, so that PyTorch can average its gradient over ranks.

    Args:
        network: The network to fit.
        beta: Weight β of the KL term.
        outlier_weight: τ, the weight of the outliers, in outliers for each digit.
        n_train: N, the number of images of the fit part.
    """

    def __init__(
        self, network: Fittable, *, beta: float, outlier_weight: float, n_train: int
    ) -> None:
        super().__init__()
        self.network = network
        self._beta, self._outlier_weight, self._n_train = beta, outlier_weight, n_train

    def forward(
        self,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        digit_share: float,
        outlier_share: float,
    ) -> Terms:
        """Compute the objective of a batch.

        Args:
            images: Digits followed by outliers (B + M, 1, H, W).
            labels: The digits' classes (B,).
            generator: Source of the noise.
            digit_share: R B / |B|, this rank's digits relative to the mean over ranks; 1 if alone.
            outlier_share: The same for the outliers.
        """
        logits = self.network.forward_local(images, generator)
        n_digits, n_classes = len(labels), self.network.config.n_classes
        nll = functional.cross_entropy(logits[:n_digits, :n_classes], labels) * digit_share
        not_a_digit_nll, outlier_nll = torch.zeros_like(nll), logits.new_zeros(0)
        if len(images) > n_digits:
            log_p = functional.log_softmax(logits, dim=1)
            is_digit = log_p[:n_digits, :n_classes].logsumexp(dim=1)
            outlier_nll = -log_p[n_digits:, n_classes]
            weighted = self._outlier_weight * outlier_nll.mean() * outlier_share
            not_a_digit_nll = weighted - is_digit.mean() * digit_share
        kl = self.network.kl_divergence()
        loss = nll + not_a_digit_nll + self._beta * kl / self._n_train
        return Terms(loss, nll, kl, not_a_digit_nll, outlier_nll.detach())

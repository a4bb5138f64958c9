"""Planted faults: each fault of a well-known library must be caught by its guard.

The guards are the checks that this suite runs on the code without faults.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model import uncertainty
from model.nn import layers
from model.nn.layers import BayesianLinear, gaussian_kl
from tests.support import guards
from tests.support.fitting import check_objective
from training.fitting.objective import Objective, Terms

Fault = Callable[[pytest.MonkeyPatch], None]


def kl_averaged(patch: pytest.MonkeyPatch) -> None:
    def mean(m: Tensor, s: Tensor, prior_scale: float) -> Tensor:
        return gaussian_kl(m, s, prior_scale) / m.numel()

    patch.setattr(layers, "gaussian_kl", mean)


def kl_reversed(patch: pytest.MonkeyPatch) -> None:
    def reverse(m: Tensor, s: Tensor, prior_scale: float) -> Tensor:
        ratio = (prior_scale / s).square()
        return 0.5 * (ratio + (m / s).square() - 1 - ratio.log()).sum()

    patch.setattr(layers, "gaussian_kl", reverse)


def prior_variance_as_scale(patch: pytest.MonkeyPatch) -> None:
    def squared(m: Tensor, s: Tensor, prior_scale: float) -> Tensor:
        return gaussian_kl(m, s, prior_scale**2)

    patch.setattr(layers, "gaussian_kl", squared)


def kl_of_the_last_batch(patch: pytest.MonkeyPatch) -> None:
    plain = BayesianLinear.forward_local

    def remembering(
        self: BayesianLinear, x: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        object.__setattr__(self, "last_batch", len(x))
        return plain(self, x, generator)

    def kl(self: BayesianLinear) -> Tensor:
        pairs = zip(self.posterior_mean(), self.posterior_scale(), strict=True)
        total = torch.stack([gaussian_kl(m, s, self.prior_scale) for m, s in pairs]).sum()
        return total / getattr(self, "last_batch", 1)

    patch.setattr(BayesianLinear, "forward_local", remembering)
    patch.setattr(BayesianLinear, "kl_divergence", kl)


def kl_divided_by_the_batch(patch: pytest.MonkeyPatch) -> None:
    plain = Objective.forward

    def forward(self: Objective, shown: Tensor, labels: Tensor, *others: Any) -> Terms:
        whole = self._n_train
        self._n_train = len(labels)
        try:
            return plain(self, shown, labels, *others)
        finally:
            self._n_train = whole

    patch.setattr(Objective, "forward", forward)


def layers_that_pick_their_device(patch: pytest.MonkeyPatch) -> None:
    def on_the_cpu(like: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.randn(like.shape, generator=generator)

    patch.setattr(layers, "_standard_normal", on_the_cpu)


def spread_of_logits(patch: pytest.MonkeyPatch) -> None:
    plain = uncertainty.summarise

    def summarise(
        p: np.ndarray, level: float, not_a_digit: np.ndarray | None = None
    ) -> uncertainty.PredictiveSummary:
        logits = np.log(np.maximum(p, 1e-300))
        spread = plain(p, level, not_a_digit).__dict__ | {"std": logits.std(axis=0)}
        return uncertainty.PredictiveSummary(**spread)

    patch.setattr(uncertainty, "summarise", summarise)


def softmax_of_the_mean_logits(patch: pytest.MonkeyPatch) -> None:
    def predictive(p: np.ndarray) -> np.ndarray:
        return uncertainty.softmax(np.log(p).mean(axis=0))

    patch.setattr(uncertainty, "predictive", predictive)


def one_draw_for_the_whole_batch(patch: pytest.MonkeyPatch) -> None:
    def shared(like: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.randn(like.shape[1:], generator=generator).expand(like.shape)

    patch.setattr(layers, "_standard_normal", shared)


FAULTS: list[tuple[Fault, Callable[[], None]]] = [
    (kl_averaged, lambda: guards.check_kl_against_torch(guards.linear())),
    (kl_reversed, lambda: guards.check_kl_against_torch(guards.conv())),
    (prior_variance_as_scale, lambda: guards.check_kl_against_torch(guards.linear())),
    (kl_of_the_last_batch, lambda: guards.check_kl_ignores_forward_passes(guards.linear())),
    (kl_averaged, check_objective),
    (kl_divided_by_the_batch, check_objective),
    (layers_that_pick_their_device, lambda: guards.check_device_is_kept(guards.conv())),
    (spread_of_logits, guards.check_intervals_and_spread_are_of_probabilities),
    (softmax_of_the_mean_logits, guards.check_predictive_is_the_mean_of_softmaxes),
    (
        one_draw_for_the_whole_batch,
        lambda: guards.check_noise_differs_between_examples(guards.linear()),
    ),
]


@pytest.mark.parametrize(("fault", "guard"), FAULTS, ids=lambda f: getattr(f, "__name__", ""))
def test_guards_catch_planted_faults(
    fault: Fault, guard: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    guard()
    fault(monkeypatch)
    with pytest.raises((AssertionError, RuntimeError)):
        guard()

"""Checks of layers and uncertainties that tests run as they are, and with planted faults."""

import itertools
import math
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from model import BayesianConv2d, BayesianLinear, uncertainty
from model.nn import AffineWeights

Layer = BayesianLinear | BayesianConv2d
L = TypeVar("L", BayesianLinear, BayesianConv2d)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(prior_scale: float = 0.3) -> BayesianLinear:
    return _uneven(BayesianLinear(7, 4, prior_scale=prior_scale, generator=seeded()))


def conv(prior_scale: float = 0.3) -> BayesianConv2d:
    return _uneven(BayesianConv2d(2, 3, 3, prior_scale=prior_scale, generator=seeded()))


def _uneven(layer: L) -> L:
    """Give every weight another scale: equal ones would hide exchanged weights."""
    generator = seeded(1)
    with torch.no_grad():
        for rho in (layer.weight_rho, layer.bias_rho):
            rho.copy_(torch.randn(rho.shape, generator=generator) - 1.5)
        layer.bias_mean.copy_(torch.randn(layer.bias_mean.shape, generator=generator))
    return layer


def input_of(layer: Layer) -> Tensor:
    """One random input of a layer's shape."""
    shape = (1, 7) if isinstance(layer, BayesianLinear) else (1, 2, 5, 5)
    return torch.randn(shape, generator=seeded(2)) + 0.5


def check_kl_against_torch(layer: Layer) -> None:
    pairs = zip(layer.posterior_mean(), layer.posterior_scale(), strict=True)
    prior = Normal(torch.tensor(0.0), torch.tensor(layer.prior_scale))
    expected = sum(kl_divergence(Normal(m, s), prior).sum() for m, s in pairs)
    torch.testing.assert_close(layer.kl_divergence(), expected)


def check_kl_ignores_forward_passes(layer: BayesianLinear) -> None:
    x = torch.randn(5, 7, generator=seeded(2))
    before = layer.kl_divergence()
    layer(x, layer.sample(seeded(3)))
    layer.forward_local(x[:2], seeded(4))
    layer(x, layer.posterior_mean())
    assert torch.equal(layer.kl_divergence(), before)


def check_device_is_kept(layer: Layer) -> None:
    # Every machine has the device `meta`; a layer that picks its own device would leave it.
    layer = layer.to("meta")
    x = input_of(layer).to("meta")
    weights = AffineWeights(*(m.detach() for m in layer.posterior_mean()))
    for value in (layer(x, weights), layer.forward_local(x), layer.kl_divergence()):
        assert value.device.type == "meta"


def check_noise_differs_between_examples(layer: BayesianLinear) -> None:
    rows = layer.forward_local(input_of(layer).expand(7, -1), seeded(4))
    for i, j in itertools.combinations(range(7), 2):
        assert not torch.allclose(rows[i], rows[j])


def check_predictive_is_the_mean_of_softmaxes() -> None:
    p = uncertainty.softmax(np.array([[[4.0, 0.0]], [[-1.0, 0.0]]]))
    expected = (1 / (1 + math.exp(-4)) + 1 / (1 + math.exp(1))) / 2
    assert math.isclose(uncertainty.predictive(p)[0, 0], expected, rel_tol=1e-6)


def check_intervals_and_spread_are_of_probabilities() -> None:
    logits = np.array([[[0.0, 9.0]], [[0.0, 19.0]], [[0.0, 29.0]]])
    summary = uncertainty.summarise(uncertainty.softmax(logits), 0.5)
    # Logits spread by 8; the probabilities are nearly equal.
    assert summary.std.max() < 1e-4
    assert (summary.lower >= 0).all()
    assert (summary.upper <= 1).all()

"""The architecture of a `ModelConfig` in plain PyTorch and in three Bayesian libraries.

Each library is used as its documentation says. Where it offers a choice, the faster one is taken.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from model.architecture import ModelConfig
from model.posterior import Posterior

_SCALE = 0.02


def deterministic_network(config: ModelConfig) -> nn.Sequential:
    """Build the deterministic network with PyTorch's initial weights."""
    return _build(config, nn.Conv2d, nn.Linear)


def posterior_mean_network(posterior: Posterior) -> nn.Sequential:
    """Build the deterministic network with the posterior means as weights."""
    network = deterministic_network(posterior.config)
    with torch.no_grad():
        names = posterior.config.parameter_shapes()
        for parameter, name in zip(network.parameters(), names, strict=True):
            parameter.copy_(torch.from_numpy(posterior.mean[name]))
    return network.eval()


def bayesian_torch_network(config: ModelConfig, kind: str = "Reparameterization") -> nn.Module:
    """Build the network with bayesian-torch: `dnn_to_bnn` with the settings of its README.

    The forward pass of converted layers computes no KL term: prediction needs none, and training
    calls `library_kl` once per step. `kind` is `Reparameterization` (one draw of the weights per
    pass) or `Flipout`.
    """
    from bayesian_torch.models.dnn_to_bnn import dnn_to_bnn  # noqa: PLC0415 - may be absent

    network = deterministic_network(config)
    settings = {
        "prior_mu": 0.0,
        "prior_sigma": 1.0,
        "posterior_mu_init": 0.0,
        "posterior_rho_init": -3.0,
        "type": kind,
        "moped_enable": False,
        "moped_delta": 0.5,
    }
    dnn_to_bnn(network, settings)
    return network


def library_kl(network: nn.Module) -> Tensor:
    """Return the KL term as bayesian-torch computes it: a mean over each tensor, not a sum.

    Its README divides the term by the batch size.
    """
    from bayesian_torch.models.dnn_to_bnn import get_kl_loss  # noqa: PLC0415 - may be absent

    return cast(Tensor, get_kl_loss(network))


def _blitz(config: ModelConfig) -> nn.Module:
    from blitz.modules import BayesianConv2d, BayesianLinear  # noqa: PLC0415 - may be absent

    return _build(
        config,
        lambda n_in, n_out, kernel: BayesianConv2d(n_in, n_out, (kernel, kernel)),
        BayesianLinear,
    )


def _torchbnn(config: ModelConfig) -> nn.Module:
    from torchbnn import BayesConv2d, BayesLinear  # noqa: PLC0415 - may be absent

    return _build(
        config,
        lambda n_in, n_out, kernel: BayesConv2d(0, _SCALE, n_in, n_out, kernel),
        lambda n_in, n_out: BayesLinear(0, _SCALE, n_in, n_out),
    )


LIBRARIES: dict[str, tuple[str, Callable[[ModelConfig], nn.Module]]] = {
    "bayesian-torch, reparameterised": ("bayesian_torch", bayesian_torch_network),
    "bayesian-torch, Flipout": ("bayesian_torch", partial(bayesian_torch_network, kind="Flipout")),
    "BLiTZ": ("blitz", _blitz),
    "torchbnn": ("torchbnn", _torchbnn),
}
"""By name in the tables: the module to import and the function that builds the network."""


def _build(
    config: ModelConfig,
    conv: Callable[[int, int, int], nn.Module],
    linear: Callable[[int, int], nn.Module],
) -> nn.Sequential:
    """Build the layers of a configuration with the given constructors."""
    layers: list[nn.Module] = []
    channels = 1
    for c in config.convs:
        if c.padding:
            layers.append(nn.ZeroPad2d(c.padding))
        layers += [conv(channels, c.channels, c.kernel), nn.ReLU()]
        if c.pool:
            layers.append(nn.MaxPool2d(2))
        channels = c.channels
    if config.global_mean:
        layers.append(nn.AdaptiveAvgPool2d(1))
    layers.append(nn.Flatten())
    channels, side = config.last_map
    for i, widths in enumerate(pairwise([channels * side**2, *config.hidden, config.n_outputs])):
        if i > 0:
            layers.append(nn.ReLU())
        layers.append(linear(*widths))
    return nn.Sequential(*layers)

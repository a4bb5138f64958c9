"""Deterministic networks, with dropout or in an ensemble.

They have the architecture of a `BayesianCNN` and are fitted in the same way. The negative log prior
repositions the divergence from the prior, so a deterministic network is the mode (MAP) of the
posterior that the Bayesian one approximates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.architecture import ModelConfig
from model.posterior import Arrays
from training.data.parallel import stream


class DeterministicCNN(nn.Module):
    """The layers of a `BayesianCNN` with one value for each weight.

    Args:
        config: Architecture and prior.
        dropout: Probability of dropping a channel before each layer but the first, in [0, 1).
        generator: Source of the initial weights.

    Raises:
        ValueError: If `dropout` is not in [0, 1).
    """

    def __init__(
        self, config: ModelConfig, *, dropout: float = 0.0, generator: torch.Generator
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1, not {dropout}")
        self.config = config
        self.dropout = dropout
        for name, shape in config.parameter_shapes().items():
            if name.endswith("weight"):
                # He et al. (2015), equation 10, as in `model.nn.layers`.
                scale = math.sqrt(2 / math.prod(shape[1:]))
                values = torch.randn(shape, generator=generator) * scale
            else:
                values = torch.zeros(shape)
            self.register_parameter(name.replace(".", "_"), nn.Parameter(values))

    def kl_divergence(self) -> Tensor:
        """The term in its place: -ln p(w) of the Gaussian prior without its constant, in nats."""
        squares = torch.stack([values.square().sum() for values in self.parameters()])
        return squares.sum() / (2 * self.config.prior_scale**2)

    def forward_local(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits of images (B, 1, H, W), each with its own dropped channels."""
        for i, conv in enumerate(self.config.convs, 1):
            x = x if i == 1 else self._dropped(x, generator)
            x = functional.conv2d(x, *self._layer(f"conv{i}"), padding=conv.padding)
            x = functional.relu(x)
            if conv.pool:
                x = functional.max_pool2d(x, 2)
        if self.config.global_mean:
            x = x.mean(dim=(2, 3), keepdim=True)
        n_dense = len(self.config.hidden) + 1
        for i in range(1, n_dense + 1):
            x = self._dropped(x, generator).flatten(1)
            x = functional.linear(x, *self._layer(f"dense{i}"))
            if i < n_dense:
                x = functional.relu(x)
        return x

    def arrays(self) -> Arrays:
        """The weights by the names of `ModelConfig.parameter_shapes`."""
        return {
            name: self.get_parameter(name.replace(".", "_")).detach().cpu().numpy().copy()
            for name in self.config.parameter_shapes()
        }

    def _layer(self, name: str) -> tuple[Tensor, Tensor]:
        return self.get_parameter(f"{name}_weight"), self.get_parameter(f"{name}_bias")

    def _dropped(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.dropout:
            return x
        shape = (*x.shape[:2], *(1,) * (x.ndim - 2))
        kept = torch.rand(shape, generator=generator, device=x.device) >= self.dropout
        return x * kept / (1 - self.dropout)


@dataclass(frozen=True, eq=False)
class Members:
    """An ensemble of networks, in the place of posterior draws.

    Attributes:
        config: Their architecture.
        networks: The weights of each network, by name.
    """

    config: ModelConfig
    networks: Sequence[Arrays]

    def stack(self, n_draws: int) -> Arrays:
        """The weights of the first `n_draws` networks, stacked: (S, *shape) by name.

        Raises:
            ValueError: If there are fewer networks.
        """
        if n_draws > len(self.networks):
            raise ValueError(f"there are {len(self.networks)} networks, not {n_draws}")
        return {
            name: np.stack([network[name] for network in self.networks[:n_draws]])
            for name in self.config.parameter_shapes()
        }


def dropout_members(network: DeterministicCNN, n_draws: int, *, seed: int) -> Members:
    """MC dropout as an ensemble: a dropped channel is a column of zeros in the next layer.

    Args:
        network: A network fitted with dropout.
        n_draws: Number of dropout masks.
        seed: Seed of the masks.

    Source: Gal and Ghahramani (2016), "Dropout as a Bayesian Approximation".
    """
    weights, config = network.arrays(), network.config
    names = [n for n in weights if n.endswith("weight") and n != "conv1.weight"]
    side = config.last_map[1]
    members = []
    for index in range(n_draws):
        rng = stream(seed, index)
        masked = dict(weights)
        for name in names:
            weight = weights[name]
            # The first dense layer has an input for each channel and position of the last map.
            positions = side**2 if name == "dense1.weight" else 1
            kept = rng.random(weight.shape[1] // positions) >= network.dropout
            scale = (kept / (1 - network.dropout)).repeat(positions).astype(np.float32)
            masked[name] = weight * scale.reshape(1, -1, *(1,) * (weight.ndim - 2))
        members.append(masked)
    return Members(config, members)

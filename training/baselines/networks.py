"""Networks with one value for each weight, for the controls: plain, with dropout, or several.

They have the shape of a `BayesianCNN` and are fitted in the same way: what takes the place of the
divergence from the prior is the prior's own energy, so a plain network is the mode of the very
posterior that the Bayesian one approximates (MAP).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from model.architecture import ModelConfig
from model.posterior import Arrays

__all__ = ["Members", "PlainCNN", "dropout_members"]


class PlainCNN(nn.Module):
    """The layers of a `BayesianCNN` with one value for each weight.

    Args:
        config: Architecture, and the prior whose energy is added to the objective.
        dropout: Chance that a channel is dropped before each layer but the first, in [0, 1).
        generator: Source of the initial weights.
    """

    def __init__(
        self, config: ModelConfig, *, dropout: float = 0.0, generator: torch.Generator
    ) -> None:
        """Make the network; see the class.

        Raises:
            ValueError: If `dropout` is no share below 1.
        """
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a share from 0 to below 1, not {dropout}")
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
        """What takes its place: -ln p(w) of the Gaussian prior, without its constant, in nats."""
        squares = torch.stack([values.square().sum() for values in self.parameters()])
        return squares.sum() / (2 * self.config.prior_scale**2)

    def forward_local(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits of pictures (B, 1, H, W), each with channels of its own dropped."""
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
    """Networks that answer together, in the place of a posterior's draws.

    Attributes:
        config: Their architecture.
        networks: The weights of each, by name.
    """

    config: ModelConfig
    networks: Sequence[Arrays]

    def stack(self, n_draws: int) -> Arrays:
        """The first `n_draws` of them, stacked: arrays of shape (S, *shape) by name.

        Raises:
            ValueError: If there are fewer.
        """
        if n_draws > len(self.networks):
            raise ValueError(f"there are {len(self.networks)} networks, not {n_draws}")
        return {
            name: np.stack([network[name] for network in self.networks[:n_draws]])
            for name in self.config.parameter_shapes()
        }


def dropout_members(network: PlainCNN, n_draws: int, *, seed: int) -> Members:
    """MC dropout as so many networks: a dropped channel is a column of zeros in the next layer.

    Args:
        network: A network fitted with dropout.
        n_draws: How many sets of channels to drop.
        seed: Seed of the choice.

    Source: Gal and Ghahramani (2016), "Dropout as a Bayesian Approximation".
    """
    plain, config = network.arrays(), network.config
    names = [name for name in plain if name.endswith("weight")]
    side = config.last_map[1]
    members = []
    for index in range(n_draws):
        rng = np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))
        thinned = dict(plain)
        for name in names:
            if name == "conv1.weight":
                continue
            weight = plain[name]
            # The first fully connected layer sees each channel at every place of the last map.
            places = side**2 if name == "dense1.weight" else 1
            kept = rng.random(weight.shape[1] // places) >= network.dropout
            scale = (kept / (1 - network.dropout)).repeat(places).astype(np.float32)
            thinned[name] = _times_inputs(weight, scale)
        members.append(thinned)
    return Members(config, members)


def _times_inputs(weight: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = weight * scale.reshape(1, -1, *(1,) * (weight.ndim - 2))
    return result

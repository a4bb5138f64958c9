"""The reference engine: the trained network, run once per draw in PyTorch on the CPU."""

import numpy as np
import torch
from numpy.typing import NDArray

from model.nn import AffineWeights, BayesianCNN
from model.posterior import Arrays, Posterior


class ReferenceEngine:
    """A loop over draws: simple and slow. The other engines must agree with it.

    Args:
        posterior: The posterior.
        n_draws: Number of draws S, made once here.
    """

    name = "torch"
    device = "cpu"

    def __init__(self, posterior: Posterior, *, n_draws: int) -> None:
        self.n_draws = n_draws
        self.n_classes = posterior.config.n_classes
        # The initial weights are never used; their own generator leaves the global one alone.
        self._network = BayesianCNN(posterior.config, generator=torch.Generator())
        self._draws = [self._tensors(posterior.draw(draw)) for draw in range(n_draws)]

    def logits(self, images: NDArray[np.uint8], n_draws: int) -> NDArray[np.float32]:
        """See `Engine.logits`."""
        with torch.inference_mode():
            x = torch.from_numpy(images)[:, None].float() / 255
            stacked = torch.stack([self._network(x, weights) for weights in self._draws[:n_draws]])
            result: NDArray[np.float32] = stacked.numpy()
        return result

    def _tensors(self, arrays: Arrays) -> dict[str, AffineWeights]:
        tensors = {name: torch.from_numpy(a) for name, a in arrays.items()}
        return {
            name: AffineWeights(tensors[f"{name}.weight"], tensors[f"{name}.bias"])
            for name in self._network.layers()
        }

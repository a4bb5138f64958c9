"""The reference engine: the network run once per draw, in PyTorch, on the CPU or CUDA."""

import numpy as np
import torch
from numpy.typing import NDArray

from model.engine import Device
from model.layers import AffineWeights
from model.network import BayesianCNN
from model.posterior import Arrays, Posterior

__all__ = ["TorchEngine"]


class TorchEngine:
    """Plain PyTorch: slower than a stacked computation, and what other engines must agree with.

    Args:
        posterior: The posterior.
        n_draws: Number of draws S, made once here.
        device: `cuda`, `cpu`, or `auto` for CUDA where it is available.
        threads: PyTorch's CPU threads, set for the whole process; left alone if None.

    Raises:
        RuntimeError: If `cuda` is asked for and not available.
    """

    name = "torch"

    def __init__(
        self,
        posterior: Posterior,
        *,
        n_draws: int,
        device: Device = "auto",
        threads: int | None = None,
    ) -> None:
        """Draw the posterior; see the class."""
        if threads is not None:
            torch.set_num_threads(threads)
        available = torch.cuda.is_available()
        if device == "cuda" and not available:
            raise RuntimeError(
                "device 'cuda' was asked for, but PyTorch finds no CUDA device; use 'auto' or 'cpu'"
            )
        self.device = "cuda" if available and device != "cpu" else "cpu"
        self.n_draws = n_draws
        if self.device == "cuda":
            # TF32 keeps 10 bits of a factor: probabilities would be off in the fourth digit.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
        # Its own means are never used; a generator of its own leaves the global one alone.
        self._network = BayesianCNN(posterior.config, generator=torch.Generator())
        self._draws = [self._tensors(posterior.draw(draw)) for draw in range(n_draws)]

    def logits(self, images: NDArray[np.uint8], n_draws: int) -> NDArray[np.float32]:
        """See `Engine.logits`."""
        with torch.inference_mode():
            x = torch.from_numpy(images).to(self.device, torch.float32)[:, None] / 255
            stacked = torch.stack([self._network(x, weights) for weights in self._draws[:n_draws]])
            result: NDArray[np.float32] = stacked.cpu().numpy()
        return result

    def _tensors(self, arrays: Arrays) -> dict[str, AffineWeights]:
        tensors = {name: torch.from_numpy(a).to(self.device) for name, a in arrays.items()}
        return {
            name: AffineWeights(tensors[f"{name}.weight"], tensors[f"{name}.bias"])
            for name in self._network.layers()
        }

"""The CUDA engine: all draws in PyTorch, batched over draws and images.

Everything is float32. TF32 is off: its 10-bit mantissa changes the fourth digit of probabilities.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.posterior import Posterior

_CHUNK = 64  # images at once: 64 of them with 100 draws take about 400 MB of GPU memory


class CudaUnavailableError(RuntimeError):
    """PyTorch finds no CUDA device that it can use."""


class CudaEngine:
    """All draws as one network on a GPU: grouped convolutions and batched matrix products.

    Args:
        posterior: The posterior.
        n_draws: Number of draws S, made once here.
        device: `cuda`, or `cpu` to test the same code without a GPU.

    Raises:
        CudaUnavailableError: If `cuda` is not available.
    """

    name = "torch-ensemble"

    def __init__(self, posterior: Posterior, *, n_draws: int, device: str = "cuda") -> None:
        if device == "cuda":
            if not torch.cuda.is_available():
                raise CudaUnavailableError("PyTorch finds no CUDA device; use 'auto' or 'cpu'")
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
        self.device = device
        self.n_draws = n_draws
        self._config = posterior.config
        self.n_classes = posterior.config.n_classes
        try:
            self._weights = {
                name: torch.from_numpy(values).to(device)
                for name, values in posterior.stack(n_draws).items()
            }
            side = posterior.config.image_size
            self.logits(np.zeros((1, side, side), np.uint8), n_draws)
        except RuntimeError as error:  # a GPU too old for this PyTorch, or out of memory
            raise CudaUnavailableError(
                f"the CUDA device cannot be used ({str(error).splitlines()[0]}); use 'cpu'"
            ) from error

    def logits(self, images: NDArray[np.uint8], n_draws: int) -> NDArray[np.float32]:
        """See `Engine.logits`."""
        result = np.empty((n_draws, len(images), self._config.n_outputs), np.float32)
        with torch.inference_mode():
            for start in range(0, len(images), _CHUNK):
                chunk = torch.from_numpy(images[start : start + _CHUNK]).to(self.device)
                x = chunk[:, None].float() / 255
                result[:, start : start + _CHUNK] = self._forward(x, n_draws).cpu().numpy()
        return result

    def _forward(self, x: Tensor, n_draws: int) -> Tensor:
        """Images (B, 1, H, W) to logits (S, B, C) or (S, B, C + 1)."""
        for i, conv in enumerate(self._config.convs, 1):
            kernel, bias = self._layer(f"conv{i}", n_draws)
            # The first layer's input is shared; later each draw is a group with its own maps.
            groups = 1 if i == 1 else n_draws
            stacked = kernel.flatten(0, 1), bias.flatten()
            x = functional.conv2d(x, *stacked, padding=conv.padding, groups=groups)
            x = functional.relu(x)
            if conv.pool:
                x = functional.max_pool2d(x, 2)
        if self._config.global_mean:
            x = x.mean(dim=(2, 3))
        n_maps = n_draws if self._config.convs else 1
        h = x.reshape(len(x), n_maps, -1).transpose(0, 1).expand(n_draws, -1, -1)
        n_dense = len(self._config.hidden) + 1
        for i in range(1, n_dense + 1):
            matrix, bias = self._layer(f"dense{i}", n_draws)
            h = torch.baddbmm(bias[:, None], h, matrix.transpose(1, 2))
            if i < n_dense:
                h = functional.relu(h)
        return h

    def _layer(self, name: str, n_draws: int) -> tuple[Tensor, Tensor]:
        """Weight and bias of the first `n_draws` draws, (S, …)."""
        return self._weights[f"{name}.weight"][:n_draws], self._weights[f"{name}.bias"][:n_draws]

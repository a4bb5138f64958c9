"""The engine protocol, and the choice of the engine for a device."""

import ctypes
import logging
import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.posterior import Posterior
from model.types import Device

_log = logging.getLogger("model")

_NO_PYTORCH = "it needs PyTorch: pip install 'maybe-neural-network[cuda]'"


class Engine(Protocol):
    """S networks drawn from a posterior, ready for inference. Thread-safe."""

    name: str
    device: str
    n_draws: int
    n_classes: int

    def logits(self, images: NDArray[np.uint8], n_draws: int) -> NDArray[np.float32]:
        """Logits of the first `n_draws` draws; `draw_probabilities` turns them into probabilities.

        Args:
            images: Preprocessed images (B, 28, 28).
            n_draws: How many draws to use, from 1 to the engine's `n_draws`.

        Returns:
            Logits (S, B, C), or (S, B, C + 1) with a not-a-digit output.
        """
        ...


def make_engine(
    posterior: Posterior, *, n_draws: int, device: Device = "auto", threads: int | None = None
) -> Engine:
    """Draw the posterior and prepare the engine for a device.

    On a CPU that is ONNX Runtime, and PyTorch is not imported. On CUDA it is PyTorch.

    Args:
        posterior: The posterior.
        n_draws: Number of draws S to hold.
        device: `cuda`, `cpu`, or `auto` for CUDA if available.
        threads: CPU threads that concurrent calls share; all granted CPUs if None.

    Raises:
        RuntimeError: If `cuda` is requested and not available.
    """
    if device != "cpu" and (device == "cuda" or has_cuda_device()):
        try:
            from model.engines.cuda_engine import CudaEngine  # noqa: PLC0415 - needs PyTorch

            return CudaEngine(posterior, n_draws=n_draws)
        except (RuntimeError, ImportError, OSError) as error:
            reason = _NO_PYTORCH if isinstance(error, ModuleNotFoundError) else str(error)
            if device == "cuda":
                raise RuntimeError(f"device 'cuda' was asked for: {reason}") from error
            _log.warning("there is a GPU, and the CPU is used: %s", reason)
    from model.engines.onnx_engine import OnnxEngine  # noqa: PLC0415 - not needed on a GPU

    return OnnxEngine(posterior, n_draws=n_draws, threads=threads)


def has_cuda_device() -> bool:
    """Whether there is a CUDA device, without importing PyTorch.

    Asks the driver, which respects `CUDA_VISIBLE_DEVICES`.
    """
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    except (OSError, AttributeError):
        return False
    return found and count.value > 0

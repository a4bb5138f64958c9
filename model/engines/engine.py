"""What multiplies: the engines that turn 28×28 inputs into the logits of every draw."""

import ctypes
import importlib.util
import logging
import os
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from model.posterior import Posterior

__all__ = ["Device", "Engine", "has_cuda_device", "make_engine"]

_log = logging.getLogger("model")

Device = Literal["auto", "cpu", "cuda"]


class Engine(Protocol):
    """S networks drawn from a posterior, ready to be asked. Safe to call from several threads."""

    name: str
    device: str
    n_draws: int
    n_classes: int

    def logits(self, images: NDArray[np.uint8], n_draws: int) -> NDArray[np.float32]:
        """Outputs of the first `n_draws` draws; `model.uncertainty.outcomes` reads them.

        Args:
            images: Inputs (B, 28, 28), as the digit door makes them.
            n_draws: How many draws to use, from 1 to the engine's `n_draws`.

        Returns:
            Logits (S, B, C), or (S, B, C + 1) if the network knows what is not a digit.
        """
        ...


def make_engine(
    posterior: Posterior, *, n_draws: int, device: Device = "auto", threads: int | None = None
) -> Engine:
    """Draw the posterior and prepare the engine for a device.

    On a CPU that is the ensemble engine, for which PyTorch is not imported; on CUDA the same
    draws, batched in PyTorch.

    Args:
        posterior: The posterior.
        n_draws: Number of draws S to hold.
        device: `cuda` for a GPU, `cpu`, or `auto` for CUDA where it is available.
        threads: CPU threads that all calls together may use, if there are no more calls at once;
            as many as cores are granted if None.

    Raises:
        RuntimeError: If `cuda` is asked for and not available.
    """
    if device != "cpu" and (device == "cuda" or has_cuda_device()):
        try:
            from model.engines.cuda_engine import CudaEngine  # noqa: PLC0415 - takes seconds

            return CudaEngine(posterior, n_draws=n_draws)
        except (RuntimeError, ImportError, OSError) as error:
            if device == "cuda":
                raise RuntimeError(f"device 'cuda' was asked for: {error}") from error
            _log.warning("there is a GPU, and the CPU is used: %s", error)
    from model.engines.onnx_engine import OnnxEngine  # noqa: PLC0415 - a GPU does without

    return OnnxEngine(posterior, n_draws=n_draws, threads=threads)


def has_cuda_device() -> bool:
    """Whether there are a CUDA device and PyTorch to use it, without importing PyTorch.

    The driver itself is asked, which takes `CUDA_VISIBLE_DEVICES` into account.
    """
    if importlib.util.find_spec("torch") is None:
        return False
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    except (OSError, AttributeError):
        return False
    return found and count.value > 0

"""What multiplies: the engines that turn 28×28 inputs into the logits of every draw."""

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from model.posterior import Posterior

__all__ = ["Device", "Engine", "make_engine"]

Device = Literal["auto", "cpu", "cuda"]


class Engine(Protocol):
    """S networks drawn from a posterior, ready to be asked. Safe to call from several threads."""

    name: str
    device: str
    n_draws: int

    def logits(self, images: NDArray[np.uint8], n_draws: int) -> NDArray[np.float32]:
        """Logits of the first `n_draws` draws.

        Args:
            images: Inputs (B, 28, 28), as the digit door makes them.
            n_draws: How many draws to use, from 1 to the engine's `n_draws`.

        Returns:
            Logits (S, B, C).
        """
        ...


def make_engine(
    posterior: Posterior, *, n_draws: int, device: Device = "auto", threads: int | None = None
) -> Engine:
    """Draw the posterior and prepare the engine for a device.

    Args:
        posterior: The posterior.
        n_draws: Number of draws S to hold.
        device: `cuda` for a GPU, `cpu`, or `auto` for CUDA where it is available.
        threads: CPU threads that one call may use, for the whole process; the library's own
            default if None.

    Raises:
        RuntimeError: If `cuda` is asked for and not available.
    """
    from model.torch_engine import TorchEngine  # noqa: PLC0415 - torch takes seconds to import

    return TorchEngine(posterior, n_draws=n_draws, device=device, threads=threads)

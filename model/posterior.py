"""The Gaussian posterior and draws from it: plain NumPy, the same for every engine.

Draw s has its own counter-based random stream, keyed by (seed, s). The first N draws are therefore
the same for any number of draws, order and engine, and use no global random state.

Source: Salmon, Moraes, Dror and Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3"
(Philox), as implemented by NumPy.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.architecture import ModelConfig

Arrays: TypeAlias = dict[str, NDArray[np.float32]]
"""Weights and biases by the names of `ModelConfig.parameter_shapes`."""


class Ensemble(Protocol):
    """Networks of one architecture that an engine computes: posterior draws, or others."""

    @property
    def config(self) -> ModelConfig:
        """Their architecture."""
        ...

    def stack(self, n_draws: int) -> Arrays:
        """The first `n_draws` networks, stacked: arrays of shape (S, *shape) by name."""
        ...


@dataclass(frozen=True, eq=False)
class Posterior:
    """A mean-field Gaussian posterior N(mean, scale²) over all weights and biases.

    Attributes:
        config: Architecture, labels and prior.
        mean: Posterior means, float32.
        scale: Posterior standard deviations, same names and shapes.
        seed: Seed of the draws, from 0 to 2⁶³ - 1.

    Raises:
        ValueError: If the seed is not a whole number in that range.
    """

    config: ModelConfig
    mean: Arrays
    scale: Arrays
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the seed."""
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed!r}, expected a whole number from 0 to 2**63 - 1")

    def draw(self, index: int) -> Arrays:
        """Draw number `index`: w = mu + sigma · eps with eps ~ N(0, 1), by name."""
        return {name: self.mean[name] + self.scale[name] * eps for name, eps in self._noise(index)}

    def stack(self, n_draws: int) -> Arrays:
        """The first `n_draws` draws, stacked: arrays of shape (S, *shape) by name."""
        shapes = self.config.parameter_shapes().items()
        stacked = {name: np.empty((n_draws, *shape), np.float32) for name, shape in shapes}
        for index in range(n_draws):
            for name, weights in self.draw(index).items():
                stacked[name][index] = weights
        return stacked

    def digest(self) -> str:
        """Fingerprint of the noise of draw 0, as 16 hexadecimal digits.

        If it equals the one in a checkpoint, this installation reproduces the draws that the
        decision rules were calibrated with. Noise is rounded to 1/1000: a last-bit difference
        between mathematics libraries is not another generator.
        """
        sha = hashlib.sha256()
        for name, eps in self._noise(0):
            sha.update(name.encode())
            sha.update(np.rint(eps * 1000).astype("<i4").tobytes())
        return sha.hexdigest()[:16]

    def _noise(self, index: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
        key = np.array([self.seed, index], np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key))
        for name, shape in self.config.parameter_shapes().items():
            yield name, generator.standard_normal(shape, dtype=np.float32)

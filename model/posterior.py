"""The posterior as a value, and draws from it: plain NumPy, the same for every engine.

Draw s is made from its own counter-based stream, keyed by (seed, s). So the first N draws are the
same however many are made, in any order, by any engine, and no global random state is involved.

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

__all__ = ["Arrays", "Networks", "Posterior"]

Arrays: TypeAlias = dict[str, NDArray[np.float32]]

_LARGEST_SEED = 2**63 - 1


class Networks(Protocol):
    """What an engine computes: networks of one shape, a posterior's draws or others."""

    @property
    def config(self) -> ModelConfig:
        """Their architecture."""
        ...

    def stack(self, n_draws: int) -> Arrays:
        """The first `n_draws` of them, stacked: arrays of shape (S, *shape) by name."""
        ...


@dataclass(frozen=True, eq=False)
class Posterior:
    """A mean-field Gaussian posterior N(mean, scale²) of every weight and bias, and its draws.

    Attributes:
        config: Architecture, labels and prior.
        mean: Posterior means by the names of `ModelConfig.parameter_shapes`, float32.
        scale: Posterior standard deviations, same names and shapes.
        seed: Seed of the draws, from 0 to 2⁶³ - 1.
    """

    config: ModelConfig
    mean: Arrays
    scale: Arrays
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a seed that is no seed.

        Raises:
            ValueError: If it is not a whole number in its range.
        """
        if type(self.seed) is not int or not 0 <= self.seed <= _LARGEST_SEED:
            raise ValueError(f"seed is {self.seed!r}, expected a whole number from 0 to 2**63 - 1")

    def draw(self, index: int) -> Arrays:
        """Draw number `index` of w = mu + sigma · eps, eps ~ N(0, 1): weights by name."""
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
        """A fingerprint of the noise of draw 0, to be compared with the one in a checkpoint.

        It tells whether this installation draws the same networks as the one that calibrated the
        model. Noise is rounded to 1/1000 so that the last bit of a mathematics library is not
        taken for another generator.

        Returns:
            16 hexadecimal digits.
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

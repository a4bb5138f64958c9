"""What the network answers to many pictures, kept together with the pictures."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.uncertainty import PredictiveSummary

__all__ = ["Answers"]


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers for one set of pictures.

    Attributes:
        name: What the set is called, such as `test` or `Fashion-MNIST`.
        pixels: What the network saw, uint8 (N, 28, 28).
        labels: The true classes (N,), as indices; None if the pictures are of none of the classes.
        summary: The answers, arrays of N.
        flagged: Which pictures the digit door sends to a person anyway (N,).
    """

    name: str
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    summary: PredictiveSummary
    flagged: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pixels)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the most probable class is the true one (N,); nowhere where there is none."""
        if self.labels is None:
            return np.zeros(len(self), np.bool_)
        correct: NDArray[np.bool_] = self.summary.probability.argmax(axis=1) == self.labels
        return correct

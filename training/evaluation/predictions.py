"""Predictions for many images at once."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.engines.engine import Engine
from model.uncertainty import PredictiveSummary, draw_probabilities, summarise
from training.data.preprocess import Inputs
from training.interruption import check_interrupted

LEVEL = 0.95
"""Mass of the credible intervals of all predictions."""

_BATCH_SIZE = 250


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions for one set of images.

    Attributes:
        name: Name of the set, such as `test` or `Fashion-MNIST`.
        pixels: The network's input, uint8 (N, 28, 28).
        labels: True classes (N,), as indices; None if the images belong to no class.
        summary: The predictions, arrays of N.
        flagged: Which images preprocessing sends to review (N,).
    """

    name: str
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    summary: PredictiveSummary
    flagged: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pixels)

    @property
    def true_labels(self) -> NDArray[np.int64]:
        """True classes (N,).

        Raises:
            ValueError: If the predictions have no labels.
        """
        if self.labels is None:
            raise ValueError(f"{self.name}: the true classes are needed")
        return self.labels

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the most probable class is the true one (N,); False without labels."""
        if self.labels is None:
            return np.zeros(len(self), np.bool_)
        correct: NDArray[np.bool_] = self.summary.probability.argmax(axis=1) == self.labels
        return correct


@dataclass(frozen=True)
class BatchPredictor:
    """Predicts sets of images batch by batch, with a progress bar.

    Attributes:
        engine: Computes the networks.
        n_draws: Number of posterior draws.
    """

    engine: Engine
    n_draws: int

    def __call__(self, inputs: Inputs, labels: NDArray[np.int64] | None, name: str) -> Predictions:
        """The predictions for preprocessed images.

        Args:
            inputs: The preprocessed images.
            labels: Their classes (N,); None if they belong to no class.
            name: Name of the set.
        """
        parts = []
        pixels = inputs.pixels
        title = f"predicting {name}"
        with tqdm(total=len(pixels), desc=title, unit="image", disable=None, leave=False) as bar:
            for start in range(0, len(pixels), _BATCH_SIZE):
                batch = pixels[start : start + _BATCH_SIZE]
                logits = self.engine.logits(batch, self.n_draws)
                drawn = draw_probabilities(logits, self.engine.n_classes)
                parts.append(summarise(drawn.classes, LEVEL, drawn.not_a_digit))
                check_interrupted()
                bar.update(len(batch))
        joined = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(PredictiveSummary)
        }
        return Predictions(name, pixels, labels, PredictiveSummary(**joined), inputs.flagged)

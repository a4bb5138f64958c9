"""From a picture to an answer in one call: `load().predict(picture)`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from model.checkpoint import BUNDLED, Checkpoint, load_checkpoint
from model.decision import Reason
from model.engines.engine import Device, Engine, make_engine
from model.errors import ImageTooLargeError, RequestError
from model.preprocessing.normalize import MAX_PIXELS, DigitImage, open_array, open_bytes, open_image
from model.uncertainty import Floats, Outcomes, outcomes, summarise

__all__ = [
    "DEFAULT_DRAWS",
    "LEAST_LEVEL",
    "ClassProbability",
    "Classifier",
    "NotADigit",
    "Prediction",
    "load",
]

DEFAULT_DRAWS = 100
DEFAULT_LEVEL = 0.95
LEAST_DRAWS = 2
LEAST_LEVEL = 0.5
_MAX_FILE_BYTES = 256 * 2**20

Decision = Literal["accept", "review"]
Picture = str | os.PathLike[str] | bytes | Image.Image | ArrayLike


@dataclass(frozen=True)
class ClassProbability:
    """What the draws say about one class: mean, credible interval and standard deviation."""

    label: str
    probability: float
    lower: float
    upper: float
    std: float


@dataclass(frozen=True)
class NotADigit:
    """What the draws say about the picture being no digit: mean, interval, standard deviation."""

    probability: float
    lower: float
    upper: float
    std: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for one picture. Probabilities are in [0, 1], entropies in nats.

    Attributes:
        prediction: The most probable label.
        probability: Its probability.
        decision: `accept`, or `review` when a person should look.
        reasons: Why a person should look; empty if accepted.
        calibrated: Whether the decision's guarantee applies to this number of draws.
        classes: One entry per class, in the model's label order, given that it is a digit.
        not_a_digit: The probability that it is none; None if the network has no output for it.
        predictive_entropy: Total uncertainty, in [0, ln C].
        expected_entropy: The part that every network agrees on: the picture is ambiguous.
        mutual_information: The part that is disagreement between networks.
        prediction_set: Labels of the conformal set; the most probable one is always in.
        samples: Number of draws used.
        level: Mass of the credible intervals.
        pixels: What the network saw, uint8 (28, 28).
        draws: Probabilities of each draw (S, C).
    """

    prediction: str
    probability: float
    decision: Decision
    reasons: tuple[Reason, ...]
    calibrated: bool
    classes: tuple[ClassProbability, ...]
    not_a_digit: NotADigit | None
    predictive_entropy: float
    expected_entropy: float
    mutual_information: float
    prediction_set: tuple[str, ...]
    samples: int
    level: float
    pixels: NDArray[np.uint8] = field(repr=False)
    draws: Floats = field(repr=False)


class Classifier:
    """A checkpoint and the engine that holds its draws. Safe to use from several threads.

    Args:
        checkpoint: The posterior, its labels and its decision rules.
        engine: Its draws, ready to be asked.
    """

    def __init__(self, checkpoint: Checkpoint, engine: Engine) -> None:
        """Join the two; see the class."""
        self.checkpoint = checkpoint
        self.engine = engine
        self.version = checkpoint.version(engine.n_draws)
        self.draws_reproduced = checkpoint.draws_are_reproduced()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in order."""
        return self.checkpoint.posterior.config.labels

    def predict(
        self,
        picture: Picture,
        *,
        samples: int | None = None,
        level: float = DEFAULT_LEVEL,
        max_pixels: int = MAX_PIXELS,
    ) -> Prediction:
        """Answer for one picture.

        Args:
            picture: A path, a file's bytes, a Pillow image, or an array (H, W), (H, W, 3) or
                (H, W, 4) of integers 0 to 255 or floating point numbers 0 to 1.
            samples: Number of draws to use, the first of those held; all if None.
            level: Mass of the equal-tailed credible intervals.
            max_pixels: Bound on width × height, checked before decoding.

        Returns:
            The answer. The same picture always gives the same one.

        Raises:
            RequestError: If `samples` or `level` is out of its range.
            ImageError: If the picture cannot be read.
            ValueError: If an array has another shape or values out of range.
        """
        samples = self.check_request(samples, level)
        image = _open(picture, max_pixels)
        return self.predict_inputs([image], samples=samples, levels=[level])[0]

    def predict_inputs(
        self, images: Sequence[DigitImage], *, samples: int, levels: Sequence[float]
    ) -> list[Prediction]:
        """Answers for pictures that have come through the digit door, computed together.

        Each is to the last bit what it would be alone.

        Args:
            images: The pictures.
            samples: Number of draws to use for all of them.
            levels: Mass of the credible intervals, for each its own.
        """
        logits = self.engine.logits(np.stack([image.pixels for image in images]), samples)
        return [
            self._answer(
                image, outcomes(np.ascontiguousarray(logits[:, i : i + 1]), len(self.labels)), level
            )
            for i, (image, level) in enumerate(zip(images, levels, strict=True))
        ]

    def probabilities(self, images: NDArray[np.uint8], samples: int | None = None) -> Floats:
        """Class probabilities (S, B, C) of each draw for inputs (B, 28, 28) of the digit door."""
        logits = self.engine.logits(images, samples or self.engine.n_draws)
        return outcomes(logits, len(self.labels)).classes

    def check_request(self, samples: int | None, level: float) -> int:
        """The number of draws to use.

        Raises:
            RequestError: If `samples` or `level` is out of its range, or if they are inconsistent:
                each tail of the interval must hold at least one draw.
        """
        held = self.engine.n_draws
        n_draws = held if samples is None else samples
        if not LEAST_DRAWS <= n_draws <= held:
            raise RequestError(
                "samples", f"samples must be from {LEAST_DRAWS} to {held}, not {n_draws}"
            )
        if not LEAST_LEVEL <= level < 1:
            raise RequestError(
                "level", f"level must be at least {LEAST_LEVEL} and below 1, not {level:g}"
            )
        # A hair of tolerance: 1 - 2/40 and 0.95 need not be the same floating point number.
        if level > 1 - 2 / n_draws + 1e-9:
            needed = int(np.ceil(2 / (1 - level) - 1e-6))
            raise RequestError(
                "level",
                f"level {level:g} needs at least {needed} samples so that each tail of the "
                f"interval holds a draw; this request uses {n_draws} of {held}",
            )
        return n_draws

    def _answer(self, image: DigitImage, drawn: Outcomes, level: float) -> Prediction:
        checkpoint, samples = self.checkpoint, len(drawn.classes)
        summary = summarise(drawn.classes, level, drawn.not_a_digit)
        top = int(summary.probability[0].argmax())
        members = checkpoint.conformal.prediction_sets(summary.probability)[0]
        reasons = (*image.reasons, *checkpoint.selective.reasons(summary)[0])
        return Prediction(
            prediction=self.labels[top],
            probability=float(summary.probability[0, top]),
            decision="review" if reasons else "accept",
            reasons=reasons,
            calibrated=samples == checkpoint.selective.n_draws and self.draws_reproduced,
            classes=tuple(
                ClassProbability(label, *map(float, numbers))
                for label, *numbers in zip(
                    self.labels,
                    summary.probability[0],
                    summary.lower[0],
                    summary.upper[0],
                    summary.std[0],
                    strict=True,
                )
            ),
            not_a_digit=NotADigit(
                float(summary.not_a_digit[0]),
                float(summary.not_a_digit_lower[0]),
                float(summary.not_a_digit_upper[0]),
                float(summary.not_a_digit_std[0]),
            )
            if checkpoint.posterior.config.not_a_digit
            else None,
            predictive_entropy=float(summary.predictive_entropy[0]),
            expected_entropy=float(summary.expected_entropy[0]),
            mutual_information=float(summary.mutual_information[0]),
            prediction_set=tuple(
                label for label, member in zip(self.labels, members, strict=True) if member
            ),
            samples=samples,
            level=level,
            pixels=image.pixels,
            draws=drawn.classes[:, 0],
        )


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    n_draws: int = DEFAULT_DRAWS,
    device: Device = "auto",
    threads: int | None = None,
) -> Classifier:
    """Load a checkpoint, the shipped one if no path is given.

    Args:
        path: A file written by `python -m training.run`.
        n_draws: Number of posterior draws to hold, at least 2.
        device: `cuda`, `cpu`, or `auto` for CUDA where it is available.
        threads: CPU threads that all predictions together may use, if there are no more of them
            at once; as many as cores are granted if None.

    Returns:
        A classifier: `load().predict("seven.png").prediction`.

    Raises:
        CheckpointError: If the file cannot be used; the message says why.
        RuntimeError: If `cuda` is asked for and not available.
        ValueError: If `n_draws` is below 2.
    """
    if n_draws < LEAST_DRAWS:
        raise ValueError(f"n_draws must be at least {LEAST_DRAWS}, not {n_draws}")
    checkpoint = load_checkpoint(BUNDLED if path is None else path)
    engine = make_engine(checkpoint.posterior, n_draws=n_draws, device=device, threads=threads)
    return Classifier(checkpoint, engine)


def _open(picture: Picture, max_pixels: int) -> DigitImage:
    if isinstance(picture, str | os.PathLike):
        path = Path(picture)
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ImageTooLargeError(f"{path}: more than {_MAX_FILE_BYTES:,} bytes")
        picture = path.read_bytes()
    if isinstance(picture, Image.Image):
        return open_image(picture, max_pixels=max_pixels)
    if isinstance(picture, bytes | bytearray | memoryview):
        return open_bytes(bytes(picture), max_pixels=max_pixels)
    return open_array(picture)

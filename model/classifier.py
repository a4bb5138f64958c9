"""Classifier: from an image to a prediction in one call, `load().predict(image)`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from model.checkpoint import BUNDLED, Checkpoint, load_checkpoint
from model.engines import Engine, make_engine
from model.errors import ImageTooLargeError, RequestError
from model.preprocessing import MAX_PIXELS, DigitImage, open_array, open_bytes, open_image
from model.types import Decision, Device, Floats, Reason
from model.uncertainty import draw_probabilities, summarise

DEFAULT_DRAWS = 100
DEFAULT_LEVEL = 0.95
MIN_DRAWS = 2
MIN_LEVEL = 0.5
_MAX_FILE_BYTES = 256 * 2**20

ImageLike: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | ArrayLike


@dataclass(frozen=True)
class ClassProbability:
    """Probability of one class: mean over draws, credible interval and standard deviation."""

    label: str
    probability: float
    lower: float
    upper: float
    std: float


@dataclass(frozen=True)
class NotADigit:
    """Probability of not being a digit: mean over draws, credible interval, standard deviation."""

    probability: float
    lower: float
    upper: float
    std: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction for one image. Probabilities are in [0, 1], entropies in nats.

    Attributes:
        prediction: The most probable label.
        probability: Its probability.
        decision: `accept`, or `review` when a person should look.
        reasons: Why a person should look; empty if accepted.
        calibrated: Whether the decision's guarantee applies to this number of draws.
        classes: One entry per class, in the model's label order, given that it is a digit.
        not_a_digit: Probability that it is none; None if the network has no output for it.
        predictive_entropy: Total uncertainty, in [0, ln C].
        expected_entropy: Aleatoric part: every network finds the image ambiguous.
        mutual_information: Epistemic part: the networks disagree.
        prediction_set: Labels of the conformal set; the most probable one is always in.
        samples: Number of draws used.
        level: Mass of the credible intervals.
        pixels: The network's input, uint8 (28, 28).
        draws: Class probabilities of each draw (S, C).
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
    """A checkpoint and the engine that holds its posterior's draws. Thread-safe."""

    def __init__(self, checkpoint: Checkpoint, engine: Engine) -> None:
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
        image: ImageLike,
        *,
        samples: int | None = None,
        level: float = DEFAULT_LEVEL,
        max_pixels: int = MAX_PIXELS,
    ) -> Prediction:
        """Predict the digit in one image. The same image always gives the same prediction.

        Args:
            image: A path, a file's bytes, a Pillow image, or an array (H, W), (H, W, 3) or
                (H, W, 4) of integers 0 to 255 or floating point numbers 0 to 1.
            samples: Number of draws to use, the first of those held; all if None.
            level: Mass of the equal-tailed credible intervals.
            max_pixels: Limit on width × height, checked before decoding.

        Raises:
            RequestError: If `samples` or `level` is out of range.
            ImageError: If the image cannot be read.
            ValueError: If an array has another shape or values out of range.
        """
        samples = self.check_request(samples, level)
        return self.predict_inputs([_open(image, max_pixels)], samples=samples, levels=[level])[0]

    def predict_inputs(
        self, images: Sequence[DigitImage], *, samples: int, levels: Sequence[float]
    ) -> list[Prediction]:
        """Predict preprocessed images as one batch; each result is bit-identical to it alone.

        All use `samples` draws; each has its own level, the mass of its credible intervals.
        """
        logits = self.engine.logits(np.stack([image.pixels for image in images]), samples)
        return [
            self._prediction(image, np.ascontiguousarray(logits[:, i : i + 1]), level)
            for i, (image, level) in enumerate(zip(images, levels, strict=True))
        ]

    def probabilities(self, images: NDArray[np.uint8], samples: int | None = None) -> Floats:
        """Class probabilities (S, B, C) of each draw for preprocessed images (B, 28, 28)."""
        logits = self.engine.logits(images, samples or self.engine.n_draws)
        return draw_probabilities(logits, len(self.labels)).classes

    def check_request(self, samples: int | None, level: float) -> int:
        """Validate `samples` and `level`, and return the number of draws to use.

        Raises:
            RequestError: If one is out of range, or a tail of the interval holds no draw.
        """
        held = self.engine.n_draws
        n_draws = held if samples is None else samples
        if not MIN_DRAWS <= n_draws <= held:
            raise RequestError(
                "samples", f"samples must be from {MIN_DRAWS} to {held}, not {n_draws}"
            )
        if not MIN_LEVEL <= level < 1:
            raise RequestError(
                "level", f"level must be at least {MIN_LEVEL} and below 1, not {level:g}"
            )
        # The tolerance: 1 - 2/40 and 0.95 need not be the same floating point number.
        if level > 1 - 2 / n_draws + 1e-9:
            needed = int(np.ceil(2 / (1 - level) - 1e-6))
            raise RequestError(
                "level",
                f"level {level:g} needs at least {needed} samples so that each tail of the "
                f"interval holds a draw; this request uses {n_draws} of {held}",
            )
        return n_draws

    def _prediction(
        self, image: DigitImage, logits: NDArray[np.float32], level: float
    ) -> Prediction:
        """The prediction for one image from the logits of its draws, (S, 1, C) or (S, 1, C + 1)."""
        checkpoint, labels = self.checkpoint, self.labels
        draws, not_a_digit = draw_probabilities(logits, len(labels))
        samples = len(draws)
        summary = summarise(draws, level, not_a_digit)
        (probability,), (lower,), (upper,) = summary.probability, summary.lower, summary.upper
        (in_set,) = checkpoint.conformal.prediction_sets(summary.probability)
        reasons = (*image.reasons, *checkpoint.selective.reasons(summary)[0])
        top = int(probability.argmax())
        none = NotADigit(
            probability=float(summary.not_a_digit[0]),
            lower=float(summary.not_a_digit_lower[0]),
            upper=float(summary.not_a_digit_upper[0]),
            std=float(summary.not_a_digit_std[0]),
        )
        intervals = zip(labels, probability, lower, upper, summary.std[0], strict=True)
        return Prediction(
            prediction=labels[top],
            probability=float(probability[top]),
            decision="review" if reasons else "accept",
            reasons=reasons,
            calibrated=samples == checkpoint.selective.n_draws and self.draws_reproduced,
            classes=tuple(
                ClassProbability(label, *map(float, values)) for label, *values in intervals
            ),
            not_a_digit=none if checkpoint.posterior.config.not_a_digit else None,
            predictive_entropy=float(summary.predictive_entropy[0]),
            expected_entropy=float(summary.expected_entropy[0]),
            mutual_information=float(summary.mutual_information[0]),
            prediction_set=tuple(np.array(labels)[in_set].tolist()),
            samples=samples,
            level=level,
            pixels=image.pixels,
            draws=draws[:, 0],
        )


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    n_draws: int = DEFAULT_DRAWS,
    device: Device = "auto",
    threads: int | None = None,
) -> Classifier:
    """Load a checkpoint as a classifier.

    Args:
        path: A file written by `python -m training.run`; the bundled checkpoint if None.
        n_draws: Number of posterior draws to hold, at least 2.
        device: `cuda`, `cpu`, or `auto` for CUDA if available.
        threads: CPU threads that concurrent predictions share; all granted CPUs if None.

    Raises:
        CheckpointError: If the file cannot be used; the message says why.
        RuntimeError: If `cuda` is requested and not available.
        ValueError: If `n_draws` is below 2.
    """
    if n_draws < MIN_DRAWS:
        raise ValueError(f"n_draws must be at least {MIN_DRAWS}, not {n_draws}")
    checkpoint = load_checkpoint(BUNDLED if path is None else path)
    engine = make_engine(checkpoint.posterior, n_draws=n_draws, device=device, threads=threads)
    return Classifier(checkpoint, engine)


def _open(image: ImageLike, max_pixels: int) -> DigitImage:
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ImageTooLargeError(f"{path}: more than {_MAX_FILE_BYTES:,} bytes")
        image = path.read_bytes()
    if isinstance(image, Image.Image):
        return open_image(image, max_pixels=max_pixels)
    if isinstance(image, bytes | bytearray | memoryview):
        return open_bytes(bytes(image), max_pixels=max_pixels)
    return open_array(image)

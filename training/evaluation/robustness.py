"""Metrics of rotated and of corrupted digits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.decision import SelectiveRule
from training.data.datasets import Part
from training.data.parallel import stream
from training.data.preprocess import Inputs, preprocess
from training.evaluation.corruptions import KINDS, corrupt
from training.evaluation.metrics import error_rate, nll
from training.evaluation.predictions import Predictions
from training.evaluation.summary import accepted

ANGLES_DEG = tuple(range(0, 181, 15))

_N_ROTATED = 500
_N_CORRUPTED = 2000

Predictor = Callable[[Inputs, NDArray[np.int64], str], Predictions]


@dataclass(frozen=True)
class CorruptionMetrics:
    """Metrics of corrupted digits.

    Attributes:
        n: Number of images.
        error: Error rate, in [0, 1].
        nll: Mean negative log-likelihood, in nats.
        accepted: Share that is accepted.
        errors_accepted: Number of errors among the accepted.
    """

    n: int
    error: float
    nll: float
    accepted: float
    errors_accepted: int


@dataclass(frozen=True)
class RotationPoint:
    """Metrics of digits rotated by one angle.

    Attributes:
        angle_deg: Counter-clockwise angle, in degrees.
        n: Number of images.
        error: Error rate, in [0, 1].
        nll: Mean negative log-likelihood, in nats.
        accepted: Share that is accepted; None without a rule.
        errors_accepted: Number of errors among the accepted; None without a rule.
        predictive_entropy: Mean, in nats.
        expected_entropy: Mean, in nats.
        mutual_information: Mean, in nats.
        not_a_digit: Mean probability; 0 if the network has no output for it.
    """

    angle_deg: float
    n: int
    error: float
    nll: float
    accepted: float | None
    errors_accepted: int | None
    predictive_entropy: float
    expected_entropy: float
    mutual_information: float
    not_a_digit: float


def rotation_sweep(
    predict: Predictor,
    part: Part,
    rule: SelectiveRule | None = None,
    *,
    n: int = _N_ROTATED,
    processes: int = 1,
) -> list[RotationPoint]:
    """Rotate the first digits of a part counter-clockwise by `ANGLES_DEG`.

    Args:
        predict: Predicts inputs with labels, given a name.
        part: The digits.
        rule: Decides which are accepted.
        n: How many digits to rotate.
        processes: How many processes preprocess images.
    """
    images, labels = part.images[:n], part.labels[:n]
    points = []
    for angle in ANGLES_DEG:
        rotated = Part(np.stack([rotate_image(image, angle) for image in images]), labels)
        name = f"digits rotated by {angle}°"
        predictions = predict(preprocess(rotated, name, processes=processes), labels, name)
        summary = predictions.summary
        taken = None if rule is None else accepted(predictions, rule)
        points.append(
            RotationPoint(
                angle_deg=angle,
                n=len(labels),
                error=error_rate(summary.probability, labels),
                nll=nll(summary.probability, labels),
                accepted=None if taken is None else float(taken.mean()),
                errors_accepted=None
                if taken is None
                else int((taken & ~predictions.correct).sum()),
                predictive_entropy=float(summary.predictive_entropy.mean()),
                expected_entropy=float(summary.expected_entropy.mean()),
                mutual_information=float(summary.mutual_information.mean()),
                not_a_digit=float(summary.not_a_digit.mean()),
            )
        )
    return points


def corruption_sweep(
    predict: Predictor,
    part: Part,
    rule: SelectiveRule,
    *,
    n: int = _N_CORRUPTED,
    processes: int = 1,
) -> dict[str, CorruptionMetrics]:
    """Corrupt the first digits of a part in the 15 ways of MNIST-C; see `rotation_sweep`.

    Source: Mu and Gilmer (2019), "MNIST-C: A Robustness Benchmark for Computer Vision".
    """
    images, labels = part.images[:n], part.labels[:n]
    if images.shape[1:] != (28, 28):
        images = preprocess(Part(images, labels), "digits", processes=processes).pixels
    metrics = {}
    for number, kind in enumerate(KINDS):
        rng = stream(number, 0)
        corrupted = Part(np.stack([corrupt(image, kind, rng) for image in images]), labels)
        name = kind.replace("_", " ")
        predictions = predict(preprocess(corrupted, name, processes=processes), labels, name)
        taken = accepted(predictions, rule)
        metrics[kind] = CorruptionMetrics(
            n=len(labels),
            error=error_rate(predictions.summary.probability, labels),
            nll=nll(predictions.summary.probability, labels),
            accepted=float(taken.mean()),
            errors_accepted=int((taken & ~predictions.correct).sum()),
        )
    return metrics


def rotate_image(image: NDArray[Any], angle_deg: float) -> NDArray[np.float32]:
    """Rotate an image counter-clockwise about its middle.

    Args:
        image: Intensities (H, W): uint8, or floats in [0, 1].
        angle_deg: The angle in degrees.

    Returns:
        Intensities (H, W) in [0, 1].
    """
    scale = 255 if image.dtype == np.uint8 else 1
    scaled = np.asarray(image, np.float32) / np.float32(scale)
    rotated = Image.fromarray(scaled).rotate(angle_deg, Image.Resampling.BICUBIC)
    return np.asarray(rotated).clip(0, 1)

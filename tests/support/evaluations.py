"""Evaluations of random images, small enough to take no time."""

from dataclasses import dataclass, replace

import numpy as np

from model import summarise
from tests.support.checkpoints import tiny_checkpoint
from training.data.datasets import Part
from training.evaluation.intervals import IntervalCoverage, IntervalMetrics, MonteCarloError
from training.evaluation.predictions import Predictions
from training.evaluation.result import Evaluation, EvaluationMetrics
from training.evaluation.robustness import CorruptionMetrics, RotationPoint
from training.evaluation.summary import CoverageErrors, OodMetrics, PartMetrics, SetMetrics

PART = PartMetrics(
    n=40, error=0.005, nll=0.0147, brier_score=0.0075, calibration_error=0.0011,
    adaptive_calibration_error=0.0009, predictive_entropy=0.0157, mutual_information=0.0024,
    not_a_digit=0.0, flagged=0.025, accepted=0.95, errors_accepted=2, aurc=0.00012,
    errors_at_coverage={"0.90": CoverageErrors(36, 1)}, set_coverage=0.9995, set_size=1.041,
    set_larger_than_one=0.04, intervals={"error": (0.0037, 0.0065)},
)  # fmt: skip
OOD = OodMetrics(
    n=20, flagged=0.12, accepted=0.031, accepted_where_97_of_digits_are=0.29, unlike_training=0.83,
    predictive_entropy=1.2, mutual_information=0.3, mutual_information_ratio=125.0,
    not_a_digit=0.77, auroc={"predictive_entropy": 0.9911},
    fpr_at_95_tpr={"predictive_entropy": 0.0222},
)  # fmt: skip
METRICS = EvaluationMetrics(
    parts={"test": PART, "imitated": replace(PART, error=0.1, intervals=None)},
    sets_by_class={"0": SetMetrics(n=1028, coverage=0.987, size=1.5, larger_than_one=0.25)},
    ood={"clothes": OOD},
    ood_missing=["letters"],
    rotation=[
        RotationPoint(angle, 50, 0.1, 0.4, 0.8, 3, 0.5, 0.4, 0.1, 0.0) for angle in (-45, 0, 45)
    ],
    corruptions={"motion_blur": CorruptionMetrics(50, 0.2, 0.7, 0.5, 1)},
    intervals=IntervalMetrics(
        level=0.9,
        monte_carlo={"all": MonteCarloError(1234, 0.00061, 0.0028, 0.0019)},
        another={"all": IntervalCoverage(1234, 0.8765), "unsure": IntervalCoverage(56, 0.54)},
    ),
)
"""Metrics with round numbers, all of which a report shows."""

TRAINING = {
    "dataset": "mnist",
    "created": "2026-01-02T03:04:05+00:00",
    "epochs": [{"epoch": 1, "nll": 0.9, "kl": 7e4}, {"epoch": 2, "nll": 0.1, "kl": 6e4}],
    "fit": {"learning_rate": 0.004, "augmentation": {"rotation_deg": 12.0}},
    "data": {
        "fit": {"n": 47000, "sha256": "f" * 64},
        "test_sha256": "a" * 64,
        "split_seed": 20260101,
    },
    "versions": {"torch": "9.8.7"},
    "output": "/home/somebody/secret/digits.safetensors",
}


@dataclass(frozen=True)
class RandomDigits:
    """A data source of a few random images."""

    name: str = "random"
    n_validation: int = 12
    n_calibration: int = 14

    def train(self) -> Part:
        return random_part(60, seed=1)

    def test(self) -> Part:
        return random_part(20, seed=2)


def random_part(n: int, seed: int) -> Part:
    rng = np.random.default_rng(seed)
    images = np.zeros((n, 28, 28), np.uint8)
    images[:, 6:22, 8:20] = rng.integers(0, 256, (n, 16, 12))
    return Part(images, rng.integers(0, 10, n))


def random_predictions(
    name: str, n: int = 40, *, digits: bool = True, not_a_digit: bool = False
) -> Predictions:
    """Predictions of 20 draws: the first two are wrong, and preprocessing flags the last."""
    rng = np.random.default_rng(n)
    labels = np.arange(n) % 10
    logits = rng.normal(0, 1, (n, 10))
    logits[np.arange(n), labels] += 6
    logits[[0, 1], [7, 8]] += 9
    pixels = rng.integers(0, 256, (n, 28, 28)).astype(np.uint8)
    rng = np.random.default_rng(1)
    draws = np.exp(logits + rng.normal(0, 0.5, (20, n, 10)))
    draws /= draws.sum(axis=2, keepdims=True)
    outlier = rng.uniform(0, 1, draws.shape[:2]) if not_a_digit else None
    return Predictions(
        name=name,
        pixels=pixels,
        labels=labels if digits else None,
        summary=summarise(draws, 0.95, outlier),
        flagged=np.arange(n) == n - 1,
    )


def random_evaluation(**changes: object) -> Evaluation:
    """An evaluation with `METRICS`, and with these attributes changed."""
    evaluation = Evaluation(
        checkpoint=replace(tiny_checkpoint(), training=TRAINING),
        version="0123456789ab",
        n_draws=20,
        parts={name: random_predictions(name) for name in ("test", "imitated")},
        ood={"clothes": random_predictions("clothes", 20, digits=False)},
        metrics=METRICS,
    )
    return replace(evaluation, **changes)  # type: ignore[arg-type]

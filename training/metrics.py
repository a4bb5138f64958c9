"""How good the probabilities are, on arrays: predictive (N, C) and true classes (N,)."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.decision import ConformalRule, SelectiveRule
from model.uncertainty import Floats, PredictiveSummary

__all__ = [
    "area_under_risk_coverage",
    "brier_score",
    "calibration_error",
    "error_rate",
    "measure",
    "nll",
]

Labels = NDArray[np.int64]
_LEAST_PROBABILITY = np.finfo(np.float64).tiny


def error_rate(probability: Floats, labels: Labels) -> float:
    """Share of pictures whose most probable class is wrong, in [0, 1]."""
    return float(np.mean(probability.argmax(axis=1) != labels))


def nll(probability: Floats, labels: Labels) -> float:
    """Mean negative log-likelihood -ln p(true class), in nats, at least 0."""
    true = probability[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(true, _LEAST_PROBABILITY)).mean())


def brier_score(probability: Floats, labels: Labels) -> float:
    """Mean squared distance Σ_c (p_c - [c is true])², in [0, 2].

    Source: Brier (1950), "Verification of forecasts expressed in terms of probability".
    """
    truth = np.eye(probability.shape[1])[labels]
    return float(np.square(probability - truth).sum(axis=1).mean())


def calibration_error(probability: Floats, labels: Labels, n_bins: int = 15) -> float:
    """Expected calibration error of the top class over equally wide bins, in [0, 1].

    Source: Guo et al. (2017), "On Calibration of Modern Neural Networks", equation 3.
    """
    # torchmetrics takes two seconds to import, which a fit need not wait for.
    from torchmetrics.functional.classification import (  # noqa: PLC0415
        multiclass_calibration_error,
    )

    value = multiclass_calibration_error(
        torch.from_numpy(probability.astype(np.float64)),
        torch.from_numpy(labels),
        num_classes=probability.shape[1],
        n_bins=n_bins,
        norm="l1",
    )
    return float(value)


def area_under_risk_coverage(score: Floats, correct: NDArray[np.bool_]) -> float:
    """Mean error rate among the k most certain pictures, over all k: 0 is best.

    Args:
        score: Uncertainty of each picture (N,); larger is less certain.
        correct: Whether each was right (N,).

    Source: Geifman, Uziel and El-Yaniv (2019), "Bias-Reduced Uncertainty Estimation for Deep
    Neural Classifiers".
    """
    wrong = ~correct[np.argsort(score, kind="stable")]
    risk = np.cumsum(wrong) / np.arange(1, len(wrong) + 1)
    return float(risk.mean())


def measure(
    summary: PredictiveSummary,
    labels: Labels,
    selective: SelectiveRule,
    conformal: ConformalRule,
    flagged: NDArray[np.bool_],
) -> dict[str, Any]:
    """All held-out figures of one part of the data, as plain numbers with their n.

    Args:
        summary: The answers.
        labels: The true classes (N,).
        selective: When to accept.
        conformal: Which labels to keep.
        flagged: Which pictures the digit door sends to a person anyway (N,).
    """
    probability = summary.probability
    correct = probability.argmax(axis=1) == labels
    accepted = selective.accepts(summary) & ~flagged
    sets = conformal.prediction_sets(probability)
    return {
        "n": len(labels),
        "error": error_rate(probability, labels),
        "nll": nll(probability, labels),
        "brier_score": brier_score(probability, labels),
        "calibration_error": calibration_error(probability, labels),
        "predictive_entropy": float(summary.predictive_entropy.mean()),
        "mutual_information": float(summary.mutual_information.mean()),
        "accepted": float(accepted.mean()),
        "errors_accepted": int((accepted & ~correct).sum()),
        "set_coverage": float(sets[np.arange(len(labels)), labels].mean()),
        "set_size": float(sets.sum(axis=1).mean()),
    }

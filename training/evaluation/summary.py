"""Summary metrics of the predictions for one set of images."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.decision import ConformalRule, SelectiveRule, uncertainty_score
from model.types import SCORES, Floats, Score
from training.evaluation.metrics import (
    adaptive_calibration_error,
    area_under_risk_coverage,
    auroc,
    bootstrap_intervals,
    brier_score,
    calibration_error,
    error_rate,
    errors_at_coverage,
    false_positive_rate,
    nll,
)
from training.evaluation.predictions import Predictions

COVERAGES = (0.9, 0.95, 0.99)
"""Shares of the most certain images whose errors are counted."""


@dataclass(frozen=True)
class CoverageErrors:
    """Number of the most certain images, and of errors among them."""

    n: int
    errors: int


@dataclass(frozen=True)
class PartMetrics:
    """Metrics of digits with known classes.

    Attributes:
        n: Number of images.
        error: Error rate, in [0, 1].
        nll: Mean negative log-likelihood, in nats.
        brier_score: Brier score, in [0, 2].
        calibration_error: Expected calibration error, in [0, 1].
        adaptive_calibration_error: The same over bins of equally many images.
        predictive_entropy: Mean, in nats.
        mutual_information: Mean, in nats.
        not_a_digit: Mean probability; 0 if the network has no output for it.
        flagged: Share that preprocessing sends to review.
        accepted: Share that is accepted.
        errors_accepted: Number of errors among the accepted.
        aurc: Area under the risk-coverage curve.
        errors_at_coverage: Errors among the most certain images, by their share.
        set_coverage: Share of prediction sets that hold the true class.
        set_size: Mean number of classes in a prediction set.
        set_larger_than_one: Share of prediction sets of several classes.
        intervals: 95 % bootstrap intervals by metric; None if they were not computed.
    """

    n: int
    error: float
    nll: float
    brier_score: float
    calibration_error: float
    adaptive_calibration_error: float
    predictive_entropy: float
    mutual_information: float
    not_a_digit: float
    flagged: float
    accepted: float
    errors_accepted: int
    aurc: float
    errors_at_coverage: Mapping[str, CoverageErrors]
    set_coverage: float
    set_size: float
    set_larger_than_one: float
    intervals: Mapping[str, tuple[float, float]] | None = None


@dataclass(frozen=True)
class SetMetrics:
    """Metrics of the prediction sets of one class.

    Attributes:
        n: Number of images.
        coverage: Share of sets that hold the true class.
        size: Mean number of classes in a set.
        larger_than_one: Share of sets of several classes.
    """

    n: int
    coverage: float
    size: float
    larger_than_one: float


@dataclass(frozen=True)
class OodMetrics:
    """Metrics of out-of-distribution images, compared with digits.

    Attributes:
        n: Number of images.
        flagged: Share that preprocessing sends to review.
        accepted: Share that is accepted, each of them an error.
        accepted_where_97_of_digits_are: The same at the threshold that accepts 97 % of the digits.
        unlike_training: Share of the rejected with the reason `unlike_training`.
        predictive_entropy: Mean, in nats.
        mutual_information: Mean, in nats.
        mutual_information_ratio: Mean mutual information divided by that of the digits.
        not_a_digit: Mean probability; 0 if the network has no output for it.
        auroc: Area under the ROC curve against the digits, by score.
        fpr_at_95_tpr: False positive rate where 95 % of the digits pass, by score.
    """

    n: int
    flagged: float
    accepted: float
    accepted_where_97_of_digits_are: float
    unlike_training: float
    predictive_entropy: float
    mutual_information: float
    mutual_information_ratio: float
    not_a_digit: float
    auroc: Mapping[Score, float]
    fpr_at_95_tpr: Mapping[Score, float]


def accepted(predictions: Predictions, rule: SelectiveRule) -> NDArray[np.bool_]:
    """Which images the rule accepts and preprocessing does not flag (N,)."""
    result: NDArray[np.bool_] = rule.accepts(predictions.summary) & ~predictions.flagged
    return result


def ranking_score(predictions: Predictions, rule: SelectiveRule) -> Floats:
    """The rule's uncertainty score, infinite for flagged images (N,)."""
    result: Floats = np.where(
        predictions.flagged, np.inf, uncertainty_score(predictions.summary, rule.score)
    )
    return result


def part_metrics(
    predictions: Predictions,
    selective: SelectiveRule,
    conformal: ConformalRule,
    *,
    bootstrap: bool = True,
) -> PartMetrics:
    """Metrics of digits with known classes.

    Args:
        predictions: The predictions, with labels.
        selective: Decides which are accepted.
        conformal: Makes the prediction sets.
        bootstrap: Whether to compute bootstrap intervals.

    Raises:
        ValueError: If the predictions have no labels.
    """
    summary, labels, correct = predictions.summary, predictions.true_labels, predictions.correct
    probability = summary.probability
    score = ranking_score(predictions, selective)
    taken = accepted(predictions, selective)
    sets = conformal.prediction_sets(probability)
    return PartMetrics(
        n=len(labels),
        error=error_rate(probability, labels),
        nll=nll(probability, labels),
        brier_score=brier_score(probability, labels),
        calibration_error=calibration_error(probability, labels),
        adaptive_calibration_error=adaptive_calibration_error(probability, labels),
        predictive_entropy=float(summary.predictive_entropy.mean()),
        mutual_information=float(summary.mutual_information.mean()),
        not_a_digit=float(summary.not_a_digit.mean()),
        flagged=float(predictions.flagged.mean()),
        accepted=float(taken.mean()),
        errors_accepted=int((taken & ~correct).sum()),
        aurc=area_under_risk_coverage(score, correct),
        errors_at_coverage={
            f"{coverage:.2f}": CoverageErrors(*errors_at_coverage(score, correct, coverage))
            for coverage in COVERAGES
        },
        set_coverage=float(sets[np.arange(len(labels)), labels].mean()),
        set_size=float(sets.sum(axis=1).mean()),
        set_larger_than_one=float((sets.sum(axis=1) > 1).mean()),
        intervals=bootstrap_intervals(probability, labels) if bootstrap else None,
    )


def set_metrics_by_class(
    predictions: Predictions, conformal: ConformalRule, labels: tuple[str, ...]
) -> dict[str, SetMetrics]:
    """Metrics of the prediction sets, by the name of the true class.

    Raises:
        ValueError: If the predictions have no labels.
    """
    sets = conformal.prediction_sets(predictions.summary.probability)
    result = {}
    for index, name in enumerate(labels):
        own = sets[predictions.true_labels == index]
        if len(own):
            result[name] = SetMetrics(
                n=len(own),
                coverage=float(own[:, index].mean()),
                size=float(own.sum(axis=1).mean()),
                larger_than_one=float((own.sum(axis=1) > 1).mean()),
            )
    return result


def ood_metrics(
    predictions: Predictions, inside: Predictions, selective: SelectiveRule
) -> OodMetrics:
    """Metrics of out-of-distribution images.

    Args:
        predictions: The predictions for these images.
        inside: The predictions for digits that the network was not fitted to.
        selective: Decides which are accepted. AUROC and FPR are those of the scores alone, without
            what preprocessing flags.
    """
    summary = predictions.summary
    taken = accepted(predictions, selective)
    # A fixed share of the digits compares networks whose own thresholds accept more or fewer.
    at_97 = replace(
        selective,
        threshold=float(np.quantile(ranking_score(inside, selective), 0.97, method="inverted_cdf")),
    )
    reasons = selective.reasons(summary)
    rejected = np.flatnonzero(~taken)
    unlike = sum("unlike_training" in reasons[i] for i in rejected)
    scores = {
        score: (uncertainty_score(inside.summary, score), uncertainty_score(summary, score))
        for score in SCORES
    }
    mutual_information = float(summary.mutual_information.mean())
    return OodMetrics(
        n=len(predictions),
        flagged=float(predictions.flagged.mean()),
        accepted=float(taken.mean()),
        accepted_where_97_of_digits_are=float(accepted(predictions, at_97).mean()),
        unlike_training=unlike / len(rejected) if len(rejected) else 0.0,
        predictive_entropy=float(summary.predictive_entropy.mean()),
        mutual_information=mutual_information,
        mutual_information_ratio=mutual_information
        / max(float(inside.summary.mutual_information.mean()), 1e-12),
        not_a_digit=float(summary.not_a_digit.mean()),
        auroc={score: auroc(*pair) for score, pair in scores.items()},
        fpr_at_95_tpr={score: false_positive_rate(*pair) for score, pair in scores.items()},
    )

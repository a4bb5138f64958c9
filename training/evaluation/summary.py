"""What is said in numbers about the answers for a set of pictures, as plain JSON values."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.decision import SCORES, ConformalRule, SelectiveRule, uncertainty_score
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
from training.evaluation.predictions import Answers

__all__ = ["COVERAGES", "accepted", "digit_figures", "foreign_figures", "ranking", "set_figures"]

COVERAGES = (0.9, 0.95, 0.99)
"""Shares of the most certain pictures whose errors are counted."""


def accepted(answers: Answers, rule: SelectiveRule) -> NDArray[np.bool_]:
    """Which pictures are accepted (N,): by the rule, and by the digit door."""
    result: NDArray[np.bool_] = rule.accepts(answers.summary) & ~answers.flagged
    return result


def digit_figures(
    answers: Answers, selective: SelectiveRule, conformal: ConformalRule, *, bootstrap: bool = True
) -> dict[str, Any]:
    """Figures of pictures whose classes are known, with their n.

    Args:
        answers: The answers, with labels.
        selective: When to accept.
        conformal: Which labels to keep.
        bootstrap: Whether to add how much the figures would vary with other pictures.

    Raises:
        ValueError: If the answers have no labels.
    """
    if answers.labels is None:
        raise ValueError(f"{answers.name}: the true classes are needed")
    summary, labels, correct = answers.summary, answers.labels, answers.correct
    probability = summary.probability
    score = ranking(answers, selective)
    taken = accepted(answers, selective)
    sets = conformal.prediction_sets(probability)
    figures: dict[str, Any] = {
        "n": len(labels),
        "error": error_rate(probability, labels),
        "nll": nll(probability, labels),
        "brier_score": brier_score(probability, labels),
        "calibration_error": calibration_error(probability, labels),
        "adaptive_calibration_error": adaptive_calibration_error(probability, labels),
        "predictive_entropy": float(summary.predictive_entropy.mean()),
        "mutual_information": float(summary.mutual_information.mean()),
        "not_a_digit": float(summary.not_a_digit.mean()),
        "flagged": float(answers.flagged.mean()),
        "accepted": float(taken.mean()),
        "errors_accepted": int((taken & ~correct).sum()),
        "aurc": area_under_risk_coverage(score, correct),
        "errors_at_coverage": {
            f"{coverage:.2f}": dict(
                zip(("n", "errors"), errors_at_coverage(score, correct, coverage), strict=True)
            )
            for coverage in COVERAGES
        },
        "set_coverage": float(sets[np.arange(len(labels)), labels].mean()),
        "set_size": float(sets.sum(axis=1).mean()),
        "set_larger_than_one": float((sets.sum(axis=1) > 1).mean()),
    }
    if bootstrap:
        drawn = bootstrap_intervals(probability, labels)
        figures["intervals"] = {name: list(ends) for name, ends in drawn.items()}
    return figures


def ranking(answers: Answers, rule: SelectiveRule) -> NDArray[np.float64]:
    """The rule's score, with what the digit door flags behind everything else (N,)."""
    result: NDArray[np.float64] = np.where(
        answers.flagged, np.inf, uncertainty_score(answers.summary, rule.score)
    )
    return result


def set_figures(
    answers: Answers, conformal: ConformalRule, labels: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """For each class by name: how its prediction sets do.

    Raises:
        ValueError: If the answers have no labels.
    """
    if answers.labels is None:
        raise ValueError(f"{answers.name}: the true classes are needed")
    sets = conformal.prediction_sets(answers.summary.probability)
    result = {}
    for index, name in enumerate(labels):
        mine = sets[answers.labels == index]
        if len(mine):
            result[name] = {
                "n": len(mine),
                "coverage": float(mine[:, index].mean()),
                "size": float(mine.sum(axis=1).mean()),
                "larger_than_one": float((mine.sum(axis=1) > 1).mean()),
            }
    return result


def _accepting(digits: Answers, selective: SelectiveRule, share: float) -> SelectiveRule:
    """The rule with the threshold that accepts this share of these digits.

    A share can be compared between networks whose own thresholds accept more or fewer.
    """
    scores = uncertainty_score(digits.summary, selective.score)
    kept = np.where(digits.flagged, np.inf, scores)
    return replace(selective, threshold=float(np.quantile(kept, share, method="inverted_cdf")))


def foreign_figures(answers: Answers, inside: Answers, selective: SelectiveRule) -> dict[str, Any]:
    """Figures of pictures that are no digits, against pictures that are.

    Args:
        answers: The answers for what is no digit.
        inside: Those for digits that the network was not fitted to.
        selective: When to accept. Its own score alone, without what the digit door flags, is
            what AUROC and FPR are about.
    """
    taken = accepted(answers, selective)
    strict = _accepting(inside, selective, 0.97)
    reasons = selective.reasons(answers.summary)
    rejected = np.flatnonzero(~taken)
    unlike = sum("unlike_training" in reasons[i] for i in rejected)
    scores = {
        score: (
            uncertainty_score(inside.summary, score),
            uncertainty_score(answers.summary, score),
        )
        for score in SCORES
    }
    return {
        "n": len(answers),
        "flagged": float(answers.flagged.mean()),
        "accepted": float(taken.mean()),
        "accepted_where_97_of_digits_are": float(accepted(answers, strict).mean()),
        "unlike_training": float(unlike / len(rejected)) if len(rejected) else 0.0,
        "predictive_entropy": float(answers.summary.predictive_entropy.mean()),
        "mutual_information": float(answers.summary.mutual_information.mean()),
        "mutual_information_ratio": float(
            answers.summary.mutual_information.mean()
            / max(float(inside.summary.mutual_information.mean()), 1e-12)
        ),
        "not_a_digit": float(answers.summary.not_a_digit.mean()),
        "auroc": {score: auroc(*pair) for score, pair in scores.items()},
        "fpr_at_95_tpr": {score: false_positive_rate(*pair) for score, pair in scores.items()},
    }

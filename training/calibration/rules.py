"""Calibration of the decision rules.

The score is chosen on the validation part, the thresholds on the calibration part.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model.decision import ConformalRule, SelectiveRule, uncertainty_score
from training.calibration.thresholds import (
    acceptance_grid,
    choose_score,
    conformal_threshold,
    selective_threshold,
)
from training.evaluation.predictions import BatchPredictor, Predictions
from training.evaluation.summary import ranking_score
from training.synthesis.outliers import outlier_inputs

_OUTLIERS_PER_DIGIT = 0.15  # drawn; about a tenth remain
_OUTLIER_SEED = 20260103


def predict_outliers(
    predict: BatchPredictor,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    processes: int = 1,
) -> Predictions:
    """Predictions for synthetic outliers made from the validation part, to choose the score by.

    Args:
        predict: Predicts with the network's draws.
        pixels: The preprocessed validation part (N, 28, 28).
        labels: Its classes (N,).
        processes: How many worker processes to use.
    """
    inputs = outlier_inputs(
        pixels,
        labels,
        round(len(labels) * _OUTLIERS_PER_DIGIT),
        seed=_OUTLIER_SEED,
        processes=processes,
        name="validation",
    )
    return predict(inputs, None, "outliers")


def make_rules(
    validation: Predictions,
    outliers: Predictions | None,
    calibration: Predictions,
    *,
    target: float,
    confidence: float,
    coverage: float,
    n_draws: int,
    population: str,
) -> tuple[SelectiveRule, ConformalRule]:
    """Choose the score on the validation part and the thresholds on the calibration part.

    Flagged images of the calibration part are never accepted, so they count in no risk.

    Args:
        validation: Predictions for the validation part.
        outliers: Predictions for synthetic outliers; None without a not-a-digit output.
        calibration: Predictions for the calibration part.
        target: Largest error rate among the accepted.
        confidence: Probability with which that holds.
        coverage: Share of images whose prediction set holds the true class.
        n_draws: Number of posterior draws of all predictions.
        population: What the calibration images are.
    """
    score = choose_score(validation, outliers)
    selective = SelectiveRule(
        score=score,
        threshold=-1.0,
        target=target,
        confidence=confidence,
        n_calibration=len(calibration),
        n_draws=n_draws,
        population=population,
    )
    threshold = selective_threshold(
        ranking_score(calibration, selective),
        calibration.correct,
        acceptance_grid(uncertainty_score(validation.summary, score)),
        target=target,
        confidence=confidence,
    )
    conformal = ConformalRule(
        coverage,
        conformal_threshold(calibration.summary.probability, calibration.true_labels, coverage),
        len(calibration),
    )
    return replace(selective, threshold=threshold), conformal

"""Calibration of the decision rules.

The score is chosen on the validation part, the thresholds on the calibration part.
"""

from dataclasses import replace

from model.decision import ConformalRule, SelectiveRule, uncertainty_score
from training.calibration.thresholds import (
    acceptance_grid,
    choose_score,
    conformal_threshold,
    selective_threshold,
)
from training.config import RunConfig
from training.evaluation.predictions import BatchPredictor, Predictions
from training.evaluation.summary import ranking_score
from training.synthesis.outliers import outlier_inputs

_OUTLIERS_PER_DIGIT = 0.15  # drawn; about a tenth remain
_OUTLIER_SEED = 20260103


def make_rules(
    predict: BatchPredictor, validation: Predictions, calibration: Predictions, config: RunConfig
) -> tuple[SelectiveRule, ConformalRule]:
    """Choose the score on the validation part and the thresholds on the calibration part.

    With a not-a-digit output, the score is also chosen by synthetic outliers made from the
    validation part. Flagged images of the calibration part are never accepted, so they count in no
    risk.

    Args:
        predict: Predicts with the network's draws.
        validation: Its predictions for the validation part.
        calibration: Its predictions for the calibration part.
        config: Settings of the run, with the guarantees of the rules.
    """
    rules = config.rules
    outliers = _predict_outliers(predict, validation, config) if config.model.not_a_digit else None
    score = choose_score(validation, outliers)
    selective = SelectiveRule(
        score=score,
        threshold=-1.0,
        target=rules.target,
        confidence=rules.confidence,
        n_calibration=len(calibration),
        n_draws=predict.n_draws,
        population=config.population,
    )
    threshold = selective_threshold(
        ranking_score(calibration, selective),
        calibration.correct,
        acceptance_grid(uncertainty_score(validation.summary, score)),
        target=rules.target,
        confidence=rules.confidence,
    )
    quantile = conformal_threshold(
        calibration.summary.probability, calibration.true_labels, rules.coverage
    )
    conformal = ConformalRule(rules.coverage, quantile, len(calibration))
    return replace(selective, threshold=threshold), conformal


def _predict_outliers(
    predict: BatchPredictor, validation: Predictions, config: RunConfig
) -> Predictions:
    n = round(len(validation) * _OUTLIERS_PER_DIGIT)
    inputs = outlier_inputs(
        validation.pixels,
        validation.true_labels,
        n,
        seed=_OUTLIER_SEED,
        processes=config.threads,
        name="validation",
    )
    return predict(inputs, None, "outliers")

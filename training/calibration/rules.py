"""The rules of a fitted network: its score by the validation part, thresholds by calibration."""

import numpy as np
from numpy.typing import NDArray

from model.decision import ConformalRule, SelectiveRule, uncertainty_score
from training.calibration.thresholds import (
    acceptance_grid,
    choose_score,
    conformal_threshold,
    selective_threshold,
)
from training.config import RunConfig
from training.evaluation.evaluate import BatchPredictor
from training.evaluation.predictions import Answers
from training.synthesis.outliers import nondigit_inputs

__all__ = ["answer_non_digits", "make_rules"]

_OTHERS_PER_DIGIT = 0.15  # drawn to choose the score by; about a tenth remain
_OTHERS_SEED = 20260103


def answer_non_digits(
    ask: BatchPredictor, pixels: NDArray[np.uint8], labels: NDArray[np.int64], config: RunConfig
) -> Answers | None:
    """Answers for pictures that are no digits, made of the validation part, to choose by.

    Args:
        ask: The networks.
        pixels: The validation part through the digit door (N, 28, 28).
        labels: Its classes (N,).
        config: The run; without an outcome for what is no digit there is nothing to choose.
    """
    if not config.model.not_a_digit:
        return None
    drawn = nondigit_inputs(
        pixels,
        labels,
        round(len(labels) * _OTHERS_PER_DIGIT),
        seed=_OTHERS_SEED,
        processes=config.threads,
        name="validation",
    )
    return ask(drawn.inputs, None, "what is no digit")


def make_rules(
    on_validation: Answers,
    others: Answers | None,
    on_calibration: Answers,
    labels: NDArray[np.int64],
    config: RunConfig,
) -> tuple[SelectiveRule, ConformalRule]:
    """The score from the validation part, the thresholds from the calibration part.

    What the door has flagged of the calibration part is never accepted, so it counts in no risk.

    Args:
        on_validation: Answers for the validation part.
        others: Answers for what is no digit, to choose the score by; None if there are none.
        on_calibration: Answers for the calibration part.
        labels: The classes of the calibration part (N,).
        config: What the rules shall promise, and with how many draws.
    """
    score = choose_score(on_validation, others)
    threshold = selective_threshold(
        np.where(on_calibration.flagged, np.inf, uncertainty_score(on_calibration.summary, score)),
        on_calibration.correct,
        acceptance_grid(uncertainty_score(on_validation.summary, score)),
        target=config.rules.target,
        confidence=config.rules.confidence,
    )
    selective = SelectiveRule(
        score=score,
        threshold=threshold,
        target=config.rules.target,
        confidence=config.rules.confidence,
        n_calibration=len(labels),
        n_draws=config.n_draws,
        population=config.population,
    )
    coverage = config.rules.coverage
    threshold = conformal_threshold(on_calibration.summary.probability, labels, coverage)
    return selective, ConformalRule(coverage, threshold, len(labels))

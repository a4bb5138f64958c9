"""Thresholds of the selective and the conformal rule, and the choice of the score.

The score is chosen on the validation part; thresholds come from the calibration part alone.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from model.decision import uncertainty_score
from model.types import SCORES, Floats, Score
from training.evaluation.metrics import area_under_risk_coverage
from training.evaluation.predictions import Predictions

Labels = NDArray[np.int64]

_FIRST_SHARE = 0.8
_N_CANDIDATES = 81


def choose_score(digits: Predictions, outliers: Predictions | None = None) -> Score:
    """The score with the smallest area under the risk-coverage curve.

    Args:
        digits: Predictions for the validation part.
        outliers: Predictions for synthetic outliers (`training.synthesis.outliers`); accepting one
            counts as an error.
    """
    wrong = [~digits.correct]
    if outliers is not None:
        wrong.append(np.ones(len(outliers), np.bool_))

    def area(score: Score) -> float:
        scores = [uncertainty_score(digits.summary, score)]
        if outliers is not None:
            scores.append(uncertainty_score(outliers.summary, score))
        return area_under_risk_coverage(np.concatenate(scores), ~np.concatenate(wrong))

    return min(SCORES, key=area)


def acceptance_grid(scores: Floats) -> Floats:
    """Candidate thresholds in increasing order, which accept 80 % to 100 % of these images.

    Args:
        scores: Uncertainties of the validation part (N,). The grid must not come from the
            calibration part: the order of the tests is fixed before that part is seen.
    """
    shares = np.linspace(_FIRST_SHARE, 1.0, _N_CANDIDATES)
    result: Floats = np.unique(np.quantile(scores, shares))
    return result


def selective_threshold(
    scores: Floats, correct: NDArray[np.bool_], grid: Floats, *, target: float, confidence: float
) -> float:
    r"""The largest threshold whose risk is certified, by fixed-sequence testing.

    Each candidate is tested at level δ = 1 - confidence, the strictest first. The hypothesis "more
    than `target` of the accepted are wrong" is rejected if so few errors are improbable:

    .. math:: P(\mathrm{Binomial}(n_{accepted}, target) \le errors) \le \delta.

    The first candidate that fails ends the search. The order is fixed beforehand, so the
    probability of certifying a threshold whose risk exceeds the target is at most δ, without a
    union bound.

    Args:
        scores: Uncertainties of the calibration part (N,).
        correct: Whether each prediction is correct (N,).
        grid: Candidates in increasing order, from `acceptance_grid`.
        target: Largest error rate among the accepted.
        confidence: 1 - δ.

    Raises:
        ValueError: If `target` or `confidence` is not between 0 and 1.

    Returns:
        The threshold; -1, which accepts nothing, if no candidate is certified.

    Source: Angelopoulos, Bates, Candès, Jordan and Lei (2021), "Learn then Test: Calibrating
    Predictive Algorithms to Achieve Risk Control", on fixed-sequence testing;
    exact binomial bounds after Clopper and Pearson (1934).
    """
    _check_share(target=target, confidence=confidence)
    order = np.argsort(scores)
    n_accepted = np.searchsorted(scores[order], grid, side="right")
    n_errors = np.concatenate([[0], np.cumsum(~correct[order])])[n_accepted]
    certified = binom.cdf(n_errors, n_accepted, target) <= 1 - confidence
    n_certified = len(grid) if certified.all() else int(certified.argmin())
    return float(grid[n_certified - 1]) if n_certified else -1.0


def conformal_threshold(probability: Floats, labels: Labels, coverage: float) -> float:
    """The threshold of split conformal prediction with the score 1 - p(true class).

    It is the ⌈(n + 1) · coverage⌉-th smallest score, or 1, which keeps every label, if n is too
    small.

    Args:
        probability: Predictive probabilities of the calibration part (N, C).
        labels: Its true classes (N,).
        coverage: Share of future images whose set holds the true class.

    Raises:
        ValueError: If `coverage` is not between 0 and 1.

    Source: Angelopoulos and Bates (2021), "A Gentle Introduction to Conformal Prediction",
    section 1.
    """
    _check_share(coverage=coverage)
    scores = np.sort(1 - probability[np.arange(len(labels)), labels])
    # Slightly less, so that 9.000000000000002 (0.9 · 10) is not rounded up to 10.
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return float(scores[rank - 1]) if rank <= len(scores) else 1.0


def _check_share(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 < share < 1:
            raise ValueError(f"{name} must be between 0 and 1, not {share}")

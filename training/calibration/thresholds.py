"""From held-out answers to rules: which score decides, where its threshold lies, which labels stay.

The score is chosen on the validation part; thresholds come from the calibration part alone.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from model.decision import SCORES, Score, uncertainty_score
from model.uncertainty import Floats
from training.evaluation.metrics import area_under_risk_coverage
from training.evaluation.predictions import Answers

__all__ = ["acceptance_grid", "choose_score", "conformal_threshold", "selective_threshold"]

Labels = NDArray[np.int64]

_FIRST_SHARE = 0.8
_N_CANDIDATES = 81


def choose_score(digits: Answers, others: Answers | None = None) -> Score:
    """The score that ranks what must not be accepted last: smallest area under risk–coverage.

    Args:
        digits: Answers for the validation part.
        others: Answers for pictures that are no digits, drawn for this (`training.synthesis.outliers`);
            accepting one of them counts as an error.
    """
    wrong = [~digits.correct]
    if others is not None:
        wrong.append(np.ones(len(others), np.bool_))

    def area(score: Score) -> float:
        scores = [uncertainty_score(digits.summary, score)]
        if others is not None:
            scores.append(uncertainty_score(others.summary, score))
        return area_under_risk_coverage(np.concatenate(scores), ~np.concatenate(wrong))

    return min(SCORES, key=area)


def acceptance_grid(scores: Floats) -> Floats:
    """Candidate thresholds, strictest first: those that accept 80 % to 100 % of these pictures.

    Args:
        scores: Uncertainties of the validation part (N,). The grid must not come from the
            calibration part: the order of the tests has to be fixed before it is seen.
    """
    shares = np.linspace(_FIRST_SHARE, 1.0, _N_CANDIDATES)
    result: Floats = np.unique(np.quantile(scores, shares))
    return result


def selective_threshold(
    scores: Floats,
    correct: NDArray[np.bool_],
    grid: Floats,
    *,
    target: float,
    confidence: float,
) -> float:
    r"""The largest threshold whose risk is certified, by fixed-sequence testing.

    Candidates are tested from the strictest on, each at level δ = 1 - confidence: the hypothesis
    "more than `target` of the accepted are wrong" is rejected if the chance of so few errors

    .. math:: P(\mathrm{Binomial}(n_{accepted}, target) \le errors) \le \delta.

    The first candidate that fails ends the search. Since the order is fixed beforehand, the chance
    of certifying any threshold whose risk exceeds the target is at most δ, without a union bound.

    Args:
        scores: Uncertainties of the calibration part (N,).
        correct: Whether each answer was right (N,).
        grid: Candidates in increasing order, from `acceptance_grid`.
        target: Largest share of errors among the accepted.
        confidence: 1 - δ.

    Raises:
        ValueError: If `target` or `confidence` is no share between 0 and 1.

    Returns:
        The threshold; -1, which accepts nothing, if not even the strictest can be certified.

    Source: Angelopoulos, Bates, Candès, Jordan and Lei (2021), "Learn then Test: Calibrating
    Predictive Algorithms to Achieve Risk Control", on fixed-sequence testing;
    exact binomial bounds after Clopper and Pearson (1934).
    """
    _check_share(target=target, confidence=confidence)
    threshold = -1.0
    for candidate in grid:
        accepted = scores <= candidate
        errors = int((accepted & ~correct).sum())
        if not binom.cdf(errors, int(accepted.sum()), target) <= 1 - confidence:
            break
        threshold = float(candidate)
    return threshold


def conformal_threshold(probability: Floats, labels: Labels, coverage: float) -> float:
    """The threshold of split conformal prediction with the score 1 - p(true class).

    It is the ⌈(n + 1) · coverage⌉-th smallest score, or 1 (every label stays) if n is too small.

    Args:
        probability: Predictive probabilities of the calibration part (N, C).
        labels: Its true classes (N,).
        coverage: Share of future pictures whose set shall hold the true class.

    Raises:
        ValueError: If `coverage` is no share between 0 and 1.

    Source: Angelopoulos and Bates (2021), "A Gentle Introduction to Conformal Prediction",
    section 1.
    """
    _check_share(coverage=coverage)
    scores = np.sort(1 - probability[np.arange(len(labels)), labels])
    # A hair below, so that 0.9 · 10 is not taken for 9.000000000000002 and rounded up to 10.
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return float(scores[rank - 1]) if rank <= len(scores) else 1.0


def _check_share(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 < share < 1:
            raise ValueError(f"{name} must be between 0 and 1, not {share}")

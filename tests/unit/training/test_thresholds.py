"""Calibrated rules hold their guarantees, by simulation."""

import numpy as np
import pytest
from crepes import ConformalClassifier
from scipy.stats import binom

from model import ConformalRule, summarise
from training.calibration.thresholds import (
    acceptance_grid,
    choose_score,
    conformal_threshold,
    selective_threshold,
)
from training.evaluation.predictions import Predictions


def test_the_conformal_threshold_by_hand() -> None:
    p_true = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    probability = np.stack([p_true, 1 - p_true], axis=1)
    labels = np.zeros(9, np.int64)
    # ⌈10 · 0.9⌉ = 9th smallest of nine scores, ⌈10 · 0.5⌉ = 5th.
    assert conformal_threshold(probability, labels, 0.9) == pytest.approx(0.9)
    assert conformal_threshold(probability, labels, 0.5) == pytest.approx(0.5)
    assert conformal_threshold(probability, labels, 0.95) == 1.0


def test_conformal_sets_cover_as_often_as_promised() -> None:
    """1,000 calibrations of 200: mean coverage of the next picture within 4 standard errors."""
    rng = np.random.default_rng(0)
    n, coverage, covered = 200, 0.9, []
    for _ in range(1000):
        p_true = rng.beta(5, 1, n + 1)
        probability = np.stack([p_true, 1 - p_true], axis=1)
        threshold = conformal_threshold(probability[:n], np.zeros(n, np.int64), coverage)
        covered.append(1 - p_true[n] <= threshold)
    standard_error = np.sqrt(coverage * (1 - coverage) / len(covered))
    assert np.mean(covered) > coverage - 4 * standard_error
    assert np.mean(covered) < coverage + 1 / (n + 1) + 4 * standard_error


def scores_and_outcomes(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Uncertainty uniform in [0, 1]; an answer with score u is wrong with probability u⁴ / 5."""
    scores = rng.random(n)
    return scores, rng.random(n) > scores**4 / 5


def test_the_accepted_risk_exceeds_its_target_no_more_often_than_promised() -> None:
    """The true risk of threshold t is t⁴ / 25; 400 calibrations, target 3 %, confidence 90 %."""
    rng = np.random.default_rng(0)
    target, confidence, broken, thresholds = 0.03, 0.9, [], []
    grid = acceptance_grid(rng.random(2000))
    for _ in range(400):
        scores, correct = scores_and_outcomes(rng, 4000)
        threshold = selective_threshold(scores, correct, grid, target=target, confidence=confidence)
        broken.append(threshold > 0 and threshold**4 / 25 > target)
        thresholds.append(threshold)
    allowed = 1 - confidence
    assert np.mean(broken) <= allowed + 3 * np.sqrt(allowed * confidence / len(broken))
    # It is not kept by accepting nothing: the target itself lies at 0.931.
    assert np.mean(thresholds) > 0.85


def test_the_certificate_is_the_exact_binomial_one() -> None:
    scores = np.arange(1000) / 1000
    correct = np.ones(1000, bool)
    correct[950:] = False
    grid = np.linspace(0.5, 1, 51)
    threshold = selective_threshold(scores, correct, grid, target=0.02, confidence=0.95)
    certified = []
    for candidate in grid:
        n = int((scores <= candidate).sum())
        errors = int((~correct[:n]).sum())
        certified.append(binom.cdf(errors, n, 0.02) <= 0.05)
    assert threshold == grid[certified.index(False) - 1]


def test_the_search_stops_at_the_first_failure() -> None:
    scores = np.arange(1000) / 1000
    correct = np.ones(1000, bool)
    correct[600:640] = False  # later candidates would pass again
    threshold = selective_threshold(
        scores, correct, np.array([0.5, 0.65, 0.999]), target=0.05, confidence=0.95
    )
    assert threshold == 0.5
    assert binom.cdf(40, 1000, 0.05) > 0.05
    lenient = selective_threshold(
        scores, correct, np.array([0.5, 0.65, 0.999]), target=0.0555, confidence=0.95
    )
    assert binom.cdf(40, 1000, 0.0555) <= 0.05
    assert lenient == 0.5


def test_nothing_is_accepted_where_nothing_can_be_certified() -> None:
    scores = np.linspace(0, 1, 50)
    threshold = selective_threshold(
        scores, np.ones(50, bool), np.array([0.9, 1.0]), target=0.001, confidence=0.95
    )
    assert threshold == -1


def test_the_grid_runs_from_strict_to_everything() -> None:
    scores = np.random.default_rng(0).random(1000)
    grid = acceptance_grid(scores)
    assert (np.diff(grid) > 0).all()
    assert np.mean(scores <= grid[0]) == pytest.approx(0.8, abs=0.01)
    assert grid[-1] == scores.max()


def predicted(
    draws: np.ndarray, labels: np.ndarray | None, not_a_digit: np.ndarray | None = None
) -> Predictions:
    n = draws.shape[1]
    summary = summarise(draws, 0.5, not_a_digit)
    return Predictions("hand", np.zeros((n, 28, 28), np.uint8), labels, summary, np.zeros(n, bool))


def test_the_score_that_ranks_errors_last_is_chosen() -> None:
    # Networks disagree about the wrong ones only; the right ones are ambiguous to all alike.
    right = [[0.55, 0.45], [0.55, 0.45]]
    wrong = [[0.99, 0.01], [0.21, 0.79]]
    draws = np.array([right] * 8 + [wrong] * 2).transpose(1, 0, 2)
    labels = np.array([0] * 8 + [1] * 2)
    assert choose_score(predicted(draws, labels)) == "mutual_information"


def test_a_score_that_lets_strange_pictures_pass_is_not_chosen() -> None:
    # Entropy ranks the one wrong digit last, but knows nothing of the pictures that are none.
    sure, unsure = [0.99, 0.01], [0.6, 0.4]
    digits = predicted(np.array([[sure] * 9 + [unsure]] * 2), np.array([0] * 9 + [1]))
    alike = np.array([[[0.995, 0.005]] * 10] * 2)
    strange = predicted(alike, None, np.full((2, 10), 0.9))
    assert choose_score(digits) == "predictive_entropy"
    assert choose_score(digits, strange) == "one_minus_joint_probability"


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("n", [9, 100, 999, 3_000])
def test_conformal_sets_are_those_of_crepes(n: int, coverage: float) -> None:
    """Before the top class is added; without smoothing, which would be random."""
    rng = np.random.default_rng(n)
    probability = rng.dirichlet([0.3] * 4, n + 500)
    labels = np.array([rng.choice(4, p=p) for p in probability])
    threshold = conformal_threshold(probability[:n], labels[:n], coverage)
    ours = 1 - probability[n:] <= threshold
    peer = ConformalClassifier()
    peer.fit(1 - probability[np.arange(n), labels[:n]], seed=0)
    p_values = peer.predict_p(1 - probability[n:], smoothing=False)
    # Vovk et al. (2005): labels whose p-value exceeds 1 - coverage. (crepes' own sets hold those
    # that equal it, too, which is as valid and a little larger.)
    assert np.array_equal(ours, p_values > 1 - coverage + 1e-9)
    theirs = peer.predict_set(1 - probability[n:], confidence=coverage, smoothing=False)
    assert (ours <= np.asarray(theirs, bool)).all()
    top = np.eye(4, dtype=bool)[probability[n:].argmax(axis=1)]
    kept = ConformalRule(coverage, threshold, n).prediction_sets(probability[n:])
    assert np.array_equal(kept, ours | top)


@pytest.mark.parametrize("share", [0.0, 1.0, 5.0, 99.9, float("nan")])
def test_a_promise_that_is_no_share_is_refused(share: float) -> None:
    scores, correct = np.linspace(0, 1, 50), np.ones(50, bool)
    with pytest.raises(ValueError, match="target"):
        selective_threshold(scores, correct, scores, target=share, confidence=0.95)
    with pytest.raises(ValueError, match="confidence"):
        selective_threshold(scores, correct, scores, target=0.01, confidence=share)
    with pytest.raises(ValueError, match="coverage"):
        conformal_threshold(np.full((50, 2), 0.5), np.zeros(50, np.int64), share)

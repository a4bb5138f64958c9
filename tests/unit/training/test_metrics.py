"""Metrics on worked examples, and against torchmetrics."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional import classification

from training.evaluation.metrics import (
    adaptive_calibration_error,
    area_under_risk_coverage,
    auroc,
    bootstrap_intervals,
    brier_score,
    calibration_error,
    confidence_bins,
    error_rate,
    errors_at_coverage,
    false_positive_rate,
    nll,
    risk_coverage_curve,
)

P = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9]])
LABELS = np.array([0, 1, 1, 1])


def test_error_rate_by_hand() -> None:
    assert error_rate(P, LABELS) == 0.25


def test_nll_by_hand() -> None:
    expected = -(math.log(0.8) + math.log(0.4) + math.log(0.7) + math.log(0.9)) / 4
    assert nll(P, LABELS) == pytest.approx(expected)


def test_nll_of_an_impossible_event_is_large_but_finite() -> None:
    assert 700 < nll(np.array([[1.0, 0.0]]), np.array([1])) < math.inf


def test_brier_score_by_hand() -> None:
    expected = (2 * 0.2**2 + 2 * 0.6**2 + 2 * 0.3**2 + 2 * 0.1**2) / 4
    assert brier_score(P, LABELS) == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    # Bins of a width of 1/2: all four are in the upper one, 3 of 4 right, mean confidence 0.75.
    assert calibration_error(P, LABELS, n_bins=2) == pytest.approx(0.0, abs=1e-12)
    # Bins of 1/10: each on its own, |1 - 0.8|, |0 - 0.6|, |1 - 0.7|, |1 - 0.9|, over 4.
    assert calibration_error(P, LABELS, n_bins=10) == pytest.approx(1.2 / 4, abs=1e-12)


def test_calibration_error_weighs_bins_by_their_images() -> None:
    p = np.array([[0.95, 0.05]] * 9 + [[0.55, 0.45]])
    labels = np.array([0] * 9 + [1])
    assert calibration_error(p, labels, n_bins=2) == pytest.approx(abs(0.91 - 0.9), abs=1e-12)
    assert calibration_error(p, labels, n_bins=10) == pytest.approx(
        0.9 * 0.05 + 0.1 * 0.55, abs=1e-12
    )


def test_risk_coverage_by_hand() -> None:
    correct = np.array([True, False, True, True])
    assert area_under_risk_coverage(np.array([0.0, 0.3, 0.2, 0.1]), correct) == pytest.approx(
        (0 + 0 + 0 + 1 / 4) / 4
    )
    assert area_under_risk_coverage(np.array([0.1, 0.0, 0.2, 0.3]), correct) == pytest.approx(
        (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4
    )


def test_adaptive_bins_hold_equally_many_images() -> None:
    p = np.array([[0.99, 0.01], [0.98, 0.02], [0.97, 0.03], [0.96, 0.04]])
    labels = np.array([0, 1, 0, 0])
    # The less certain two: 0.965 sure, both right. The others: 0.985 sure, one of two right.
    expected = (2 * abs(0.965 - 1) + 2 * abs(0.985 - 0.5)) / 4
    assert adaptive_calibration_error(p, labels, n_bins=2) == pytest.approx(expected)
    assert calibration_error(p, labels, n_bins=2) == pytest.approx(0.975 - 0.75, abs=1e-12)


def test_the_risk_coverage_curve_by_hand() -> None:
    coverage, risk = risk_coverage_curve(np.array([0.3, 0.1, 0.2]), np.array([True, True, False]))
    assert coverage == pytest.approx([1 / 3, 2 / 3, 1])
    assert risk == pytest.approx([0, 1 / 2, 1 / 3])
    # Equal scores: whichever comes first, the curve is the same.
    for correct in ([True, True, False], [True, False, True]):
        _, risk = risk_coverage_curve(np.array([0.1, 0.2, 0.2]), np.array(correct))
        assert risk == pytest.approx([0, 1 / 4, 1 / 3])


def test_errors_at_a_coverage_are_counted_among_the_most_certain() -> None:
    score = np.arange(10_000) / 1e4
    correct = np.ones(10_000, bool)
    correct[[9_498, 9_499, 9_500]] = False
    assert errors_at_coverage(score, correct, 0.95) == (9_500, 2)
    assert errors_at_coverage(score[::-1], correct[::-1], 0.95) == (9_500, 2)
    assert errors_at_coverage(score, correct, 1.0) == (10_000, 3)


def test_auroc_by_hand() -> None:
    inside, outside = np.array([0.1, 0.2, 0.3]), np.array([0.2, 5.0])
    # Pairs won: (0.1, 0.2), half of (0.2, 0.2), and all three against 5.
    assert auroc(inside, outside) == pytest.approx((1 + 0.5 + 3) / 6)
    assert auroc(outside, inside) == pytest.approx(1 - (1 + 0.5 + 3) / 6)
    # Scores beyond 1 are not squashed, nor infinite ones lost.
    assert auroc(np.array([1e6, 2e6]), np.array([3e6, np.inf])) == 1


def test_false_positives_at_a_true_positive_rate_by_hand() -> None:
    inside = np.arange(100) / 100
    assert false_positive_rate(inside, np.array([0.5, 0.95, 0.96, 2.0])) == 0.5
    assert false_positive_rate(inside, np.array([2.0])) == 0


@pytest.mark.parametrize("n_bins", [2, 15])
def test_the_calibration_error_is_that_of_torchmetrics(n_bins: int) -> None:
    rng = np.random.default_rng(2)
    p, labels = rng.dirichlet([0.3] * 10, 2_000), rng.integers(10, size=2_000)
    # Torchmetrics sums in single precision.
    theirs = classification.multiclass_calibration_error(
        torch.from_numpy(p), torch.from_numpy(labels), num_classes=10, n_bins=n_bins
    )
    assert calibration_error(p, labels, n_bins) == pytest.approx(float(theirs), abs=1e-6)


def test_auroc_with_ties_is_that_of_torchmetrics() -> None:
    rng = np.random.default_rng(3)
    inside, outside = rng.integers(0, 60, 900) / 100, rng.integers(20, 100, 700) / 100
    scores = torch.from_numpy(np.concatenate([inside, outside]))
    is_outside = torch.from_numpy(np.repeat([0, 1], [900, 700]))
    theirs = classification.binary_auroc(scores, is_outside)
    assert auroc(inside, outside) == pytest.approx(float(theirs), abs=1e-6)


def test_bins_of_confidence_hold_their_lower_edge_and_the_last_holds_one() -> None:
    top = np.array([0.5, 0.74, 0.75, 1.0])
    assert confidence_bins(np.stack([top, 1 - top], axis=1), 4).tolist() == [2, 2, 3, 3]


def test_bootstrap_intervals_are_as_wide_as_theory_says() -> None:
    rng = np.random.default_rng(0)
    n, error = 2_000, 0.1
    sure = np.full(n, 0.9)
    p = np.stack([sure, 1 - sure], axis=1)
    labels = (rng.random(n) < error).astype(np.int64)
    intervals = bootstrap_intervals(p, labels)
    low, high = intervals["error"]
    found = error_rate(p, labels)
    width = 2 * 1.96 * np.sqrt(found * (1 - found) / n)
    assert low < found < high
    assert high - low == pytest.approx(width, rel=0.1)
    low, high = intervals["nll"]
    assert low < nll(p, labels) < high
    assert bootstrap_intervals(p, labels) == intervals


def test_bootstrapped_calibration_errors_are_those_of_the_metrics() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet([1, 1, 1], 4_000)
    labels = rng.integers(3, size=4_000)
    intervals = bootstrap_intervals(p, labels)
    for name, value in (
        ("calibration_error", calibration_error(p, labels)),
        ("adaptive_calibration_error", adaptive_calibration_error(p, labels)),
        ("brier_score", brier_score(p, labels)),
    ):
        low, high = intervals[name]
        assert low <= value <= high
        assert high - low < 0.06

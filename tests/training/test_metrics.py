"""Metrics on worked examples."""

import math

import numpy as np
import pytest

from model import ConformalRule, SelectiveRule, summarise
from training.metrics import (
    area_under_risk_coverage,
    brier_score,
    calibration_error,
    error_rate,
    measure,
    nll,
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
    assert calibration_error(P, LABELS, n_bins=2) == pytest.approx(0.0, abs=1e-6)
    # Bins of 1/10: each on its own, |1 - 0.8|, |0 - 0.6|, |1 - 0.7|, |1 - 0.9|, over 4.
    assert calibration_error(P, LABELS, n_bins=10) == pytest.approx(1.2 / 4, abs=1e-6)


def test_calibration_error_weighs_bins_by_their_pictures() -> None:
    p = np.array([[0.95, 0.05]] * 9 + [[0.55, 0.45]])
    labels = np.array([0] * 9 + [1])
    assert calibration_error(p, labels, n_bins=2) == pytest.approx(abs(0.91 - 0.9), abs=1e-6)
    assert calibration_error(p, labels, n_bins=10) == pytest.approx(
        0.9 * 0.05 + 0.1 * 0.55, abs=1e-6
    )


def test_risk_coverage_by_hand() -> None:
    correct = np.array([True, False, True, True])
    assert area_under_risk_coverage(np.array([0.0, 0.3, 0.2, 0.1]), correct) == pytest.approx(
        (0 + 0 + 0 + 1 / 4) / 4
    )
    assert area_under_risk_coverage(np.array([0.1, 0.0, 0.2, 0.3]), correct) == pytest.approx(
        (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4
    )


def test_measure_counts_what_the_rules_let_through() -> None:
    draws = np.stack([P, P])
    selective = SelectiveRule("one_minus_max_probability", 0.35, 0.01, 0.95, 10, 2, "hand")
    conformal = ConformalRule(0.9, 0.65, 10)
    none, first = np.zeros(4, bool), np.arange(4) == 0
    figures = measure(summarise(draws, 0.5), LABELS, selective, conformal, none)
    assert figures["n"] == 4
    assert figures["accepted"] == 0.75
    # What the door sends to a person is not accepted, however certain the answer.
    assert measure(summarise(draws, 0.5), LABELS, selective, conformal, first)["accepted"] == 0.5
    assert figures["errors_accepted"] == 0
    assert figures["set_size"] == pytest.approx(5 / 4)
    assert figures["set_coverage"] == 1
    assert figures["mutual_information"] == pytest.approx(0, abs=1e-12)

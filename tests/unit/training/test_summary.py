"""Summary metrics, counted by hand."""

import numpy as np
import pytest

from model import ConformalRule, SelectiveRule, summarise
from training.evaluation.intervals import IntervalCoverage, coverage_of_another, monte_carlo_error
from training.evaluation.predictions import Predictions
from training.evaluation.summary import (
    CoverageErrors,
    SetMetrics,
    accepted,
    ood_metrics,
    part_metrics,
    set_metrics_by_class,
)

P = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9]])
LABELS = np.array([0, 1, 1, 1])
NONE = np.zeros(4, bool)
RULE = SelectiveRule("one_minus_max_probability", 0.35, 0.01, 0.95, 10, 2, "hand")
SETS = ConformalRule(0.9, 0.65, 10)


def predictions(
    p: np.ndarray,
    labels: np.ndarray | None,
    *,
    flagged: np.ndarray = NONE,
    not_a_digit: np.ndarray | None = None,
) -> Predictions:
    both = None if not_a_digit is None else np.stack([not_a_digit, not_a_digit])
    summary = summarise(np.stack([p, p]), 0.5, both)
    return Predictions("hand", np.zeros((len(p), 28, 28), np.uint8), labels, summary, flagged)


def test_digits_are_counted_as_the_rules_let_them_through() -> None:
    metrics = part_metrics(predictions(P, LABELS), RULE, SETS, bootstrap=False)
    assert metrics.n == 4
    assert metrics.error == 0.25
    assert metrics.accepted == 0.75
    assert metrics.errors_accepted == 0
    assert metrics.set_size == pytest.approx(5 / 4)
    assert metrics.set_larger_than_one == 0.25
    assert metrics.set_coverage == 1
    assert metrics.mutual_information == pytest.approx(0, abs=1e-12)
    assert metrics.errors_at_coverage["0.90"] == CoverageErrors(3, 0)
    assert metrics.intervals is None


def test_flagged_images_are_not_accepted_however_certain() -> None:
    last = np.arange(4) == 3
    given = predictions(P, LABELS, flagged=last)
    assert accepted(given, RULE).tolist() == [True, False, True, False]
    metrics = part_metrics(given, RULE, SETS, bootstrap=False)
    assert metrics.accepted == 0.5
    assert metrics.flagged == 0.25
    # It is behind everything else, so the wrong one is among the three most certain now.
    assert metrics.errors_at_coverage["0.90"] == CoverageErrors(3, 1)


def test_bootstrap_intervals_hold_the_figures() -> None:
    metrics = part_metrics(predictions(P, LABELS), RULE, SETS)
    low, high = (metrics.intervals or {})["error"]
    assert low <= metrics.error <= high


def test_figures_of_digits_need_their_classes() -> None:
    with pytest.raises(ValueError, match="hand"):
        part_metrics(predictions(P, None), RULE, SETS)
    with pytest.raises(ValueError, match="hand"):
        set_metrics_by_class(predictions(P, None), SETS, ("a", "b"))


def test_prediction_sets_are_looked_at_class_by_class() -> None:
    metrics = set_metrics_by_class(predictions(P, LABELS), SETS, ("a", "b"))
    assert metrics["a"] == SetMetrics(n=1, coverage=1.0, size=1.0, larger_than_one=0.0)
    assert metrics["b"].n == 3
    assert metrics["b"].size == pytest.approx(4 / 3)


def test_out_of_distribution_images_are_counted_by_decision_and_reason() -> None:
    rule = SelectiveRule("one_minus_joint_probability", 0.35, 0.01, 0.95, 10, 2, "hand")
    inside = predictions(P, LABELS, not_a_digit=np.array([0.0, 0.0, 0.1, 0.0]))
    outside = predictions(
        np.array([[0.9, 0.1], [0.9, 0.1], [0.5, 0.5], [0.99, 0.01]]),
        None,
        flagged=np.arange(4) == 3,
        not_a_digit=np.array([0.9, 0.1, 0.05, 0.0]),
    )
    metrics = ood_metrics(outside, inside, rule)
    # The second is accepted; only preprocessing rejects the fourth, which is no reason of the rule.
    assert metrics.n == 4
    assert metrics.accepted == 0.25
    assert metrics.flagged == 0.25
    # To accept 97 % of four digits is to accept all of them, up to a score of 0.4.
    assert metrics.accepted_where_97_of_digits_are == 0.25
    strict = SelectiveRule("one_minus_joint_probability", 0.15, 0.01, 0.95, 10, 2, "hand")
    stricter = ood_metrics(outside, inside, strict)
    assert (stricter.accepted, stricter.accepted_where_97_of_digits_are) == (0, 0.25)
    assert metrics.unlike_training == pytest.approx(1 / 3)
    assert metrics.auroc["not_a_digit"] == pytest.approx((4 + 3.5 + 3 + 1.5) / 16)
    assert metrics.not_a_digit == pytest.approx(1.05 / 4)


def test_nothing_rejected_gives_no_reason() -> None:
    rule = SelectiveRule("predictive_entropy", 1.0, 0.01, 0.95, 10, 2, "hand")
    inside = predictions(P, LABELS)
    assert ood_metrics(predictions(P, None), inside, rule).unlike_training == 0


def test_monte_carlo_error_is_the_difference_of_two_sets_of_draws() -> None:
    first = summarise(np.array([[[0.9, 0.1], [1.0, 0.0]], [[0.7, 0.3], [1.0, 0.0]]]), 0.5)
    second = summarise(np.array([[[0.6, 0.4], [1.0, 0.0]], [[0.6, 0.4], [1.0, 0.0]]]), 0.5)
    found = monte_carlo_error(first, second)
    assert found["all"].n == 2
    assert found["unsure"].n == 1
    assert found["unsure"].probability == pytest.approx(0.2)
    assert found["all"].probability == pytest.approx(0.1)
    assert found["unsure"].lower == pytest.approx(0.75 - 0.6)


def test_intervals_are_held_against_another_network() -> None:
    summary = summarise(np.array([[[0.9, 0.1], [0.9, 0.1]], [[0.7, 0.3], [0.7, 0.3]]]), 0.5)
    another = summarise(np.array([[[0.8, 0.2], [0.5, 0.5]]] * 2), 0.5)
    assert coverage_of_another(summary, another)["all"] == IntervalCoverage(2, 0.5)

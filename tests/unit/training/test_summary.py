"""The figures of an evaluation, counted by hand."""

import numpy as np
import pytest

from model import ConformalRule, SelectiveRule, summarise
from training.evaluation.intervals import coverage_of_another, monte_carlo_error
from training.evaluation.predictions import Answers
from training.evaluation.summary import accepted, digit_figures, foreign_figures, set_figures

P = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9]])
LABELS = np.array([0, 1, 1, 1])
NONE = np.zeros(4, bool)
RULE = SelectiveRule("one_minus_max_probability", 0.35, 0.01, 0.95, 10, 2, "hand")
SETS = ConformalRule(0.9, 0.65, 10)


def answers(
    p: np.ndarray,
    labels: np.ndarray | None,
    *,
    flagged: np.ndarray = NONE,
    not_a_digit: np.ndarray | None = None,
) -> Answers:
    both = None if not_a_digit is None else np.stack([not_a_digit, not_a_digit])
    summary = summarise(np.stack([p, p]), 0.5, both)
    return Answers("hand", np.zeros((len(p), 28, 28), np.uint8), labels, summary, flagged)


def test_digits_are_counted_as_the_rules_let_them_through() -> None:
    figures = digit_figures(answers(P, LABELS), RULE, SETS, bootstrap=False)
    assert figures["n"] == 4
    assert figures["error"] == 0.25
    assert figures["accepted"] == 0.75
    assert figures["errors_accepted"] == 0
    assert figures["set_size"] == pytest.approx(5 / 4)
    assert figures["set_larger_than_one"] == 0.25
    assert figures["set_coverage"] == 1
    assert figures["mutual_information"] == pytest.approx(0, abs=1e-12)
    assert figures["errors_at_coverage"]["0.90"] == {"n": 3, "errors": 0}
    assert "intervals" not in figures


def test_what_the_door_sends_to_a_person_is_not_accepted_however_certain() -> None:
    last = np.arange(4) == 3
    given = answers(P, LABELS, flagged=last)
    assert accepted(given, RULE).tolist() == [True, False, True, False]
    figures = digit_figures(given, RULE, SETS, bootstrap=False)
    assert figures["accepted"] == 0.5
    assert figures["flagged"] == 0.25
    # It is behind everything else, so the wrong one is among the three most certain now.
    assert figures["errors_at_coverage"]["0.90"] == {"n": 3, "errors": 1}


def test_bootstrap_intervals_hold_the_figures() -> None:
    figures = digit_figures(answers(P, LABELS), RULE, SETS)
    low, high = figures["intervals"]["error"]
    assert low <= figures["error"] <= high


def test_figures_of_digits_need_their_classes() -> None:
    with pytest.raises(ValueError, match="hand"):
        digit_figures(answers(P, None), RULE, SETS)
    with pytest.raises(ValueError, match="hand"):
        set_figures(answers(P, None), SETS, ("a", "b"))


def test_prediction_sets_are_looked_at_class_by_class() -> None:
    figures = set_figures(answers(P, LABELS), SETS, ("a", "b"))
    assert figures["a"] == {"n": 1, "coverage": 1.0, "size": 1.0, "larger_than_one": 0.0}
    assert figures["b"]["n"] == 3
    assert figures["b"]["size"] == pytest.approx(4 / 3)


def test_foreign_pictures_are_judged_by_what_was_accepted_and_why_the_rest_was_not() -> None:
    rule = SelectiveRule("one_minus_joint_probability", 0.35, 0.01, 0.95, 10, 2, "hand")
    inside = answers(P, LABELS, not_a_digit=np.array([0.0, 0.0, 0.1, 0.0]))
    outside = answers(
        np.array([[0.9, 0.1], [0.9, 0.1], [0.5, 0.5], [0.99, 0.01]]),
        None,
        flagged=np.arange(4) == 3,
        not_a_digit=np.array([0.9, 0.1, 0.05, 0.0]),
    )
    figures = foreign_figures(outside, inside, rule)
    # The second is accepted; the fourth only the door keeps out, which is no reason of the rule.
    assert figures["n"] == 4
    assert figures["accepted"] == 0.25
    assert figures["flagged"] == 0.25
    # To accept 97 % of four digits is to accept all of them, up to a score of 0.4.
    assert figures["accepted_where_97_of_digits_are"] == 0.25
    strict = SelectiveRule("one_minus_joint_probability", 0.15, 0.01, 0.95, 10, 2, "hand")
    stricter = foreign_figures(outside, inside, strict)
    assert (stricter["accepted"], stricter["accepted_where_97_of_digits_are"]) == (0, 0.25)
    assert figures["unlike_training"] == pytest.approx(1 / 3)
    assert figures["auroc"]["not_a_digit"] == pytest.approx((4 + 3.5 + 3 + 1.5) / 16)
    assert figures["not_a_digit"] == pytest.approx(1.05 / 4)


def test_nothing_rejected_gives_no_reason() -> None:
    rule = SelectiveRule("predictive_entropy", 1.0, 0.01, 0.95, 10, 2, "hand")
    inside = answers(P, LABELS)
    assert foreign_figures(answers(P, None), inside, rule)["unlike_training"] == 0


def test_monte_carlo_error_is_the_difference_of_two_sets_of_draws() -> None:
    first = summarise(np.array([[[0.9, 0.1], [1.0, 0.0]], [[0.7, 0.3], [1.0, 0.0]]]), 0.5)
    second = summarise(np.array([[[0.6, 0.4], [1.0, 0.0]], [[0.6, 0.4], [1.0, 0.0]]]), 0.5)
    found = monte_carlo_error(first, second)
    assert found["all"]["n"] == 2
    assert found["unsure"]["n"] == 1
    assert found["unsure"]["probability"] == pytest.approx(0.2)
    assert found["all"]["probability"] == pytest.approx(0.1)
    assert found["unsure"]["lower"] == pytest.approx(0.75 - 0.6)


def test_intervals_are_held_against_another_network() -> None:
    summary = summarise(np.array([[[0.9, 0.1], [0.9, 0.1]], [[0.7, 0.3], [0.7, 0.3]]]), 0.5)
    another = summarise(np.array([[[0.8, 0.2], [0.5, 0.5]]] * 2), 0.5)
    assert coverage_of_another(summary, another)["all"] == {"n": 2, "held": 0.5}

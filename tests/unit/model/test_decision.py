"""Applying the rules of a checkpoint."""

import numpy as np
import pytest

from model import ConformalRule, PredictiveSummary, SelectiveRule, summarise
from model.decision import uncertainty_score
from model.types import Reason

P = np.array([[[0.9, 0.1, 0.0], [0.4, 0.35, 0.25]], [[0.7, 0.3, 0.0], [0.4, 0.35, 0.25]]])


def rule(score: str, threshold: float) -> SelectiveRule:
    return SelectiveRule(score, threshold, 0.001, 0.95, 8000, 100, "MNIST")  # type: ignore[arg-type]


def test_each_score_is_the_uncertainty_of_its_name() -> None:
    summary = summarise(P, 0.5)
    assert uncertainty_score(summary, "one_minus_max_probability") == pytest.approx([0.2, 0.6])
    for score in ("predictive_entropy", "mutual_information"):
        assert uncertainty_score(summary, score) is getattr(summary, score)


def test_the_certain_image_is_accepted_and_the_ambiguous_one_is_not() -> None:
    assert rule("one_minus_max_probability", 0.3).accepts(summarise(P, 0.5)).tolist() == [
        True,
        False,
    ]


def test_a_score_at_the_threshold_is_accepted() -> None:
    summary = summarise(P, 0.5)
    at = float(summary.predictive_entropy[0])
    assert rule("predictive_entropy", at).accepts(summary)[0]
    assert not rule("predictive_entropy", np.nextafter(at, 0)).accepts(summary)[0]


def of_one(class_probability: float, not_a_digit: float) -> PredictiveSummary:
    """One image of two classes on which two draws agree."""
    p = np.array([[[class_probability, 1 - class_probability]]] * 2)
    return summarise(p, 0.5, np.full((2, 1), not_a_digit))


def test_the_joint_score_is_the_chance_that_it_is_another_digit_or_none() -> None:
    draws = np.array([[[0.9, 0.1]], [[0.5, 0.5]]])
    summary = summarise(draws, 0.5, np.array([[0.2], [0.6]]))
    expected = 1 - (0.8 * 0.9 + 0.4 * 0.5) / 2
    assert uncertainty_score(summary, "one_minus_joint_probability") == pytest.approx([expected])
    assert uncertainty_score(summary, "not_a_digit") == pytest.approx([0.4])


@pytest.mark.parametrize(
    ("probability", "not_a_digit", "reasons"),
    [
        (0.99, 0.0, ()),
        (0.99, 0.9, ("unlike_training",)),
        (0.6, 0.01, ("uncertain",)),
        (0.6, 0.5, ("unlike_training", "uncertain")),  # each is too much by itself
        (0.93, 0.08, ("unlike_training",)),  # only both together are: the larger one
        (0.91, 0.06, ("uncertain",)),
    ],
)
def test_the_reason_is_the_part_that_was_too_much(
    probability: float, not_a_digit: float, reasons: tuple[Reason, ...]
) -> None:
    decided = rule("one_minus_joint_probability", 0.1)
    summary = of_one(probability, not_a_digit)
    assert decided.reasons(summary) == [reasons]
    assert decided.accepts(summary).tolist() == [not reasons]


@pytest.mark.parametrize("score", ["predictive_entropy", "one_minus_joint_probability"])
def test_without_an_output_for_it_nothing_is_called_unlike_training(score: str) -> None:
    for threshold in (-1.0, 0.0):
        summary = of_one(0.7, 0.0)
        assert rule(score, threshold).reasons(summary) == [("uncertain",)]


def test_whatever_the_score_a_rejected_image_has_a_reason() -> None:
    for score in ("predictive_entropy", "mutual_information", "not_a_digit"):
        assert rule(score, -1).reasons(of_one(0.99, 0.6)) == [("unlike_training",)]
        assert rule(score, -1).reasons(of_one(1.0, 0.0)) == [("uncertain",)]


def test_a_rule_that_could_not_be_certified_accepts_nothing_and_says_so() -> None:
    certain = np.array([[[1.0, 0.0]], [[1.0, 0.0]]])
    assert not rule("predictive_entropy", -1).accepts(summarise(certain, 0.5))[0]
    assert "Nothing is accepted" in rule("predictive_entropy", -1).guarantee()


def test_guarantees_name_their_numbers_and_what_breaks_them() -> None:
    text = rule("predictive_entropy", 0.1).guarantee()
    for part in ("95%", "0.10%", "MNIST", "8,000", "100", "does not hold"):
        assert part in text
    text = ConformalRule(0.999, 0.5, 8000).guarantee()
    assert "99.90%" in text
    assert "8,000" in text


def test_an_unknown_score_is_rejected() -> None:
    with pytest.raises(ValueError, match="unknown score"):
        rule("gut_feeling", 0.1)


def test_prediction_sets_keep_probable_labels_and_always_the_top_one() -> None:
    probability = np.array([[0.5, 0.3125, 0.1875], [0.375, 0.3125, 0.3125]])
    kept = ConformalRule(0.9, 0.6875, 100).prediction_sets(probability)
    assert kept.tolist() == [[True, True, False], [True, True, True]]
    only_top = ConformalRule(0.9, 0.1, 100).prediction_sets(probability)
    assert only_top.tolist() == [[True, False, False], [True, False, False]]

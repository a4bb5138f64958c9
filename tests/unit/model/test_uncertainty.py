"""Uncertainty measures: hand cases, the simplex, and invariances."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model import (
    credible_interval,
    expected_entropy,
    mutual_information,
    predictive_entropy,
    summarise,
)
from model.uncertainty import draw_probabilities, entropy, softmax
from tests.support.guards import (
    check_intervals_and_spread_are_of_probabilities,
    check_predictive_is_the_mean_of_softmaxes,
)

CERTAIN = [1.0, 0.0, 0.0, 0.0]
OTHER = [0.0, 1.0, 0.0, 0.0]
UNIFORM = [0.25] * 4


def draws(*rows: list[float]) -> np.ndarray:
    return np.array(rows)[:, None, :]


@pytest.mark.parametrize(
    ("p", "total", "aleatoric"),
    [
        (draws(CERTAIN, CERTAIN), 0, 0),
        (draws(UNIFORM, UNIFORM), math.log(4), math.log(4)),
        (draws(CERTAIN, OTHER), math.log(2), 0),  # sure networks that disagree
        (draws([0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0]), math.log(2), math.log(2)),
        (draws([0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]), math.log(4), math.log(2)),
    ],
)
def test_entropies_of_hand_cases(p: np.ndarray, total: float, aleatoric: float) -> None:
    assert predictive_entropy(p) == pytest.approx([total], abs=1e-12)
    assert expected_entropy(p) == pytest.approx([aleatoric], abs=1e-12)
    assert mutual_information(p) == pytest.approx([total - aleatoric], abs=1e-12)


def test_the_predictive_is_the_mean_of_softmaxes_not_the_softmax_of_a_mean() -> None:
    check_predictive_is_the_mean_of_softmaxes()


def test_intervals_and_spread_are_of_probabilities() -> None:
    check_intervals_and_spread_are_of_probabilities()


def test_interval_ends_are_linearly_interpolated_quantiles() -> None:
    first = np.linspace(0, 1, 11)
    p = np.stack([first, 1 - first], axis=-1)[:, None, :]
    lower, upper = credible_interval(p, 0.5)
    assert lower[0] == pytest.approx([0.25, 0.25])
    assert upper[0] == pytest.approx([0.75, 0.75])


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, math.nan])
def test_a_level_that_is_no_mass_is_rejected(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        credible_interval(draws(UNIFORM), level)


def test_the_standard_deviation_is_no_variance() -> None:
    assert summarise(draws(CERTAIN, OTHER), 0.9).std[0, :2] == pytest.approx([0.5, 0.5])
    p = draws([0.6, 0.4], [0.2, 0.8])
    assert summarise(p, 0.9).std[0] == pytest.approx([0.2, 0.2])


def test_softmax_bears_large_logits() -> None:
    assert softmax(np.array([1e4, 0.0, -1e4])) == pytest.approx([1, 0, 0])


def test_entropy_of_a_certain_prediction_is_a_plain_zero() -> None:
    assert math.copysign(1, float(entropy(np.array(CERTAIN)))) == 1


logits_strategy = arrays(
    np.float64, (6, 3, 4), elements=st.floats(-30, 30, allow_nan=False, width=32)
)


@settings(deadline=None)
@given(logits_strategy)
def test_properties_of_any_draws(logits: np.ndarray) -> None:
    p = softmax(logits)
    summary = summarise(p, 0.6)
    assert summary.probability.sum(axis=1) == pytest.approx(1)
    assert (summary.lower <= summary.upper).all()
    assert summary.predictive_entropy == pytest.approx(
        summary.expected_entropy + summary.mutual_information, abs=1e-12
    )
    assert (summary.predictive_entropy <= math.log(4) + 1e-12).all()
    assert (summary.mutual_information >= 0).all()


@settings(deadline=None)
@given(logits_strategy, st.permutations(range(6)), st.permutations(range(3)))
def test_the_order_of_draws_and_of_the_batch_does_not_matter(
    logits: np.ndarray, draw_order: list[int], batch_order: list[int]
) -> None:
    p = softmax(logits)
    plain, mixed = summarise(p, 0.6), summarise(p[draw_order][:, batch_order], 0.6)
    for name, values in vars(plain).items():
        assert getattr(mixed, name) == pytest.approx(values[batch_order], abs=1e-12), name


@pytest.mark.parametrize("n_draws", [2, 3, 40, 97])
def test_intervals_are_those_of_numpy_to_the_last_bit(n_draws: int) -> None:
    probabilities = np.random.default_rng(n_draws).dirichlet(np.full(10, 0.1), (n_draws, 3))
    for level in (0.5, 0.8, 0.95, 0.999):
        expected = np.quantile(probabilities, [(1 - level) / 2, (1 + level) / 2], axis=0)
        assert np.array_equal(np.stack(credible_interval(probabilities, level)), expected)


def test_one_more_output_is_the_chance_of_being_none_of_the_classes() -> None:
    logits = np.log(np.array([[[0.6, 0.2, 0.2], [0.1, 0.3, 0.6]]]))
    drawn = draw_probabilities(logits, 2)
    assert drawn.not_a_digit[0] == pytest.approx([0.2, 0.6])
    assert drawn.classes[0] == pytest.approx(np.array([[0.75, 0.25], [0.25, 0.75]]))


def test_without_that_output_nothing_is_none_of_the_classes() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 4, 5))
    drawn = draw_probabilities(logits, 5)
    assert np.array_equal(drawn.classes, softmax(logits))
    assert drawn.not_a_digit.shape == (3, 4)
    assert not drawn.not_a_digit.any()


def test_enormous_outputs_stay_probabilities() -> None:
    drawn = draw_probabilities(np.array([[[1e4, 0.0, -1e4], [0.0, 0.0, 1e4], [-1e4, 0.0, 1e4]]]), 2)
    assert drawn.not_a_digit[0] == pytest.approx([0, 1, 1])
    assert np.isfinite(drawn.classes).all()


def test_the_summary_tells_a_strange_image_from_an_ambiguous_one() -> None:
    p, not_a_digit = draws([0.9, 0.1], [0.5, 0.5]), np.array([[0.2], [0.6]])
    summary, plain = summarise(p, 0.5, not_a_digit), summarise(p, 0.5)
    assert summary.not_a_digit == pytest.approx([0.4])
    assert summary.not_a_digit_lower == pytest.approx([0.3])
    assert summary.not_a_digit_upper == pytest.approx([0.5])
    assert summary.not_a_digit_std == pytest.approx([0.2])
    assert summary.joint_probability == pytest.approx([(0.8 * 0.9 + 0.4 * 0.5) / 2])
    # The entropies are of the classes alone.
    assert summary.predictive_entropy == plain.predictive_entropy
    assert summary.mutual_information == plain.mutual_information
    assert plain.joint_probability == pytest.approx(plain.probability.max(axis=1))

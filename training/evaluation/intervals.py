"""Accuracy of the credible intervals: Monte Carlo error, and coverage of another network."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.types import Floats
from model.uncertainty import PredictiveSummary

UNSURE_BELOW = 0.99
"""Probability of the most probable class below which a prediction counts as unsure."""


@dataclass(frozen=True)
class MonteCarloError:
    """Mean absolute differences between two sets of draws, for the most probable class.

    Attributes:
        n: Number of images.
        probability: Of the mean probability.
        lower: Of the interval's lower end.
        upper: Of its upper end.
    """

    n: int
    probability: float
    lower: float
    upper: float


@dataclass(frozen=True)
class IntervalCoverage:
    """Share of `n` intervals that hold another network's probability."""

    n: int
    held: float


@dataclass(frozen=True)
class IntervalMetrics:
    """Metrics of the credible intervals.

    Attributes:
        level: Mass of the intervals.
        monte_carlo: Monte Carlo error of `all` predictions and of the `unsure` ones.
        another: Coverage of an independently trained network; None if there is none.
    """

    level: float
    monte_carlo: Mapping[str, MonteCarloError]
    another: Mapping[str, IntervalCoverage] | None = None


def monte_carlo_error(
    first: PredictiveSummary, second: PredictiveSummary
) -> dict[str, MonteCarloError]:
    """Differences between predictions of the same posterior with other draws.

    Args:
        first: Predictions with one set of draws.
        second: Predictions for the same images with as many other draws.

    Returns:
        The differences for `all` predictions, and for the `unsure` ones if there are any.
    """
    top = first.probability.argmax(axis=1)
    differences = {
        name: np.abs(_of(getattr(first, name), top) - _of(getattr(second, name), top))
        for name in ("probability", "lower", "upper")
    }
    return {
        group: MonteCarloError(
            n=int(chosen.sum()),
            **{name: float(values[chosen].mean()) for name, values in differences.items()},
        )
        for group, chosen in _groups(first, top).items()
    }


def coverage_of_another(
    summary: PredictiveSummary, another: PredictiveSummary
) -> dict[str, IntervalCoverage]:
    """How often the intervals hold the probability of an independently trained network.

    If the other network were a draw from the posterior, a 95 % interval would hold its probability
    95 times in 100.

    Args:
        summary: The predictions with the intervals.
        another: The other network's predictions for the same images.

    Returns:
        The share of intervals of the most probable class that hold the other's mean probability,
        for `all` predictions, and for the `unsure` ones if there are any.
    """
    top = summary.probability.argmax(axis=1)
    other = _of(another.probability, top)
    held = (_of(summary.lower, top) <= other) & (other <= _of(summary.upper, top))
    return {
        group: IntervalCoverage(int(chosen.sum()), float(held[chosen].mean()))
        for group, chosen in _groups(summary, top).items()
    }


def _of(values: Floats, top: NDArray[np.intp]) -> Floats:
    result: Floats = values[np.arange(len(top)), top]
    return result


def _groups(summary: PredictiveSummary, top: NDArray[np.intp]) -> dict[str, NDArray[np.bool_]]:
    """All predictions, and the unsure ones if there are any."""
    unsure = _of(summary.probability, top) < UNSURE_BELOW
    groups = {"all": np.ones(len(top), np.bool_), "unsure": unsure}
    return {name: chosen for name, chosen in groups.items() if chosen.any()}

"""How well the credible intervals hold: against other draws, and against another network."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.uncertainty import Floats, PredictiveSummary

__all__ = ["UNSURE_BELOW", "coverage_of_another", "monte_carlo_error"]

UNSURE_BELOW = 0.99
"""Probability of the most probable class below which an answer counts as unsure."""


def monte_carlo_error(first: PredictiveSummary, second: PredictiveSummary) -> dict[str, Any]:
    """By how much the numbers for the most probable class change with other draws.

    Args:
        first: Answers with one set of draws.
        second: Answers for the same pictures with as many other draws of the same posterior.

    Returns:
        Mean absolute differences of probability and of the interval's ends, for all pictures and
        for the unsure ones, with their n.
    """
    top = first.probability.argmax(axis=1)
    differences = {
        name: np.abs(_of(getattr(first, name), top) - _of(getattr(second, name), top))
        for name in ("probability", "lower", "upper")
    }
    return {
        which: {"n": int(chosen.sum())}
        | {name: float(values[chosen].mean()) for name, values in differences.items()}
        for which, chosen in _groups(first, top).items()
    }


def coverage_of_another(summary: PredictiveSummary, another: PredictiveSummary) -> dict[str, Any]:
    """How often the intervals hold what an independently trained network says.

    If the posterior were all there is to know, and the other network a draw from it, an interval
    of 95 % would hold the other's probability 95 times in 100.

    Args:
        summary: The answers whose intervals are looked at.
        another: Another network's answers for the same pictures.

    Returns:
        The share of pictures whose interval for the most probable class holds the other's mean
        probability of it, for all pictures and for the unsure ones, with their n.
    """
    top = summary.probability.argmax(axis=1)
    other = _of(another.probability, top)
    held = (_of(summary.lower, top) <= other) & (other <= _of(summary.upper, top))
    return {
        which: {"n": int(chosen.sum()), "held": float(held[chosen].mean())}
        for which, chosen in _groups(summary, top).items()
    }


def _of(values: Floats, top: NDArray[np.intp]) -> Floats:
    result: Floats = values[np.arange(len(top)), top]
    return result


def _groups(summary: PredictiveSummary, top: NDArray[np.intp]) -> dict[str, NDArray[np.bool_]]:
    """All pictures, and the unsure ones where there are any."""
    unsure = _of(summary.probability, top) < UNSURE_BELOW
    groups = {"all": np.ones(len(top), np.bool_), "unsure": unsure}
    return {which: chosen for which, chosen in groups.items() if chosen.any()}

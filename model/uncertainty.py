r"""Uncertainty of a classification from S posterior draws, on arrays (S, B, C). Entropies in nats.

The predictive is the mean of the draws' probabilities,

.. math:: \bar p_c = \frac{1}{S} \sum_s p_{sc}

and its entropy (total) splits into the mean entropy of the draws (aleatoric: every network finds
the picture ambiguous) and the mutual information between label and weights (epistemic: the
networks disagree).

Where a network has one more outcome, being no digit at all, p_c is the probability of digit c given
that it is one. So are the entropies: how ambiguous a digit is, and how little the picture is one,
are told apart.

Source: Depeweg et al. (2018), "Decomposition of Uncertainty in Bayesian Deep Learning for
Efficient and Risk-sensitive Learning";
Houlsby et al. (2011), "Bayesian Active Learning for Classification", equation 2.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Outcomes",
    "PredictiveSummary",
    "credible_interval",
    "entropy",
    "expected_entropy",
    "mutual_information",
    "outcomes",
    "predictive",
    "predictive_entropy",
    "softmax",
    "summarise",
]

Floats = NDArray[np.float64]


class Outcomes(NamedTuple):
    """What S draws say about B pictures.

    Attributes:
        classes: Probabilities of the classes, given that it is one of them (S, B, C).
        not_a_digit: Probability that it is none (S, B); 0 if the network has no output for it.
    """

    classes: Floats
    not_a_digit: Floats


@dataclass(frozen=True)
class PredictiveSummary:
    """What S draws say about B pictures.

    Attributes:
        probability: Mean over draws (B, C); each row sums to 1.
        lower: Lower ends of the credible intervals (B, C).
        upper: Upper ends (B, C).
        std: Standard deviation over draws (B, C).
        predictive_entropy: Total uncertainty (B,), in [0, ln C].
        expected_entropy: Aleatoric part (B,).
        mutual_information: Epistemic part (B,), the difference of the two.
        not_a_digit: Probability of being none of the classes, mean over draws (B,); 0 if the
            network has no output for it. The other attributes are given that it is one of them.
        not_a_digit_lower: Lower end of its credible interval (B,).
        not_a_digit_upper: Upper end (B,).
        not_a_digit_std: Its standard deviation over draws (B,).
        joint_probability: Probability that it is a digit and the most probable class is right,
            mean over draws (B,).
    """

    probability: Floats
    lower: Floats
    upper: Floats
    std: Floats
    predictive_entropy: Floats
    expected_entropy: Floats
    mutual_information: Floats
    not_a_digit: Floats
    not_a_digit_lower: Floats
    not_a_digit_upper: Floats
    not_a_digit_std: Floats
    joint_probability: Floats


def outcomes(logits: NDArray[np.floating], n_classes: int) -> Outcomes:
    """Probabilities from a network's outputs.

    Args:
        logits: Outputs (S, B, C), or (S, B, C + 1) with that of being none of the classes.
        n_classes: C.
    """
    classes = softmax(logits[..., :n_classes])
    if logits.shape[-1] == n_classes:
        return Outcomes(classes, np.zeros(classes.shape[:-1]))
    return Outcomes(classes, softmax(logits)[..., n_classes])


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Probabilities from logits over the last axis, in float64 whatever the input's precision."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    result: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return result


def entropy(probabilities: Floats) -> Floats:
    """Shannon entropy -Σ p ln p over the last axis, in nats, with 0 ln 0 = 0."""
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    # Zero minus, not a minus sign: no negative zero for a certain prediction.
    result: Floats = 0.0 - (probabilities * logs).sum(axis=-1)
    return result


def predictive(probabilities: Floats) -> Floats:
    """The posterior predictive: the mean of the draws' probabilities, (S, B, C) to (B, C)."""
    result: Floats = probabilities.mean(axis=0)
    return result


def predictive_entropy(probabilities: Floats) -> Floats:
    """Entropy of the predictive, H[p̄] (total uncertainty), (S, B, C) to (B,)."""
    return entropy(predictive(probabilities))


def expected_entropy(probabilities: Floats) -> Floats:
    """Mean entropy of the draws, E[H[p]] (aleatoric uncertainty), (S, B, C) to (B,)."""
    result: Floats = entropy(probabilities).mean(axis=0)
    return result


def mutual_information(probabilities: Floats) -> Floats:
    """H[p̄] - E[H[p]] (epistemic uncertainty), (S, B, C) to (B,); never below 0."""
    difference = predictive_entropy(probabilities) - expected_entropy(probabilities)
    return np.maximum(difference, 0.0)


def credible_interval(probabilities: Floats, level: float) -> tuple[Floats, Floats]:
    """Equal-tailed credible intervals of probabilities.

    Args:
        probabilities: Probabilities of each draw (S, B, C) or (S, B).
        level: Mass of the interval, in (0, 1).

    Returns:
        The quantiles over draws at (1 - level)/2 and (1 + level)/2, linearly interpolated, each
        of the shape of one draw.

    Raises:
        ValueError: If `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    ordered = np.sort(probabilities, axis=0)
    return _quantile(ordered, (1 - level) / 2), _quantile(ordered, (1 + level) / 2)


def _quantile(ordered: Floats, q: float) -> Floats:
    """`np.quantile` of sorted values over the first axis, which takes most of an answer's time."""
    position = q * (len(ordered) - 1)
    index = min(int(position), len(ordered) - 1)
    below, above = ordered[index], ordered[min(index + 1, len(ordered) - 1)]
    part, step = position - index, above - below
    # From the nearer end, as NumPy does it: exact at both ends.
    result: Floats = below + step * part if part < 0.5 else above - step * (1 - part)
    return result


def summarise(
    probabilities: Floats, level: float, not_a_digit: Floats | None = None
) -> PredictiveSummary:
    """All of the above at once.

    Args:
        probabilities: Class probabilities of each draw (S, B, C).
        level: Mass of the credible intervals, in (0, 1).
        not_a_digit: Each draw's probability of being none of the classes (S, B); none if None.
    """
    if not_a_digit is None:
        not_a_digit = np.zeros(probabilities.shape[:-1])
    lower, upper = credible_interval(probabilities, level)
    mean = predictive(probabilities)
    total, expected = entropy(mean), expected_entropy(probabilities)
    top = np.take_along_axis(probabilities, mean.argmax(axis=1)[None, :, None], axis=2)[..., 0]
    not_lower, not_upper = credible_interval(not_a_digit, level)
    return PredictiveSummary(
        probability=mean,
        lower=lower,
        upper=upper,
        std=probabilities.std(axis=0),
        predictive_entropy=total,
        expected_entropy=expected,
        mutual_information=np.maximum(total - expected, 0.0),
        not_a_digit=not_a_digit.mean(axis=0),
        not_a_digit_lower=not_lower,
        not_a_digit_upper=not_upper,
        not_a_digit_std=not_a_digit.std(axis=0),
        joint_probability=((1 - not_a_digit) * top).mean(axis=0),
    )

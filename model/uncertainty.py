r"""Uncertainty of a classification from S posterior draws. Entropies are in nats.

The posterior predictive is the mean of the draws' probabilities, an array (S, B, C):

.. math:: \bar p_c = \frac{1}{S} \sum_s p_{sc}

Its entropy (total) is the mean entropy of the draws (aleatoric: every network finds the image
ambiguous) plus the mutual information of label and weights (epistemic: the networks disagree).

If the network has a not-a-digit output, p_c is conditional on the image being a digit. So are the
entropies: they measure how ambiguous the digit is, not whether the image is one.

Source: Depeweg et al. (2018), "Decomposition of Uncertainty in Bayesian Deep Learning for
Efficient and Risk-sensitive Learning";
Houlsby et al. (2011), "Bayesian Active Learning for Classification", equation 2.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.types import Floats


class DrawProbabilities(NamedTuple):
    """Probabilities of each of S draws for B images.

    Attributes:
        classes: Probabilities of the classes, given that the image is a digit (S, B, C).
        not_a_digit: Probability of the not-a-digit output (S, B); 0 if there is none.
    """

    classes: Floats
    not_a_digit: Floats


@dataclass(frozen=True)
class PredictiveSummary:
    """Posterior predictive and its uncertainty for B images.

    Except for the last five, the attributes are given that the image is a digit.

    Attributes:
        probability: Posterior predictive (B, C): mean over draws; each row sums to 1.
        lower: Lower ends of the credible intervals (B, C).
        upper: Upper ends (B, C).
        std: Standard deviation over draws (B, C).
        predictive_entropy: Total uncertainty (B,), in [0, ln C].
        expected_entropy: Aleatoric part (B,).
        mutual_information: Epistemic part (B,), the difference of the two.
        not_a_digit: Probability of the not-a-digit output, mean over draws (B,); 0 if none.
        not_a_digit_lower: Lower end of its credible interval (B,).
        not_a_digit_upper: Upper end (B,).
        not_a_digit_std: Its standard deviation over draws (B,).
        joint_probability: Probability that the image is a digit and the top class is right, mean
            over draws (B,).
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


def draw_probabilities(logits: NDArray[np.floating], n_classes: int) -> DrawProbabilities:
    """Probabilities from the logits of each draw.

    Args:
        logits: (S, B, C), or (S, B, C + 1) with a not-a-digit output.
        n_classes: C.
    """
    classes = softmax(logits[..., :n_classes])
    if logits.shape[-1] == n_classes:
        return DrawProbabilities(classes, np.zeros(classes.shape[:-1]))
    return DrawProbabilities(classes, softmax(logits)[..., n_classes])


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Softmax over the last axis, in float64 for any input precision."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    result: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return result


def entropy(probabilities: Floats) -> Floats:
    """Shannon entropy -Σ p ln p over the last axis, in nats, with 0 ln 0 = 0."""
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    # A subtraction, not a minus sign, which would give -0 for a certain prediction.
    result: Floats = 0.0 - (probabilities * logs).sum(axis=-1)
    return result


def predictive(probabilities: Floats) -> Floats:
    """Posterior predictive: the mean over draws, (S, B, C) to (B, C)."""
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
    """H[p̄] - E[H[p]] (epistemic uncertainty), (S, B, C) to (B,), at least 0."""
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
    """`np.quantile` over the first axis of sorted values, without its overhead."""
    position = q * (len(ordered) - 1)
    index = min(int(position), len(ordered) - 1)
    below, above = ordered[index], ordered[min(index + 1, len(ordered) - 1)]
    part, step = position - index, above - below
    # From the nearer end, like NumPy: exact at both ends.
    result: Floats = below + step * part if part < 0.5 else above - step * (1 - part)
    return result


def summarise(
    probabilities: Floats, level: float, not_a_digit: Floats | None = None
) -> PredictiveSummary:
    """Posterior predictive, credible intervals and uncertainties.

    Args:
        probabilities: Class probabilities of each draw (S, B, C).
        level: Mass of the credible intervals, in (0, 1).
        not_a_digit: Each draw's not-a-digit probability (S, B); 0 if None.
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

"""When to accept an answer, and which labels to keep: rules stored in a checkpoint.

Both rules are calibrated on data that the network was not fitted to (`training.calibration.thresholds`); this
module only applies them.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from model.uncertainty import Floats, PredictiveSummary

__all__ = ["SCORES", "ConformalRule", "Reason", "Score", "SelectiveRule", "uncertainty_score"]

Score = Literal[
    "predictive_entropy",
    "mutual_information",
    "one_minus_max_probability",
    "not_a_digit",
    "one_minus_joint_probability",
]
SCORES: tuple[Score, ...] = (
    "predictive_entropy",
    "mutual_information",
    "one_minus_max_probability",
    "not_a_digit",
    "one_minus_joint_probability",
)
"""What may decide: the last is the probability that "it is a digit, and it is that one" is wrong.

For a network without an output for what is no digit, the last is that of the largest probability
and `not_a_digit` is 0 throughout.
"""

Reason = Literal["uncertain", "unlike_training", "no_ink", "several_shapes", "not_digit_shaped"]


@dataclass(frozen=True)
class SelectiveRule:
    """Accept when the score is at most the threshold.

    The threshold is chosen so that, with probability `confidence` over the calibration sample,
    at most a share `target` of the accepted answers is wrong, for pictures like those of
    `population` and with exactly `n_draws` draws.

    Attributes:
        score: Which uncertainty decides.
        threshold: Largest accepted value of the score; negative if nothing can be accepted.
        target: Largest share of wrong answers among the accepted.
        confidence: Probability with which the target holds.
        n_calibration: Number of pictures it was calibrated on.
        n_draws: Number of posterior draws it was calibrated with.
        population: What the calibration pictures were.
    """

    score: Score
    threshold: float
    target: float
    confidence: float
    n_calibration: int
    n_draws: int
    population: str

    def __post_init__(self) -> None:
        """Refuse a score this version cannot compute.

        Raises:
            ValueError: If the score is not one of `SCORES`.
        """
        if self.score not in SCORES:
            raise ValueError(f"unknown score {self.score!r}; known are {', '.join(SCORES)}")

    def accepts(self, summary: PredictiveSummary) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether each picture of the summary is accepted, (B,)."""
        return uncertainty_score(summary, self.score) <= self.threshold

    def reasons(self, summary: PredictiveSummary) -> list[tuple[Reason, ...]]:
        """Why each picture of the summary is not accepted; nothing where it is.

        The chance that "it is a digit, and it is that one" is wrong has two parts: that it is no
        digit (`unlike_training`), and that it is another one (`uncertain`). The larger part is a
        reason, and so is the other if it would be too much by itself.
        """
        strange = summary.not_a_digit
        doubtful = 1 - strange - summary.joint_probability
        joint = self.score == "one_minus_joint_probability" and self.threshold >= 0
        alone = self.threshold if joint else np.inf
        result: list[tuple[Reason, ...]] = []
        for accepted, one, other in zip(self.accepts(summary), strange, doubtful, strict=True):
            named: list[Reason] = []
            if one > min(alone, other):
                named.append("unlike_training")
            if other > alone or other >= one:
                named.append("uncertain")
            result.append(() if accepted else tuple(named))
        return result

    def guarantee(self) -> str:
        """What the rule promises, and what breaks it, in words for its users."""
        if self.threshold < 0:
            return (
                f"Nothing is accepted: a risk of at most {self.target:.2%} could not be certified "
                f"on {self.n_calibration:,} pictures."
            )
        return (
            f"With {self.confidence:.0%} confidence, at most {self.target:.2%} of the accepted "
            f"answers are wrong, for pictures like these: {self.population} "
            f"(n = {self.n_calibration:,}). It does not hold for pictures of another kind, nor for "
            f"another number of draws than {self.n_draws}."
        )

    def to_dict(self) -> dict[str, Any]:
        """The rule as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ConformalRule:
    """Keep the labels whose probability is at least 1 - `threshold`.

    For a new picture like those of the calibration part, the set contains the true label with
    probability at least `coverage`.

    Attributes:
        coverage: Share of pictures whose set contains the true label.
        threshold: Largest kept value of 1 - probability.
        n_calibration: Number of pictures it was calibrated on.

    Source: Sadinle, Lei and Wasserman (2019), "Least Ambiguous Set-Valued Classifiers with Bounded
    Error Levels"; Angelopoulos and Bates (2021), "A Gentle Introduction to Conformal Prediction",
    section 1.
    """

    coverage: float
    threshold: float
    n_calibration: int

    def guarantee(self) -> str:
        """What the sets promise, and what breaks it, in words for their users."""
        return (
            f"A new picture's set holds the true label with probability at least "
            f"{self.coverage:.2%}, on average over pictures like the {self.n_calibration:,} of the "
            "calibration part. It says nothing of pictures of another kind, nor of one class alone."
        )

    def prediction_sets(self, probability: Floats) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Membership (B, C) of every label; the most probable label is always in.

        Args:
            probability: Predictive probabilities (B, C).
        """
        members = 1 - probability <= self.threshold
        members[np.arange(len(members)), probability.argmax(axis=1)] = True
        return members

    def to_dict(self) -> dict[str, Any]:
        """The rule as plain JSON values."""
        return asdict(self)


def uncertainty_score(summary: PredictiveSummary, score: Score) -> Floats:
    """The named uncertainty of each picture (B,); larger is less certain."""
    if score == "one_minus_max_probability":
        largest: Floats = summary.probability.max(axis=1)
        return 1 - largest
    if score == "one_minus_joint_probability":
        return 1 - summary.joint_probability
    values: Floats = getattr(summary, score)
    return values

"""Decision rules stored in a checkpoint: when to accept a prediction, which labels to keep.

Both are calibrated on data that the network was not fitted to (`training.calibration`). This
module only applies them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.types import SCORES, Floats, Reason, Score
from model.uncertainty import PredictiveSummary


@dataclass(frozen=True)
class SelectiveRule:
    """Selective classification: accept if the score is at most the threshold.

    With probability `confidence` over the calibration sample, at most a share `target` of the
    accepted predictions is wrong, for images like those of `population` and exactly `n_draws`
    draws.

    Attributes:
        score: The uncertainty that is thresholded.
        threshold: Largest accepted value of the score; negative if nothing can be accepted.
        target: Largest share of wrong predictions among the accepted.
        confidence: Probability with which the target holds.
        n_calibration: Number of calibration images.
        n_draws: Number of posterior draws used for calibration.
        population: Description of the calibration images.

    Raises:
        ValueError: If the score is not one of `SCORES`.
    """

    score: Score
    threshold: float
    target: float
    confidence: float
    n_calibration: int
    n_draws: int
    population: str

    def __post_init__(self) -> None:
        """Validate the score."""
        if self.score not in SCORES:
            raise ValueError(f"unknown score {self.score!r}; known are {', '.join(SCORES)}")

    def accepts(self, summary: PredictiveSummary) -> NDArray[np.bool_]:
        """Whether each image is accepted, (B,)."""
        return uncertainty_score(summary, self.score) <= self.threshold

    def reasons(self, summary: PredictiveSummary) -> list[tuple[Reason, ...]]:
        """Reasons why each image is not accepted; empty for an accepted one.

        The probability that "it is a digit, and it is that one" is wrong has two parts: it is not
        a digit (`unlike_training`), or it is another digit (`uncertain`). The larger part is a
        reason. So is the smaller one if it exceeds the threshold on its own.
        """
        not_a_digit = summary.not_a_digit
        another_digit = 1 - not_a_digit - summary.joint_probability
        joint = self.score == "one_minus_joint_probability" and self.threshold >= 0
        limit = self.threshold if joint else np.inf
        result: list[tuple[Reason, ...]] = []
        for accepted, none, other in zip(
            self.accepts(summary), not_a_digit, another_digit, strict=True
        ):
            reasons: list[Reason] = []
            if none > min(limit, other):
                reasons.append("unlike_training")
            if other > limit or other >= none:
                reasons.append("uncertain")
            result.append(() if accepted else tuple(reasons))
        return result

    def guarantee(self) -> str:
        """The rule's guarantee and its limits, as text for users."""
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


@dataclass(frozen=True)
class ConformalRule:
    """Conformal prediction sets: keep labels with a probability of at least 1 - `threshold`.

    For a new image like the calibration images, the set contains the true label with probability
    at least `coverage`.

    Attributes:
        coverage: Share of images whose set contains the true label.
        threshold: Largest kept value of 1 - probability.
        n_calibration: Number of calibration images.

    Source: Sadinle, Lei and Wasserman (2019), "Least Ambiguous Set-Valued Classifiers with Bounded
    Error Levels"; Angelopoulos and Bates (2021), "A Gentle Introduction to Conformal Prediction",
    section 1.
    """

    coverage: float
    threshold: float
    n_calibration: int

    def guarantee(self) -> str:
        """The sets' guarantee and its limits, as text for users."""
        return (
            f"A new picture's set holds the true label with probability at least "
            f"{self.coverage:.2%}, on average over pictures like the {self.n_calibration:,} of the "
            "calibration part. It says nothing of pictures of another kind, nor of one class alone."
        )

    def prediction_sets(self, probability: Floats) -> NDArray[np.bool_]:
        """Whether each label is in the set (B, C); the most probable label always is.

        Args:
            probability: Posterior predictive (B, C).
        """
        members = 1 - probability <= self.threshold
        members[np.arange(len(members)), probability.argmax(axis=1)] = True
        return members


def uncertainty_score(summary: PredictiveSummary, score: Score) -> Floats:
    """The named uncertainty of each image (B,); larger is less certain."""
    if score == "one_minus_max_probability":
        largest: Floats = summary.probability.max(axis=1)
        return 1 - largest
    if score == "one_minus_joint_probability":
        return 1 - summary.joint_probability
    values: Floats = getattr(summary, score)
    return values

"""What an evaluation found, and what follows from it for a report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import Checkpoint
from model.decision import uncertainty_score
from model.uncertainty import Floats
from training.evaluation.metrics import risk_coverage_curve
from training.evaluation.predictions import Answers
from training.evaluation.summary import accepted, ranking

__all__ = ["Evaluation"]

_MAIN = ("test", "calibration", "validation", "imitated")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One evaluation of one checkpoint.

    Attributes:
        checkpoint: The posterior, its rules and its provenance.
        version: `Checkpoint.version` for this number of draws.
        n_draws: Number of draws that all answers used.
        parts: Answers to the held-out parts that were asked, by `training.evaluate.PARTS`.
        foreign: Answers to sets of pictures that are none of the classes, by their names.
        figures: Everything that was measured, as plain JSON values.
    """

    checkpoint: Checkpoint
    version: str
    n_draws: int
    parts: Mapping[str, Answers]
    foreign: Mapping[str, Answers]
    figures: Mapping[str, Any]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in order."""
        return self.checkpoint.posterior.config.labels

    @property
    def main(self) -> Answers | None:
        """The part that figures are drawn of: the test pictures, if they were asked."""
        names = [name for name in (*_MAIN, *self.parts) if name in self.parts]
        return self.parts[names[0]] if names else None

    @property
    def main_name(self) -> str:
        """What that part is called; empty if there is none."""
        return next((name for name, part in self.parts.items() if part is self.main), "")

    def group(self, key: str) -> Mapping[str, Any]:
        """A mapping out of `figures`; empty if it is not there."""
        found = self.figures.get(key)
        return found if isinstance(found, Mapping) else {}

    def accepted(self, answers: Answers) -> NDArray[np.bool_]:
        """Which answers need no person (N,): the rule accepts them and the door found nothing."""
        return accepted(answers, self.checkpoint.selective)

    def certainty(self, answers: Answers) -> Floats:
        """Probability that it is a digit and is read rightly, as the answer itself says (N,)."""
        return answers.summary.joint_probability

    def curve(self, answers: Answers) -> tuple[Floats, Floats]:
        """Coverage and risk of a part, each (N,); what the door flags is answered last of all."""
        return risk_coverage_curve(ranking(answers, self.checkpoint.selective), answers.correct)

    def operating_point(self, answers: Answers) -> tuple[float, float]:
        """Share of a part that is accepted, and error rate among it, 0 if nothing is."""
        taken = self.accepted(answers)
        wrong = int((taken & ~answers.correct).sum())
        return float(taken.mean()), wrong / max(1, int(taken.sum()))

    def most_uncertain(self, answers: Answers, n: int) -> NDArray[np.intp]:
        """Indices of the n answers that the rule trusts least, the least first."""
        score = uncertainty_score(answers.summary, self.checkpoint.selective.score)
        return np.argsort(-score, kind="stable")[:n]

    def surest_wrong(self, answers: Answers, n: int) -> NDArray[np.intp]:
        """Indices of the n wrong answers, at most, that are surest of themselves."""
        certainty = np.where(answers.correct, -1.0, self.certainty(answers))
        return np.argsort(-certainty, kind="stable")[: min(n, int((~answers.correct).sum()))]

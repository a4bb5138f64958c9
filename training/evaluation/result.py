"""The result of an evaluation: predictions, their metrics, and what a report derives from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import Checkpoint
from model.decision import uncertainty_score
from model.types import Floats
from training.evaluation.intervals import IntervalMetrics
from training.evaluation.metrics import risk_coverage_curve
from training.evaluation.predictions import Predictions
from training.evaluation.robustness import CorruptionMetrics, RotationPoint
from training.evaluation.summary import OodMetrics, PartMetrics, SetMetrics, accepted, ranking_score

_MAIN_PART_ORDER = ("test", "calibration", "validation", "imitated")
# Keys that differ from the attribute: those of the checkpoint's metadata, a file format.
_JSON_KEYS = {"ood": "foreign", "ood_missing": "foreign_missing"}


@dataclass(frozen=True)
class EvaluationMetrics:
    """All metrics of one evaluation; None where a brief evaluation measures nothing.

    Attributes:
        parts: Metrics of the held-out parts, by name.
        sets_by_class: Metrics of the prediction sets of the test part, by true class.
        ood: Metrics of the out-of-distribution sets, by name.
        ood_missing: Names of the out-of-distribution sets that were not found.
        rotation: Metrics of rotated test digits, by angle.
        corruptions: Metrics of corrupted test digits, by kind.
        intervals: Metrics of the credible intervals.
    """

    parts: Mapping[str, PartMetrics]
    sets_by_class: Mapping[str, SetMetrics] | None = None
    ood: Mapping[str, OodMetrics] | None = None
    ood_missing: Sequence[str] | None = None
    rotation: Sequence[RotationPoint] | None = None
    corruptions: Mapping[str, CorruptionMetrics] | None = None
    intervals: IntervalMetrics | None = None

    def to_dict(self) -> dict[str, Any]:
        """The metrics as JSON values, without those that are None."""
        values: dict[str, Any] = as_json(self)
        return values


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One evaluation of one checkpoint.

    Attributes:
        checkpoint: The posterior, its rules and its provenance.
        version: `Checkpoint.version` for this number of draws.
        n_draws: Number of posterior draws of all predictions.
        parts: Predictions for the held-out parts, by names out of `PARTS`.
        ood: Predictions for the out-of-distribution sets, by name.
        metrics: The metrics of these predictions.
    """

    checkpoint: Checkpoint
    version: str
    n_draws: int
    parts: Mapping[str, Predictions]
    ood: Mapping[str, Predictions]
    metrics: EvaluationMetrics

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in order."""
        return self.checkpoint.posterior.config.labels

    @property
    def main_name(self) -> str:
        """Name of the part that figures show: `test` if it was evaluated; empty without parts."""
        names = (*_MAIN_PART_ORDER, *self.parts)
        return next((name for name in names if name in self.parts), "")

    @property
    def main(self) -> Predictions | None:
        """The predictions for that part."""
        return self.parts.get(self.main_name)

    def accepted(self, predictions: Predictions) -> NDArray[np.bool_]:
        """Which predictions are accepted (N,): by the rule, and not flagged by preprocessing."""
        return accepted(predictions, self.checkpoint.selective)

    def curve(self, predictions: Predictions) -> tuple[Floats, Floats]:
        """Coverage and risk, each (N,); flagged images rank last."""
        score = ranking_score(predictions, self.checkpoint.selective)
        return risk_coverage_curve(score, predictions.correct)

    def operating_point(self, predictions: Predictions) -> tuple[float, float]:
        """Share that is accepted, and the error rate among it, 0 if nothing is accepted."""
        taken = self.accepted(predictions)
        errors = self.n_errors_accepted(predictions)
        return float(taken.mean()), errors / max(1, int(taken.sum()))

    def n_errors(self, predictions: Predictions) -> int:
        """Number of wrong predictions."""
        return int((~predictions.correct).sum())

    def n_errors_accepted(self, predictions: Predictions) -> int:
        """Number of wrong predictions that are accepted."""
        return int((self.accepted(predictions) & ~predictions.correct).sum())

    def most_uncertain(self, predictions: Predictions, n: int) -> NDArray[np.intp]:
        """Indices of the n predictions with the largest score, the largest first."""
        score = uncertainty_score(predictions.summary, self.checkpoint.selective.score)
        return np.argsort(-score, kind="stable")[:n]

    def most_confident(self, predictions: Predictions, n: int) -> NDArray[np.intp]:
        """Indices of the n predictions with the largest joint probability, the largest first."""
        return np.argsort(-predictions.summary.joint_probability, kind="stable")[:n]

    def most_confident_errors(self, predictions: Predictions, n: int) -> NDArray[np.intp]:
        """Indices of the n errors, at most, with the largest joint probability."""
        confidence = np.where(predictions.correct, -1.0, predictions.summary.joint_probability)
        return np.argsort(-confidence, kind="stable")[: min(n, self.n_errors(predictions))]


def as_json(value: Any) -> Any:
    """Nested dataclasses as JSON values, without attributes that are None."""
    if is_dataclass(value):
        items = {field.name: getattr(value, field.name) for field in fields(value)}
        return {
            _JSON_KEYS.get(name, name): as_json(item)
            for name, item in items.items()
            if item is not None
        }
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value

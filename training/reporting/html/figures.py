"""Figures of a report as PNG data URLs."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from PIL import Image

from model.types import Floats
from training.evaluation.predictions import Predictions
from training.evaluation.result import Evaluation
from training.reporting.columns import spaced
from training.reporting.plots import (
    plot_confidence,
    plot_confusion,
    plot_corruptions,
    plot_entropy,
    plot_prediction_grid,
    plot_reliability,
    plot_risk_coverage,
    plot_rotation,
    plot_training,
)

DPI = 160  # of figures 8 inches wide, shown 900 px wide: sharp on high-density screens
_SHOWN_DPI = 112.5
_COLOURS = 160

Values = Callable[[Predictions], Floats]


@dataclass(frozen=True)
class EmbeddedFigure:
    """A figure as a data URL, with its size in CSS pixels."""

    source: str
    width: int
    height: int


@dataclass(frozen=True)
class ReportFigures:
    """Draws the figures of a report as its template asks for them.

    Attributes:
        evaluation: What to draw. Methods that draw predictions need at least one part.
    """

    evaluation: Evaluation

    def confusion(self) -> EmbeddedFigure:
        """Confusion matrix of the main part."""
        main = self._main()
        top = main.summary.probability.argmax(axis=1)
        return embed(plot_confusion(main.true_labels, top, self.evaluation.labels))

    def top_probability(self) -> EmbeddedFigure:
        """Histograms of the mean probability of the top class."""
        threshold = self._threshold("one_minus_max_probability")
        return self._confidence(
            lambda part: part.summary.probability.max(axis=1),
            label="mean probability of the most probable class",
            title="Confidence in the class",
            threshold=None if threshold is None else 1 - threshold,
        )

    def joint_probability(self) -> EmbeddedFigure:
        """Histograms of the mean probability of "a digit of the top class"."""
        threshold = self._threshold("one_minus_joint_probability")
        return self._confidence(
            lambda part: part.summary.joint_probability,
            label="mean probability of “a digit of the most probable class”",
            title="Confidence in a digit of the class",
            threshold=None if threshold is None else 1 - threshold,
        )

    def not_a_digit(self) -> EmbeddedFigure:
        """Histograms of the mean probability of not being a digit."""
        return self._confidence(
            lambda part: part.summary.not_a_digit,
            label="mean probability of “not a digit”",
            title="Probability of “not a digit”",
        )

    def entropy(self, name: str) -> EmbeddedFigure:
        """Histograms of an entropy or of the mutual information, by its attribute's name."""
        right, wrong, ood = self._split(lambda part: getattr(part.summary, name))
        figure = plot_entropy(
            right,
            wrong,
            ood,
            len(self.evaluation.labels),
            label=spaced(name),
            threshold=self._threshold(name),
        )
        return embed(figure)

    def risk_coverage(self) -> EmbeddedFigure:
        """Risk-coverage curves of all parts, and the operating point of the rule."""
        figure = plot_risk_coverage(
            {name: self.evaluation.curve(part) for name, part in self.evaluation.parts.items()},
            chosen=self.evaluation.operating_point(self._main()),
            target=self.evaluation.checkpoint.selective.target,
        )
        return embed(figure)

    def reliability(self, predictions: Predictions) -> EmbeddedFigure:
        """Reliability diagram of one part."""
        return embed(plot_reliability(predictions.summary.probability, predictions.true_labels))

    def rotation(self, fitted_deg: float | None) -> EmbeddedFigure:
        """Metrics of rotated digits; the rotations of training are shaded."""
        return embed(plot_rotation(self.evaluation.metrics.rotation or (), fitted_deg=fitted_deg))

    def corruptions(self) -> EmbeddedFigure:
        """Error rates on corrupted digits."""
        return embed(plot_corruptions(self.evaluation.metrics.corruptions or {}))

    def examples(self, predictions: Predictions, which: Sequence[int]) -> EmbeddedFigure:
        """The images with these indices, their predictions and whether they are accepted."""
        figure = plot_prediction_grid(
            predictions,
            which,
            self.evaluation.labels,
            accepted=self.evaluation.accepted(predictions),
        )
        return embed(figure)

    def training(self) -> EmbeddedFigure:
        """Training curves."""
        return embed(plot_training(self.evaluation.checkpoint.training["epochs"]))

    def _main(self) -> Predictions:
        if self.evaluation.main is None:
            raise ValueError("there are no predictions to draw")
        return self.evaluation.main

    def _threshold(self, score: str) -> float | None:
        """The rule's threshold if it uses this score and accepts anything."""
        rule = self.evaluation.checkpoint.selective
        return rule.threshold if rule.score == score and rule.threshold >= 0 else None

    def _split(self, values: Values) -> tuple[Floats, Floats, dict[str, Floats]]:
        """Values of the main part's correct and wrong predictions, and of each OOD set."""
        main = self._main()
        found, ood = values(main), self.evaluation.ood.items()
        sets = {name: values(part) for name, part in ood if len(part)}
        return found[main.correct], found[~main.correct], sets

    def _confidence(
        self, values: Values, *, label: str, title: str, threshold: float | None = None
    ) -> EmbeddedFigure:
        right, wrong, ood = self._split(values)
        return embed(
            plot_confidence(right, wrong, ood, label=label, title=title, threshold=threshold)
        )


def embed(figure: Figure) -> EmbeddedFigure:
    """Encode a figure as a PNG of few colours, on white."""
    buffer, small = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    image = Image.open(buffer).convert("RGB")
    few = image.quantize(_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(small, "PNG", optimize=True)
    data, scale = base64.b64encode(small.getvalue()).decode(), _SHOWN_DPI / DPI
    return EmbeddedFigure(
        f"data:image/png;base64,{data}", round(image.width * scale), round(image.height * scale)
    )

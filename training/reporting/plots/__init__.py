"""Pictures people would rather look at than read. Functions return figures; nothing is shown."""

from training.reporting.plots.answers import draw_bars, plot_answers, plot_digit_answers, plot_door
from training.reporting.plots.errors import plot_confusion, plot_corruptions, plot_rotation
from training.reporting.plots.fit import plot_training
from training.reporting.plots.uncertainty import (
    plot_confidence,
    plot_entropy,
    plot_reliability,
    plot_risk_coverage,
)

__all__ = [
    "draw_bars",
    "plot_answers",
    "plot_confidence",
    "plot_confusion",
    "plot_corruptions",
    "plot_digit_answers",
    "plot_door",
    "plot_entropy",
    "plot_reliability",
    "plot_risk_coverage",
    "plot_rotation",
    "plot_training",
]

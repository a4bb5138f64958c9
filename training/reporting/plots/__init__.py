"""Figures of predictions and metrics; each function returns a Matplotlib figure."""

from training.reporting.plots.errors import plot_confusion, plot_corruptions, plot_rotation
from training.reporting.plots.fit import plot_training
from training.reporting.plots.predictions import (
    draw_prediction,
    plot_prediction_grid,
    plot_predictions,
    plot_preprocessing,
)
from training.reporting.plots.uncertainty import (
    plot_confidence,
    plot_entropy,
    plot_reliability,
    plot_risk_coverage,
)

__all__ = [
    "draw_prediction",
    "plot_confidence",
    "plot_confusion",
    "plot_corruptions",
    "plot_entropy",
    "plot_prediction_grid",
    "plot_predictions",
    "plot_preprocessing",
    "plot_reliability",
    "plot_risk_coverage",
    "plot_rotation",
    "plot_training",
]

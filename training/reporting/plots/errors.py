"""Confusion matrix, and errors on rotated and corrupted digits."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from training.evaluation.robustness import CorruptionMetrics, RotationPoint
from training.reporting.plots.drawing import (
    ACCEPTED,
    FAINT,
    INK,
    RIGHT,
    WRONG,
    legend_beside,
    literal,
    new_figure,
    tidy,
)

_SHARES = (
    ("error", "error rate", WRONG, "-", "o"),
    ("accepted", "accepted", ACCEPTED, "--", "s"),
    ("not_a_digit", "probability of “not a digit”", "#b0478a", ":", "^"),
)
_NATS = (
    ("predictive_entropy", "predictive entropy", RIGHT, "-", "o"),
    ("mutual_information", "mutual information", INK, "--", "s"),
)


def plot_confusion(
    labels_true: NDArray[np.int64], predicted: NDArray[np.int64], labels: Sequence[str]
) -> Figure:
    """Confusion matrix of counts; only errors are coloured.

    Args:
        labels_true: True classes (N,), as indices.
        predicted: Most probable classes (N,).
        labels: Names of the C classes.

    Returns:
        A figure 8 inches wide: a row for each true class, with its error rate beside it.
    """
    n_classes = len(labels)
    counts = np.bincount(labels_true * n_classes + predicted, minlength=n_classes**2)
    counts = counts.reshape(n_classes, n_classes)
    wrong = np.where(np.eye(n_classes, dtype=bool), 0, counts)
    n_wrong, totals = int(wrong.sum()), counts.sum(axis=1)

    figure = new_figure(0.52 * n_classes + 1.2)
    axes = figure.subplots()
    norm = PowerNorm(0.6, vmin=0, vmax=max(8, wrong.max(initial=1)))
    axes.imshow(wrong, cmap="Oranges", norm=norm, aspect="auto")
    for true in range(n_classes):
        axes.add_patch(_cell(true, true))
        for read in range(n_classes):
            _write_count(axes, true, read, int(counts[true, read]), norm(wrong[true, read]))
    names = [literal(label) for label in labels]
    axes.set_xticks(range(n_classes), names)
    axes.set_yticks(range(n_classes), names)
    rates = axes.secondary_yaxis("right")
    shares = 100 * wrong.sum(axis=1) / np.maximum(totals, 1)
    rates.set_yticks(range(n_classes), [f"{share:.1f} %" for share in shares], fontsize=9)
    rates.set_ylabel("error rate of this digit", fontsize=10)
    rates.tick_params(length=0)
    title = f"Confusion matrix: {n_wrong:,} of {len(labels_true):,} predictions are wrong"
    tidy(axes, title=title, x="prediction", y="true digit")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    rates.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def plot_rotation(sweep: Sequence[RotationPoint], *, fitted_deg: float | None = None) -> Figure:
    """Metrics of rotated digits: shares above, uncertainty below.

    Args:
        sweep: The metrics at each angle. `accepted` is left out if it is None, and `not_a_digit` if
            it is 0 throughout, as for a network without such an output.
        fitted_deg: Largest rotation, to either side, of the training images; shaded.

    Returns:
        A figure 8 inches wide.
    """
    points = sorted(sweep, key=lambda point: point.angle_deg)
    angles = [point.angle_deg for point in points]
    figure = new_figure(5.4)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, curves, factor in ((upper, _SHARES, 100), (lower, _NATS, 1)):
        for key, name, colour, style, marker in curves:
            values = [getattr(point, key) for point in points]
            if None not in values and (any(values) or key != "not_a_digit"):
                axes.plot(
                    angles, [factor * value for value in values], color=colour, linestyle=style,
                    marker=marker, markersize=4.5, linewidth=1.8, label=name,
                )  # fmt: skip
        if fitted_deg is not None:
            label = f"rotations in training (±{fitted_deg:g}°)" if axes is upper else ""
            axes.axvspan(-fitted_deg, fitted_deg, color="#e3e3e3", zorder=0, label=label)
        legend_beside(axes)
    upper.set_ylim(-2, 102)
    lower.xaxis.set_major_locator(MaxNLocator(steps=[1, 1.5, 3, 4.5, 9, 10]))
    figure.align_ylabels()
    lower.set_ylim(bottom=0)
    if angles:
        margin = 0.02 * (angles[-1] - angles[0]) or 1
        lower.set_xlim(angles[0] - margin, angles[-1] + margin)
    tidy(upper, title="Rotated digits: errors and accepted share", y="% of the images")
    tidy(lower, title="Uncertainty", x="rotated by (degrees)", y="mean (nats)")
    return figure


def plot_corruptions(metrics: Mapping[str, CorruptionMetrics]) -> Figure:
    """Error rate on corrupted digits: of all predictions, and of the accepted ones alone.

    Args:
        metrics: The metrics of each kind of corruption.

    Returns:
        A figure 8 inches wide, the worst kind on top.
    """
    kinds = sorted(metrics, key=lambda kind: metrics[kind].error)
    figure = new_figure(0.48 * max(1, len(kinds)) + 1.3)
    axes = figure.subplots()
    places = np.arange(len(kinds))
    every = [100 * metrics[kind].error for kind in kinds]
    taken = [100 * _error_accepted(metrics[kind]) for kind in kinds]
    axes.barh(places + 0.19, every, 0.36, color=WRONG, label="all predictions")
    axes.barh(
        places - 0.19, np.nan_to_num(taken), 0.36, color=ACCEPTED, hatch="//////",
        edgecolor="white", label="accepted predictions alone",
    )  # fmt: skip
    for place, kind, before, after in zip(places, kinds, every, taken, strict=True):
        share = f"the {100 * metrics[kind].accepted:.0f} % accepted"
        words = "none accepted" if np.isnan(after) else f"{after:.2f} % of {share}"
        _write_beside(axes, before, place + 0.19, f"{before:.2f} %")
        _write_beside(axes, float(np.nan_to_num(after)), place - 0.19, words)
    axes.set_yticks(places, [literal(kind.replace("_", " ")) for kind in kinds])
    axes.set_xlim(0, 1.3 * max([1.0, *every, *np.nan_to_num(taken)]))
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    tidy(axes, title="Corrupted digits: errors without and with review", grid="x",
         x="error rate (%)")  # fmt: skip
    return figure


def _cell(row: int, column: int) -> Rectangle:
    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="#eeeeee", edgecolor="white")


def _write_count(axes: Axes, row: int, column: int, count: int, shade: float) -> None:
    """Write a count into its cell, white on a dark cell; nothing if it is 0."""
    colour = FAINT if row == column else "white" if shade > 0.6 else INK
    weight = "normal" if row == column else "bold"
    axes.text(
        column, row, f"{count:,}" if count else "", ha="center", va="center",
        color=colour, fontsize=9, fontweight=weight,
    )  # fmt: skip


def _write_beside(axes: Axes, x: float, y: float, words: str) -> None:
    axes.annotate(
        words, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8, color=INK
    )


def _error_accepted(metrics: CorruptionMetrics) -> float:
    """Error rate among the accepted; NaN if nothing is accepted."""
    n_accepted = round(metrics.n * metrics.accepted)
    return metrics.errors_accepted / n_accepted if n_accepted else math.nan

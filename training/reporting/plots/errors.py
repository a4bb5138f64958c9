"""Where answers go wrong: between which classes, and as pictures are turned or spoiled."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from training.reporting.plots.drawing import (
    ACCEPTED,
    FAINT,
    INK,
    RIGHT,
    WRONG,
    legend_beside,
    new_figure,
    plain,
    tidy,
)

__all__ = ["plot_confusion", "plot_corruptions", "plot_rotation"]

_SHARES = (
    ("error", "wrong", WRONG, "-", "o"),
    ("accepted", "accepted", ACCEPTED, "--", "s"),
    ("not_a_digit", "probability of “no digit”", "#b0478a", ":", "^"),
)
_NATS = (
    ("predictive_entropy", "predictive entropy", RIGHT, "-", "o"),
    ("mutual_information", "mutual information", INK, "--", "s"),
)


def plot_confusion(
    labels_true: NDArray[np.int64], predicted: NDArray[np.int64], labels: Sequence[str]
) -> Figure:
    """Which classes are taken for which: counts, coloured only where the answer is wrong.

    Args:
        labels_true: True classes (N,), as indices.
        predicted: Most probable classes (N,).
        labels: Names of the C classes.

    Returns:
        A figure 8 inches wide: a row for each true class, and beside it the share of it that is
        read wrongly.
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
    names = [plain(label) for label in labels]
    axes.set_xticks(range(n_classes), names)
    axes.set_yticks(range(n_classes), names)
    rates = axes.secondary_yaxis("right")
    shares = 100 * wrong.sum(axis=1) / np.maximum(totals, 1)
    rates.set_yticks(range(n_classes), [f"{share:.1f} %" for share in shares], fontsize=9)
    rates.set_ylabel("of this digit read wrongly", fontsize=10)
    rates.tick_params(length=0)
    title = f"Which digit is taken for which: {n_wrong:,} of {len(labels_true):,} answers are wrong"
    tidy(axes, title=title, x="read as", y="true digit")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    rates.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def plot_rotation(sweep: Sequence[Mapping[str, Any]], *, fitted_deg: float | None = None) -> Figure:
    """What becomes of the answers as digits are turned: shares above, uncertainty below.

    Args:
        sweep: For each angle a mapping with `angle_deg` and any of `error`, `accepted`,
            `not_a_digit` (shares in [0, 1]), `predictive_entropy` and `mutual_information` (nats).
            A `not_a_digit` that is 0 throughout is that of a network without such an output.
        fitted_deg: Largest angle, to either side, that pictures were turned by to fit; shaded.

    Returns:
        A figure 8 inches wide.
    """
    points = sorted(sweep, key=lambda point: float(point["angle_deg"]))
    figure = new_figure(5.4)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, curves, factor in ((upper, _SHARES, 100), (lower, _NATS, 1)):
        for key, name, colour, style, marker in curves:
            known = [point for point in points if point.get(key) is not None]
            if any(point[key] for point in known) or (known and key != "not_a_digit"):
                angles = [point["angle_deg"] for point in known]
                values = [factor * point[key] for point in known]
                axes.plot(
                    angles, values, color=colour, linestyle=style, marker=marker, markersize=4.5,
                    linewidth=1.8, label=name,
                )  # fmt: skip
        if fitted_deg is not None:
            label = f"turns met in training (±{fitted_deg:g}°)" if axes is upper else ""
            axes.axvspan(-fitted_deg, fitted_deg, color="#e3e3e3", zorder=0, label=label)
        legend_beside(axes)
    upper.set_ylim(-2, 102)
    lower.xaxis.set_major_locator(MaxNLocator(steps=[1, 1.5, 3, 4.5, 9, 10]))
    figure.align_ylabels()
    lower.set_ylim(bottom=0)
    if points:
        angles = [float(point["angle_deg"]) for point in points]
        margin = 0.02 * (angles[-1] - angles[0]) or 1
        lower.set_xlim(angles[0] - margin, angles[-1] + margin)
    tidy(upper, title="Digits turned: wrong, and noticed?", y="% of the pictures")
    tidy(lower, title="How uncertain", x="turned by (degrees)", y="mean (nats)")
    return figure


def plot_corruptions(figures: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Error on spoiled digits: of all answers, and of the accepted ones alone.

    Args:
        figures: For each kind of corruption `error` and `accepted`, shares in [0, 1], and either
            `error_accepted`, the error rate of the accepted, or `n` and `errors_accepted`, counts.

    Returns:
        A figure 8 inches wide, the worst kind on top.
    """
    kinds = sorted(figures, key=lambda kind: float(figures[kind]["error"]))
    figure = new_figure(0.48 * max(1, len(kinds)) + 1.3)
    axes = figure.subplots()
    places = np.arange(len(kinds))
    every = [100 * float(figures[kind]["error"]) for kind in kinds]
    taken = [100 * _error_accepted(figures[kind]) for kind in kinds]
    axes.barh(places + 0.19, every, 0.36, color=WRONG, label="all answers")
    axes.barh(
        places - 0.19, np.nan_to_num(taken), 0.36, color=ACCEPTED, hatch="//////",
        edgecolor="white", label="accepted answers alone",
    )  # fmt: skip
    for place, kind, before, after in zip(places, kinds, every, taken, strict=True):
        share = f"the {100 * float(figures[kind]['accepted']):.0f} % accepted"
        words = "none accepted" if np.isnan(after) else f"{after:.2f} % of {share}"
        _write_beside(axes, before, place + 0.19, f"{before:.2f} %")
        _write_beside(axes, float(np.nan_to_num(after)), place - 0.19, words)
    axes.set_yticks(places, [plain(kind.replace("_", " ")) for kind in kinds])
    axes.set_xlim(0, 1.3 * max([1.0, *every, *np.nan_to_num(taken)]))
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    tidy(axes, title="Spoiled digits: wrong before and after asking a person", grid="x",
         x="wrong (%)")  # fmt: skip
    return figure


def _cell(row: int, column: int) -> Rectangle:
    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="#eeeeee", edgecolor="white")


def _write_count(axes: Axes, row: int, column: int, count: int, shade: float) -> None:
    """A count in its cell; nothing where there is none, and white where the cell is dark."""
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


def _error_accepted(values: Mapping[str, Any]) -> float:
    """Error rate among the accepted; NaN if it is not known or nothing was accepted."""
    if values.get("error_accepted") is not None:
        return float(values["error_accepted"])
    if values.get("errors_accepted") is None or not values.get("n"):
        return math.nan
    n_accepted = round(float(values["n"]) * float(values["accepted"]))
    return float(values["errors_accepted"]) / n_accepted if n_accepted else math.nan

"""Histograms of confidence and entropy, reliability diagram, risk-coverage curves."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import beta

from model.types import Floats
from training.evaluation.metrics import calibration_error, confidence_bins
from training.reporting.plots.drawing import (
    FAINT,
    INK,
    RIGHT,
    STROKES,
    WRONG,
    LineStyle,
    legend_beside,
    literal,
    log_scale,
    new_figure,
    tidy,
)

_LEVEL = 0.95


def plot_confidence(
    right: Floats,
    wrong: Floats,
    ood: Mapping[str, Floats],
    *,
    label: str = "mean probability of the most probable class",
    title: str = "Confidence",
    threshold: float | None = None,
    n_bins: int = 30,
) -> Figure:
    """Histograms of a probability: correct against wrong, digits against out-of-distribution sets.

    Counts and shares are logarithmic, so that a few errors are visible.

    Args:
        right: The probability of each correct prediction, in [0, 1].
        wrong: The same for each wrong prediction.
        ood: The same for out-of-distribution sets, by name; without any, the lower panel is left
            out.
        label: Name of the probability.
        title: Title of the figure.
        threshold: Least accepted probability, to be marked.
        n_bins: Number of bins of equal width.

    Returns:
        A figure 8 inches wide.
    """
    return _plot_distributions(
        np.linspace(0, 1, n_bins + 1), right, wrong, ood,
        title=title, label=label, threshold=threshold, accepts="from",
    )  # fmt: skip


def plot_entropy(
    right: Floats,
    wrong: Floats,
    ood: Mapping[str, Floats],
    n_classes: int = 10,
    *,
    label: str = "predictive entropy",
    title: str = "",
    threshold: float | None = None,
    n_bins: int = 30,
) -> Figure:
    """Histograms of an entropy: correct against wrong, digits against out-of-distribution sets.

    Args:
        right: The entropy of each correct prediction, in [0, ln C] nats.
        wrong: The same for each wrong prediction.
        ood: The same for out-of-distribution sets, by name; without any, the lower panel is left
            out.
        n_classes: C.
        label: Predictive entropy, expected entropy or mutual information.
        title: Title of the figure; made from the label if empty.
        threshold: Largest accepted value, to be marked.
        n_bins: Number of bins of equal width.

    Returns:
        A figure 8 inches wide.
    """
    most = math.log(n_classes)
    largest = max(values.max(initial=0) for values in (right, wrong, *ood.values()))
    # Mutual information stays far below ln C: its axis ends near the largest value.
    end = most if largest > most / 2 else max(0.1, math.ceil(10 * largest) / 10)
    return _plot_distributions(
        np.linspace(0, end, n_bins + 1), right, wrong, ood,
        title=title or label[:1].upper() + label[1:],
        label=f"{label} (nats; at most ln {n_classes} = {most:.2f})",
        threshold=threshold, accepts="up to",
    )  # fmt: skip


def plot_reliability(probability: Floats, labels: NDArray[np.int64], n_bins: int = 15) -> Figure:
    """Reliability diagram: accuracy by confidence, and the number of predictions.

    Each bin's whisker is the exact 95 % binomial interval of its accuracy.

    Args:
        probability: Predictive probabilities (N, C).
        labels: True classes (N,).
        n_bins: Number of bins of equal width.

    Returns:
        A figure 8 inches wide; its title holds the calibration error.

    Source: Guo et al. (2017), "On Calibration of Modern Neural Networks"; Clopper and Pearson
    (1934), "The use of confidence or fiducial limits illustrated in the case of the binomial".
    """
    confidence = probability.max(axis=1)
    right = probability.argmax(axis=1) == labels
    edges = np.linspace(0, 1, n_bins + 1)
    bins = confidence_bins(probability, n_bins)
    counts, n_right, total = (
        np.bincount(bins, weights, n_bins).astype(np.float64)
        for weights in (None, right, confidence)
    )
    some = counts > 0
    n, k = counts[some], n_right[some]
    share, mean = k / n, total[some] / n
    low, high = _binomial_interval(k, n)

    figure = new_figure(5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    upper.plot([0, 1], [0, 1], color=FAINT, linestyle="--", label="perfectly calibrated")
    upper.errorbar(
        mean, share, (share - low, high - share),
        fmt="o", color=RIGHT, capsize=3, label=f"a bin, {100 * _LEVEL:.0f} % interval",
    )  # fmt: skip
    upper.text(0.03, 0.93, "underconfident", color=FAINT, fontsize=9, va="top")
    upper.text(0.97, 0.07, "overconfident", color=FAINT, fontsize=9, ha="right")
    upper.set(xlim=(0, 1.01), ylim=(-0.03, 1.03))
    legend_beside(upper)
    error = calibration_error(probability, labels, n_bins)
    title = f"Calibration error {100 * error:.2f} % ({n_bins} bins, {len(labels):,} predictions)"
    tidy(upper, title=title, y="accuracy", grid="both")
    lower.bar(edges[:-1], counts, width=1 / n_bins, align="edge", color=RIGHT, edgecolor="white")
    log_scale(lower, 0.5, 2 * counts.max(initial=1))
    tidy(lower, x="confidence: probability of the most probable class", y="predictions (log)")
    return figure


def plot_risk_coverage(
    curves: Mapping[str, tuple[Floats, Floats]],
    *,
    chosen: tuple[float, float] | None = None,
    target: float | None = None,
) -> Figure:
    """Risk-coverage curves: error rate among the accepted, against the share that is accepted.

    The error rate is logarithmic; a curve begins at its first error. So does the axis of coverage.

    Args:
        curves: By name, the coverage (K,) in (0, 1], increasing, and the error rate (K,) in [0, 1].
        chosen: Coverage and error rate of the decision rule.
        target: Largest error rate that the rule guarantees.

    Returns:
        A figure 8 inches wide.
    """
    figure = new_figure(4.2)
    axes = figure.subplots()
    for (name, (coverage, risk)), (colour, style) in zip(
        curves.items(), _strokes(len(curves)), strict=True
    ):
        shown = np.where(risk > 0, 100 * risk, np.nan)
        axes.plot(100 * coverage, shown, color=colour, linestyle=style, lw=1.8, label=literal(name))
    if target is not None:
        label = f"guaranteed: {100 * target:g} %"
        axes.axhline(100 * target, color=FAINT, linestyle=(0, (2, 2)), label=label)
    axes.set_xlim(_first_errors(curves, chosen), 100.5)
    _fit_risks(axes, curves, target)
    if chosen is not None:
        _mark_chosen(axes, *chosen)
    legend_beside(axes)
    tidy(
        axes, title="Risk and coverage", x="coverage: accepted (% of the images)",
        y="risk: errors among the accepted (%)", grid="both",
    )  # fmt: skip
    return figure


def _plot_distributions(
    edges: Floats, right: Floats, wrong: Floats, ood: Mapping[str, Floats], *,
    title: str, label: str, threshold: float | None, accepts: str,
) -> Figure:  # fmt: skip
    figure = new_figure(5.6 if ood else 3.2)
    panels = figure.subplots(2 if ood else 1, 1, sharex=True, squeeze=False)[:, 0]
    if threshold is not None:
        for panel in panels:
            words = f"accepted {accepts} {threshold:.3g}" if panel is panels[0] else ""
            panel.axvline(threshold, color=INK, ls=(0, (4, 2)), lw=1.2, zorder=3, label=words)
    most = 1
    for values, colour, hatch, name in (
        (right, RIGHT, "", "correct"),
        (wrong, WRONG, "//////", "wrong"),
    ):
        counts = _histogram(values, edges)
        panels[0].bar(
            edges[:-1], counts, width=np.diff(edges), align="edge", color=colour, hatch=hatch,
            edgecolor="white", linewidth=0.4, label=f"{name} ({len(values):,})",
        )  # fmt: skip
        most = max(most, int(counts.max()))
    log_scale(panels[0], 0.5, 2 * most)
    tidy(panels[0], title=f"{title}: correct and wrong predictions", y="predictions (log)")
    legend_beside(panels[0])
    if ood:
        _draw_shares(panels[1], edges, np.concatenate([right, wrong]), ood)
        tidy(panels[1], title="Digits and out-of-distribution images", y="% of the set (log)")
        legend_beside(panels[1])
    panels[-1].set_xlabel(literal(label), fontsize=10)
    panels[-1].set_xlim(edges[0], edges[-1])
    figure.align_ylabels()
    return figure


def _draw_shares(axes: Axes, edges: Floats, digits: Floats, ood: Mapping[str, Floats]) -> None:
    """Draw the digits as a filled outline, each out-of-distribution set as a line."""
    least = 100.0
    sets: list[tuple[str, Floats, str, LineStyle]] = [("digits", digits, RIGHT, "-")]
    sets += [
        (name, values, colour, style)
        for (name, values), (colour, style) in zip(ood.items(), _strokes(len(ood)), strict=True)
    ]
    for name, values, colour, style in sets:
        share = 100 * _histogram(values, edges) / max(1, len(values))
        fill = name == "digits" and values is digits
        axes.stairs(
            share, edges, color=colour, linestyle=style, linewidth=1.0 if fill else 1.8,
            fill=fill, alpha=0.35 if fill else 1.0, baseline=0,
            label=literal(f"{name} ({len(values):,})"),
        )  # fmt: skip
        least = min(least, share[share > 0].min(initial=least))
    log_scale(axes, least / 2, 160)


def _histogram(values: Floats, edges: Floats) -> NDArray[np.int64]:
    """Counts; values beyond the edges by rounding fall into the outer bins."""
    counts: NDArray[np.int64] = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    return counts


def _mark_chosen(axes: Axes, coverage: float, risk: float) -> None:
    """Mark the rule with a star; on the axis itself if it accepts no error."""
    x, y = 100 * coverage, 100 * risk
    words = f"rule: {x:.1f} % accepted, {y:.2g} % of them wrong"
    if risk == 0:
        y, words = axes.get_ylim()[0], f"rule: {x:.1f} % accepted, none wrong"
    axes.plot(
        [x], [y], marker="*", markersize=14, color=INK, linestyle="none", clip_on=False,
        zorder=5, label="decision rule",
    )  # fmt: skip
    left = x > sum(axes.get_xlim()) / 2
    axes.annotate(
        words, (x, y), xytext=(-10 if left else 10, 4), textcoords="offset points",
        ha="right" if left else "left", va="bottom", fontsize=9, color=INK,
    )  # fmt: skip


def _first_errors(
    curves: Mapping[str, tuple[Floats, Floats]], chosen: tuple[float, float] | None
) -> float:
    """Coverage in percent, a multiple of ten, below which hardly any curve has errors."""
    starts = [100.0 if chosen is None else 100 * chosen[0]]
    for coverage, risk in curves.values():
        errors = coverage * risk  # of all images
        if len(errors) and errors[-1] > 0:
            starts.append(100 * coverage[int((errors >= 0.05 * errors[-1]).argmax())])
    return min(90.0, max(0.0, 10 * math.floor(min(starts) / 10 - 0.2)))


def _fit_risks(
    axes: Axes, curves: Mapping[str, tuple[Floats, Floats]], target: float | None
) -> None:
    """Fit the axis to the shown coverage: a first error alone has a risk of 100 %."""
    start = axes.get_xlim()[0] / 100
    shown = np.concatenate(
        [risk[(coverage >= start) & (risk > 0)] for coverage, risk in curves.values()]
        + [np.array([] if target is None else [target])]
    )
    if len(shown):
        log_scale(axes, 100 * shown.min() / 1.6, 100 * shown.max() * 1.6)
    else:
        axes.set_ylim(0, 1)


def _strokes(n: int) -> list[tuple[str, LineStyle]]:
    return [STROKES[i % len(STROKES)] for i in range(n)]


def _binomial_interval(k: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Exact Clopper-Pearson interval of k of n."""
    tail = (1 - _LEVEL) / 2
    with np.errstate(invalid="ignore"):  # at 0 of n and n of n
        low = np.where(k > 0, beta.ppf(tail, k, n - k + 1), 0.0)
        high = np.where(k < n, beta.ppf(1 - tail, k + 1, n - k), 1.0)
    return low, high

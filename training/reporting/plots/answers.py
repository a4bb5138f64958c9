"""Figures of single answers: what was sent, what the network saw, and the bars of its answer."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from model.classifier import Prediction
from model.preprocessing.normalize import DigitImage
from training.evaluation.predictions import Answers
from training.reporting.plots.drawing import (
    ACCEPTED,
    FAINT,
    INK,
    REVIEW,
    RIGHT,
    draw_means,
    new_figure,
    plain,
)

__all__ = ["draw_bars", "plot_answers", "plot_digit_answers", "plot_door"]

_GAP = 0.8  # between the last class and what is none


def plot_answers(pictures: Sequence[Image.Image], answers: Sequence[Prediction]) -> Figure:
    """A row for each picture: as sent, as the network saw it, and its ten bars with intervals.

    Args:
        pictures: The pictures as they were sent.
        answers: The answer for each.

    Returns:
        A figure of two inches' height per row.
    """
    figure = new_figure(2.0 * len(answers))
    axes = figure.subplots(
        len(answers), 3, squeeze=False, gridspec_kw={"width_ratios": [1, 1, 3.4]}
    )
    for row, picture, answer in zip(axes, pictures, answers, strict=True):
        sent, seen, bars = row
        sent.imshow(np.asarray(picture.convert("RGB")))
        seen.imshow(answer.pixels, cmap="gray", vmin=0, vmax=255)
        for panel in (sent, seen):
            panel.set_xticks([])
            panel.set_yticks([])
        draw_bars(bars, answer)
    axes[0, 0].set_title("the picture sent", fontsize=9)
    axes[0, 1].set_title("what the network sees", fontsize=9)
    axes[-1, 2].set_xlabel("digit", fontsize=9)
    return figure


def plot_digit_answers(
    answers: Answers,
    which: Sequence[int] | NDArray[np.integer],
    labels: Sequence[str],
    *,
    accepted: NDArray[np.bool_] | None = None,
    title: str = "",
    columns: int = 3,
) -> Figure:
    """What the network saw of some pictures, and beside each its bars with credible intervals.

    The bar of the true class is hatched. If the network tells what is no digit, one more bar, after
    those of the digits, says how probable that is; the others are given that it is a digit.

    Args:
        answers: A set of pictures and their answers.
        which: Indices of those to show, in this order.
        labels: Names of the classes, in the order of the probabilities.
        accepted: Which answers of the whole set were accepted (N,), to be said with each; nothing
            is said if None.
        title: What the pictures have in common.
        columns: Pictures in a row.

    Returns:
        A figure 8 inches wide.
    """
    n_rows = max(1, -(-len(which) // columns))
    figure = new_figure(1.5 * n_rows + 0.7)
    cells = figure.subfigures(n_rows, columns, squeeze=False).flatten()
    for cell, index in zip(cells, which, strict=False):
        seen, bars = cell.subplots(1, 2, width_ratios=[1, 1.6])
        seen.imshow(answers.pixels[index], cmap="gray", vmin=0, vmax=255)
        seen.set_axis_off()
        colour = INK if accepted is None else ACCEPTED if accepted[index] else REVIEW
        words = _verdict(answers, int(index), labels, accepted)
        cell.suptitle(words, x=0.03, ha="left", fontsize=8.5, color=colour)
        _draw_answer(bars, answers, int(index), labels, RIGHT if accepted is None else colour)
    if title:
        figure.suptitle(plain(title), x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    legend = "bar: mean probability · whisker: credible interval"
    if answers.labels is not None:
        legend += " · hatched: the true digit"
    figure.supxlabel(legend, fontsize=9, color=INK)
    return figure


def plot_door(sent: Mapping[str, Image.Image], seen: Sequence[DigitImage]) -> Figure:
    """Pictures as sent, and below each what the network sees of it, with the door's reasons.

    Args:
        sent: The pictures by their titles.
        seen: What the digit door made of each.

    Returns:
        A figure of six pictures a row.
    """
    columns, n_rows = 6, -(-len(sent) // 6)
    figure = Figure(figsize=(9, 3.3 * n_rows), layout="constrained")
    axes = figure.subplots(2 * n_rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.set_axis_off()
    for i, ((title, picture), image) in enumerate(zip(sent.items(), seen, strict=True)):
        row, column = 2 * (i // columns), i % columns
        axes[row, column].imshow(np.asarray(picture.convert("RGB")))
        axes[row, column].set_title(title, fontsize=9)
        axes[row + 1, column].imshow(image.pixels, cmap="gray", vmin=0, vmax=255)
        reasons = ", ".join(reason.replace("_", " ") for reason in image.reasons)
        axes[row + 1, column].set_title(reasons, fontsize=8, color=REVIEW)
    return figure


def draw_bars(axes: Axes, answer: Prediction) -> None:
    """The class probabilities as bars, their credible intervals as whiskers, the decision above.

    An interval is drawn where it is, even where the mean lies outside of it. Being no digit stands
    apart: the classes are given that it is one.

    Args:
        axes: Where to draw.
        answer: What to draw.
    """
    places = np.arange(float(len(answer.classes)))
    names = [entry.label for entry in answer.classes]
    bars = [(entry.probability, entry.lower, entry.upper) for entry in answer.classes]
    if answer.not_a_digit is not None:
        strange = answer.not_a_digit
        places, names = np.append(places, len(places) + _GAP), [*names, "none"]
        bars.append((strange.probability, strange.lower, strange.upper))
    means, lower, upper = np.array(bars).T
    colour = ACCEPTED if answer.decision == "accept" else REVIEW
    draw_means(axes, names, means, lower, upper, colour=colour, places=places)
    if answer.not_a_digit is not None:
        axes.patches[-1].set(facecolor=FAINT)
    axes.set_ylabel("probability", fontsize=9)
    axes.set_title(_headline(answer), fontsize=9, loc="left")


def _draw_answer(
    axes: Axes, answers: Answers, index: int, labels: Sequence[str], colour: str
) -> None:
    """The bars of one of many answers, small, the true class hatched."""
    summary, names, places = answers.summary, list(labels), np.arange(float(len(labels)))
    means, lower, upper = (
        values[index] for values in (summary.probability, summary.lower, summary.upper)
    )
    if summary.not_a_digit.any():
        names, places = [*names, "none"], np.append(places, len(places) + _GAP)
        means = np.append(means, summary.not_a_digit[index])
        lower = np.append(lower, summary.not_a_digit_lower[index])
        upper = np.append(upper, summary.not_a_digit_upper[index])
    draw_means(axes, names, means, lower, upper, colour=colour, places=places)
    if answers.labels is not None:
        axes.patches[answers.labels[index]].set(hatch="//////", edgecolor="white")
    if len(places) > len(labels):
        axes.patches[-1].set(facecolor=FAINT)
    axes.tick_params(labelsize=7, length=2)
    axes.set_yticks([0, 0.5, 1], ["0", "", "1"])


def _verdict(
    answers: Answers, index: int, labels: Sequence[str], accepted: NDArray[np.bool_] | None
) -> str:
    """Two lines: true class and prediction; its probability and what becomes of it."""
    summary = answers.summary
    read = labels[int(summary.probability[index].argmax())]
    true = "no digit" if answers.labels is None else f"true {labels[answers.labels[index]]}"
    words = f"{true}, read as {read} ({summary.probability[index].max():.2f})"
    entropy = f"entropy {summary.predictive_entropy[index]:.2f} nats"
    if accepted is not None:
        entropy += ", accepted" if accepted[index] else ", to a person"
    return plain(f"{words}\n{entropy}")


def _headline(answer: Prediction) -> str:
    entropy = f"entropy {answer.predictive_entropy:.2f} nats"
    if answer.decision == "accept":
        return f"{answer.prediction}, accepted ({entropy})"
    reasons = ", ".join(reason.replace("_", " ") for reason in answer.reasons)
    return f"a person should look: {reasons} ({entropy})"

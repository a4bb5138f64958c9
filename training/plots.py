"""Pictures people would rather look at than read. Functions return figures; nothing is shown."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from model.classifier import Prediction
from model.door import DigitImage

__all__ = ["draw_bars", "plot_answers", "plot_door"]

ACCEPTED, REVIEW = "#1a7f5a", "#b4540a"


def plot_answers(pictures: Sequence[Image.Image], answers: Sequence[Prediction]) -> Figure:
    """A row for each picture: as sent, as the network saw it, and its ten bars with intervals.

    Args:
        pictures: The pictures as they were sent.
        answers: The answer for each.

    Returns:
        A figure of two inches' height per row.
    """
    figure = Figure(figsize=(8, 2.0 * len(answers)), layout="constrained")
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

    An interval is drawn where it is, even where the mean lies outside of it.

    Args:
        axes: Where to draw.
        answer: What to draw.
    """
    labels = [entry.label for entry in answer.classes]
    means = np.array([entry.probability for entry in answer.classes])
    lower = np.array([entry.lower for entry in answer.classes])
    upper = np.array([entry.upper for entry in answer.classes])
    accepted = answer.decision == "accept"
    places = np.arange(len(labels))
    axes.bar(places, means, color=ACCEPTED if accepted else REVIEW, width=0.7)
    axes.vlines(places, lower, upper, color="#222222", linewidth=1.4)
    for ends in (lower, upper):
        axes.hlines(ends, places - 0.16, places + 0.16, color="#222222", linewidth=1.4)
    axes.set_xticks(places, labels)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("probability", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(_headline(answer), fontsize=9, loc="left")


def _headline(answer: Prediction) -> str:
    entropy = f"entropy {answer.predictive_entropy:.2f} nats"
    if answer.decision == "accept":
        return f"{answer.prediction}, accepted ({entropy})"
    reasons = ", ".join(reason.replace("_", " ") for reason in answer.reasons)
    return f"a person should look: {reasons} ({entropy})"

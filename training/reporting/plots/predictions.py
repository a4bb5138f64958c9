"""Figures of single predictions: uploaded image, network input, and bars with intervals."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from model.classifier import Prediction
from model.preprocessing.normalize import DigitImage
from training.evaluation.predictions import Predictions
from training.reporting.plots.drawing import (
    ACCEPTED,
    FAINT,
    INK,
    REVIEW,
    RIGHT,
    draw_means,
    literal,
    new_figure,
)

_GAP = 0.8  # between the last class and "not a digit"


def plot_predictions(images: Sequence[Image.Image], predictions: Sequence[Prediction]) -> Figure:
    """A row for each image: the upload, the network's input, and the class probabilities.

    Args:
        images: The images as uploaded.
        predictions: The prediction for each.

    Returns:
        A figure, two inches high per row.
    """
    figure = new_figure(2.0 * len(predictions))
    axes = figure.subplots(
        len(predictions), 3, squeeze=False, gridspec_kw={"width_ratios": [1, 1, 3.4]}
    )
    for row, image, prediction in zip(axes, images, predictions, strict=True):
        upload, pixels, bars = row
        upload.imshow(np.asarray(image.convert("RGB")))
        pixels.imshow(prediction.pixels, cmap="gray", vmin=0, vmax=255)
        for panel in (upload, pixels):
            panel.set_xticks([])
            panel.set_yticks([])
        draw_prediction(bars, prediction)
    axes[0, 0].set_title("uploaded image", fontsize=9)
    axes[0, 1].set_title("network input", fontsize=9)
    axes[-1, 2].set_xlabel("digit", fontsize=9)
    return figure


def plot_prediction_grid(
    predictions: Predictions,
    which: Sequence[int] | NDArray[np.integer],
    labels: Sequence[str],
    *,
    accepted: NDArray[np.bool_] | None = None,
    title: str = "",
    columns: int = 3,
) -> Figure:
    """The network's input for chosen images, each with its class probabilities and intervals.

    The bar of the true class is hatched. A network with a not-a-digit output gets one more bar for
    it; the class probabilities are given that the image is a digit.

    Args:
        predictions: The predictions for a set of images.
        which: Indices of the images to show, in this order.
        labels: Names of the classes, in the order of the probabilities.
        accepted: Which predictions of the whole set are accepted (N,), to be written above each.
        title: What the images have in common.
        columns: Images in a row.

    Returns:
        A figure 8 inches wide.
    """
    n_rows = max(1, -(-len(which) // columns))
    figure = new_figure(1.5 * n_rows + 0.7)
    cells = figure.subfigures(n_rows, columns, squeeze=False).flatten()
    for cell, index in zip(cells, which, strict=False):
        pixels, bars = cell.subplots(1, 2, width_ratios=[1, 1.6])
        pixels.imshow(predictions.pixels[index], cmap="gray", vmin=0, vmax=255)
        pixels.set_axis_off()
        colour = INK if accepted is None else ACCEPTED if accepted[index] else REVIEW
        verdict = _verdict(predictions, int(index), labels, accepted)
        cell.suptitle(verdict, x=0.03, ha="left", fontsize=8.5, color=colour)
        _draw_small(bars, predictions, int(index), labels, RIGHT if accepted is None else colour)
    if title:
        figure.suptitle(
            literal(title), x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK
        )
    legend = "bar: mean probability · whisker: credible interval"
    if predictions.labels is not None:
        legend += " · hatched: the true digit"
    figure.supxlabel(legend, fontsize=9, color=INK)
    return figure


def plot_preprocessing(
    uploads: Mapping[str, Image.Image], preprocessed: Sequence[DigitImage]
) -> Figure:
    """Uploaded images, and below each the network's input with the reasons for a review.

    Args:
        uploads: The uploaded images by their titles.
        preprocessed: Each of them preprocessed.

    Returns:
        A figure of six images a row.
    """
    columns, n_rows = 6, -(-len(uploads) // 6)
    figure = Figure(figsize=(9, 3.3 * n_rows), layout="constrained")
    axes = figure.subplots(2 * n_rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.set_axis_off()
    for i, ((title, upload), image) in enumerate(zip(uploads.items(), preprocessed, strict=True)):
        row, column = 2 * (i // columns), i % columns
        axes[row, column].imshow(np.asarray(upload.convert("RGB")))
        axes[row, column].set_title(title, fontsize=9)
        axes[row + 1, column].imshow(image.pixels, cmap="gray", vmin=0, vmax=255)
        reasons = ", ".join(reason.replace("_", " ") for reason in image.reasons)
        axes[row + 1, column].set_title(reasons, fontsize=8, color=REVIEW)
    return figure


def draw_prediction(axes: Axes, prediction: Prediction) -> None:
    """The class probabilities as bars, their credible intervals as whiskers, the decision above.

    The mean can lie outside its interval. "Not a digit" stands apart: the class probabilities are
    given that the image is a digit.

    Args:
        axes: Where to draw.
        prediction: What to draw.
    """
    places = np.arange(float(len(prediction.classes)))
    names = [entry.label for entry in prediction.classes]
    bars = [(entry.probability, entry.lower, entry.upper) for entry in prediction.classes]
    if prediction.not_a_digit is not None:
        outlier = prediction.not_a_digit
        places, names = np.append(places, len(places) + _GAP), [*names, "none"]
        bars.append((outlier.probability, outlier.lower, outlier.upper))
    means, lower, upper = np.array(bars).T
    colour = ACCEPTED if prediction.decision == "accept" else REVIEW
    draw_means(axes, names, means, lower, upper, colour=colour, places=places)
    if prediction.not_a_digit is not None:
        axes.patches[-1].set(facecolor=FAINT)
    axes.set_ylabel("probability", fontsize=9)
    axes.set_title(_headline(prediction), fontsize=9, loc="left")


def _draw_small(
    axes: Axes, predictions: Predictions, index: int, labels: Sequence[str], colour: str
) -> None:
    """The bars of one of many predictions, small, the true class hatched."""
    summary, names, places = predictions.summary, list(labels), np.arange(float(len(labels)))
    means, lower, upper = (
        values[index] for values in (summary.probability, summary.lower, summary.upper)
    )
    if summary.not_a_digit.any():
        names, places = [*names, "none"], np.append(places, len(places) + _GAP)
        means = np.append(means, summary.not_a_digit[index])
        lower = np.append(lower, summary.not_a_digit_lower[index])
        upper = np.append(upper, summary.not_a_digit_upper[index])
    draw_means(axes, names, means, lower, upper, colour=colour, places=places)
    if predictions.labels is not None:
        axes.patches[predictions.labels[index]].set(hatch="//////", edgecolor="white")
    if len(places) > len(labels):
        axes.patches[-1].set(facecolor=FAINT)
    axes.tick_params(labelsize=7, length=2)
    axes.set_yticks([0, 0.5, 1], ["0", "", "1"])


def _verdict(
    predictions: Predictions, index: int, labels: Sequence[str], accepted: NDArray[np.bool_] | None
) -> str:
    """Two lines: true class, prediction and its probability; entropy and decision."""
    summary, true = predictions.summary, "no digit"
    if predictions.labels is not None:
        true = f"true {labels[predictions.labels[index]]}"
    top = labels[int(summary.probability[index].argmax())]
    classes = f"{true}, predicted {top} ({summary.probability[index].max():.2f})"
    entropy = f"entropy {summary.predictive_entropy[index]:.2f} nats"
    if accepted is not None:
        entropy += ", accepted" if accepted[index] else ", review"
    return literal(f"{classes}\n{entropy}")


def _headline(prediction: Prediction) -> str:
    entropy = f"entropy {prediction.predictive_entropy:.2f} nats"
    if prediction.decision == "accept":
        return f"{prediction.prediction}, accepted ({entropy})"
    reasons = ", ".join(reason.replace("_", " ") for reason in prediction.reasons)
    return f"review: {reasons} ({entropy})"

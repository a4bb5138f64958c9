"""Shared parts of the figures: colours, panels, bars with intervals, legends.

The colours suit any colour vision, and a hatching, a line style or a word always repeats them.

Source of the colours: Okabe and Ito (2008), "Color Universal Design".
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from model.types import Floats

INK, FAINT = "#222222", "#6b6b6b"
RIGHT, WRONG = "#0072b2", "#d55e00"
ACCEPTED, REVIEW = "#1a7f5a", "#b4540a"
LineStyle = str | tuple[float, tuple[float, ...]]
STROKES: tuple[tuple[str, LineStyle], ...] = (
    ("#009e73", "-"),
    ("#b0478a", "--"),
    ("#222222", "-."),
    ("#e69f00", ":"),
    ("#56b4e9", (0, (6, 1, 1, 1, 1, 1))),
)
"""Colour and line style of curves in one panel."""

_WIDTH = 8.0  # inches; 900 px on a page make ten points fifteen pixels


def new_figure(height: float) -> Figure:
    """An empty figure, 8 inches wide and `height` inches high."""
    return Figure(figsize=(_WIDTH, height), layout="constrained")


def tidy(axes: Axes, *, title: str = "", x: str = "", y: str = "", grid: str = "y") -> None:
    """Set a panel's title, axis labels and grid; remove its box.

    Args:
        axes: The panel.
        title: Its title.
        x: Label of the horizontal axis, with the unit.
        y: Label of the vertical axis, with the unit.
        grid: Which axis has grid lines: `x`, `y` or `both`.
    """
    if title:
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    if x:
        axes.set_xlabel(x, fontsize=10)
    if y:
        axes.set_ylabel(y, fontsize=10)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.7)  # type: ignore[arg-type]


def legend_beside(axes: Axes) -> None:
    """Draw a legend to the right of the panel; none if nothing has a name."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, frameon=False)


def literal(text: str) -> str:
    """A name that Matplotlib shows literally: not as mathematics, and in any legend."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def log_scale(axes: Axes, lowest: float, highest: float) -> None:
    """Make the vertical axis logarithmic, with labels such as 1,000 and 0.01."""
    axes.set_yscale("log")
    axes.set_ylim(lowest, highest)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if highest < 300 * lowest else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def draw_means(
    axes: Axes,
    labels: Sequence[str],
    means: Floats,
    lower: Floats,
    upper: Floats,
    *,
    colour: str,
    places: Floats | None = None,
) -> None:
    """Draw probabilities as bars and their intervals as whiskers.

    The mean can lie outside its interval.

    Args:
        axes: Where to draw.
        labels: Names of the outcomes.
        means: Their mean probabilities (C,).
        lower: Lower ends of the intervals (C,).
        upper: Upper ends (C,).
        colour: Of the bars.
        places: Where the bars stand (C,); at 0, 1, 2 and so on if None.
    """
    if places is None:
        places = np.arange(float(len(labels)))
    axes.bar(places, means, color=colour, width=0.7)
    axes.vlines(places, lower, upper, color=INK, linewidth=1.4)
    for ends in (lower, upper):
        axes.hlines(ends, places - 0.16, places + 0.16, color=INK, linewidth=1.4)
    axes.set_xticks(places, [literal(label) for label in labels])
    axes.set_ylim(0, 1.02)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)

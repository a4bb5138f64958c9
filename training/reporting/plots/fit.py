"""Training curves."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from training.reporting.plots.drawing import RIGHT, literal, log_scale, new_figure, tidy

_KNOWN = {
    "nll": ("negative log-likelihood", "nats per image"),
    "kl": ("KL from prior to posterior", "nats"),
    "negative_elbo": ("objective: negative ELBO", "nats per image"),
    "not_a_digit_nll": ("NLL of “not a digit”", "nats per image"),
}
_COLUMNS = 3


def plot_training(epochs: Sequence[Mapping[str, Any]]) -> Figure:
    """Training curves: a small panel for each number recorded per epoch.

    Args:
        epochs: One mapping for each epoch, with its number under `epoch`, as in
            `Checkpoint.training["epochs"]`. Entries that are no numbers, missing, or 0 in every
            epoch are left out.

    Returns:
        A figure 8 inches wide. A panel is logarithmic if its values span more than a decade.
    """
    keys = dict.fromkeys([*_KNOWN, *(key for entry in epochs for key in entry if key != "epoch")])
    curves = {key: _curve(epochs, key) for key in keys}
    curves = {key: curve for key, curve in curves.items() if any(curve[1])}
    n_rows = max(1, -(-len(curves) // _COLUMNS))
    figure = new_figure(2.7 * n_rows)
    panels = figure.subplots(n_rows, _COLUMNS, squeeze=False).flatten()
    for panel, (key, (x, y)) in zip(panels, curves.items(), strict=False):
        name, unit = _KNOWN.get(key, (key.replace("_", " "), "value"))
        panel.plot(x, y, color=RIGHT, marker=".", markersize=4, linewidth=1.4)
        if min(y) > 0 and max(y) > 10 * min(y):
            log_scale(panel, min(y) / 1.3, max(y) * 1.3)
        else:
            panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
        tidy(panel, x="epoch", y=literal(unit))
        panel.set_title(literal(name), loc="left", fontsize=9.5, fontweight="bold")
    for panel in panels[len(curves) :]:
        panel.set_axis_off()
    return figure


def _curve(epochs: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    points = [
        (float(entry.get("epoch", number)), float(entry[key]))
        for number, entry in enumerate(epochs, 1)
        if isinstance(entry.get(key), Real)
    ]
    return [x for x, _ in points], [y for _, y in points]

"""The figures show the metrics and predictions that they are given."""

import io
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch
from scipy.stats import binomtest

from model import summarise
from training.evaluation.metrics import calibration_error
from training.evaluation.predictions import Predictions
from training.evaluation.robustness import CorruptionMetrics, RotationPoint
from training.reporting import plots
from training.reporting.plots import (
    drawing,
    plot_confidence,
    plot_confusion,
    plot_corruptions,
    plot_entropy,
    plot_prediction_grid,
    plot_reliability,
    plot_risk_coverage,
    plot_rotation,
    plot_training,
)
from training.reporting.plots import errors as error_plots
from training.reporting.plots import fit as fit_plots
from training.reporting.plots import uncertainty as uncertainty_plots

RIGHT, WRONG = np.array([0.05, 0.15, 0.15, 0.95]), np.array([0.15])
SWEEP = [
    RotationPoint(
        angle_deg=angle, n=100, error=error, nll=0.5, accepted=accepted, errors_accepted=1,
        predictive_entropy=entropy, expected_entropy=entropy - information,
        mutual_information=information, not_a_digit=not_a_digit,
    )
    for angle, error, accepted, not_a_digit, entropy, information in (
        (90, 0.6, 0.1, 0.5, 0.9, 0.3), (-30, 0.1, 0.7, 0.2, 0.4, 0.1),
        (0, 0.01, 0.9, 0.0, 0.1, 0.05),
    )
]  # fmt: skip
CORRUPTED = {
    "motion_blur": CorruptionMetrics(100, 0.2, 0.7, 0.5, 4),
    "fog": CorruptionMetrics(100, 0.7, 2.5, 0.0, 0),
    "stripe": CorruptionMetrics(1000, 0.1, 0.4, 0.9, 18),
}
EPOCHS = [
    {"epoch": 1, "nll": 0.9, "kl": 70000.0, "negative_elbo": 2.1, "idle": 0.0, "note": "x"},
    {"epoch": 2, "nll": 0.05, "kl": 69000.0, "negative_elbo": 1.6, "idle": 0.0, "speed": 3.0},
]


def three_answers(*, labels: bool = True, not_a_digit: bool = False) -> Predictions:
    """Three pictures, three classes, five draws; the second is wrong."""
    rng = np.random.default_rng(0)
    logits = np.array([[3.0, 0, 0], [1, 1.5, 0], [0, 0, 2]]) + rng.normal(0, 0.7, (5, 3, 3))
    draws = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    odd = rng.uniform(0.1, 0.9, (5, 3)) if not_a_digit else None
    return Predictions(
        name="three",
        pixels=rng.integers(0, 256, (3, 28, 28)).astype(np.uint8),
        labels=np.array([0, 0, 2]) if labels else None,
        summary=summarise(draws, 0.9, odd),
        flagged=np.zeros(3, bool),
    )


def heights(axes: Axes) -> list[float]:
    return [p.get_height() for p in axes.patches if isinstance(p, Rectangle)]


def named(axes: Axes) -> dict[str, object]:
    """What a panel draws, by what its legend calls it."""
    handles, labels = axes.get_legend_handles_labels()
    return dict(zip(labels, handles, strict=True))


def curve(axes: Axes, name: str) -> tuple[list[float], list[float]]:
    line = next(line for line in axes.lines if line.get_label() == name)
    return list(line.get_xdata()), list(line.get_ydata())


# Histograms


def test_bars_count_right_and_wrong_answers_and_one_alone_is_seen() -> None:
    (axes,) = plot_confidence(RIGHT, WRONG, {}, n_bins=10).axes
    assert heights(axes)[:10] == [1, 2, 0, 0, 0, 0, 0, 0, 0, 1]
    assert heights(axes)[10:] == [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert [bool(p.get_hatch()) for p in axes.patches] == [False] * 10 + [True] * 10
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] < 1
    assert set(named(axes)) == {"correct (4)", "wrong (1)"}


def test_lines_are_shares_of_each_set_and_digits_are_right_and_wrong_ones() -> None:
    sets = {"letters": np.array([0.05, 0.05, 0.05, 0.55]), "clothes": np.array([0.95])}
    axes = plot_confidence(RIGHT, WRONG, sets, n_bins=10).axes[1]
    shares = {
        patch.get_label(): list(patch.get_data().values)
        for patch in axes.patches
        if isinstance(patch, StepPatch)
    }
    assert shares == {
        "digits (5)": pytest.approx([20, 60, 0, 0, 0, 0, 0, 0, 0, 20]),
        "letters (4)": pytest.approx([75, 0, 0, 0, 0, 25, 0, 0, 0, 0]),
        "clothes (1)": pytest.approx([0] * 9 + [100]),
    }
    styles = {patch.get_linestyle() for patch in axes.patches[1:]}
    assert len(styles) == 2


def test_rounding_puts_nothing_beyond_the_last_bin() -> None:
    values = np.array([-1e-17, math.log(4) + 1e-15])
    (axes,) = plot_entropy(values, np.array([]), {}, 4, n_bins=5).axes
    assert heights(axes)[:5] == [1, 0, 0, 0, 1]


def test_an_entropy_goes_to_ln_c_and_a_small_one_as_far_as_it_does() -> None:
    (large,) = plot_entropy(np.array([1.0]), WRONG, {}, 4).axes
    assert large.get_xlim() == (0, pytest.approx(math.log(4)))
    assert "nats" in large.get_xlabel()
    assert "ln 4 = 1.39" in large.get_xlabel()
    small = plot_entropy(RIGHT / 10, WRONG, {"f": np.array([0.22])}, label="mutual information")
    assert small.axes[0].get_xlim() == (0, pytest.approx(0.3))
    assert small.axes[1].get_xlabel().startswith("mutual information")
    assert small.axes[0].get_title(loc="left").startswith("Mutual information")


def test_the_threshold_is_marked_on_both_panels() -> None:
    for figure, words in (
        (plot_confidence(RIGHT, WRONG, {"f": WRONG}, threshold=0.9), "accepted from 0.9"),
        (plot_entropy(RIGHT, WRONG, {"f": WRONG}, threshold=0.9), "accepted up to 0.9"),
    ):
        assert [list(axes.lines[0].get_xdata()) for axes in figure.axes] == [[0.9, 0.9]] * 2
        assert words in named(figure.axes[0])


# Reliability


def test_points_whiskers_and_counts_of_the_reliability_diagram_by_hand() -> None:
    top = np.array([0.55, 0.65, 0.95, 0.95, 0.95, 0.95])
    probability = np.stack([top, 1 - top], axis=1)
    labels = np.array([1, 0, 0, 0, 0, 1])
    upper, lower = plot_reliability(probability, labels, n_bins=5).axes
    line, _, (stems,) = upper.containers[0].lines
    # Bins of a fifth: 0.55 alone and wrong; 0.65 alone and right; three of four at 0.95.
    assert list(line.get_xdata()) == pytest.approx([0.55, 0.65, 0.95])
    assert list(line.get_ydata()) == pytest.approx([0, 1, 0.75])
    expected = [binomtest(k, n).proportion_ci(0.95, "exact") for k, n in ((0, 1), (1, 1), (3, 4))]
    ends = np.array([segment[:, 1] for segment in stems.get_segments()])
    assert ends == pytest.approx(np.array([[ci.low, ci.high] for ci in expected]))
    assert heights(lower) == [0, 0, 1, 1, 4]
    error = calibration_error(probability, labels, 5)
    assert error == pytest.approx((0.55 + 0.35 + 4 * 0.2) / 6)
    assert f"Calibration error {100 * error:.2f} %" in upper.get_title(loc="left")


def test_a_certain_answer_is_in_the_last_bin() -> None:
    _, lower = plot_reliability(np.array([[1.0, 0.0]]), np.array([0]), n_bins=4).axes
    assert heights(lower) == [0, 0, 0, 1]


# Risk and coverage


def test_the_curve_is_the_error_among_the_answered_in_percent() -> None:
    coverage, risk = np.array([0.25, 0.5, 0.75, 1.0]), np.array([0, 0, 0.02, 0.05])
    (axes,) = plot_risk_coverage(
        {"a": (coverage, risk), "b": (coverage, risk / 2)}, chosen=(0.75, 0.02), target=0.03
    ).axes
    for name, factor in (("a", 100), ("b", 50)):
        x, y = curve(axes, name)
        assert x == [25, 50, 75, 100]
        assert np.isnan(y[:2]).all()
        assert y[2:] == pytest.approx([0.02 * factor, 0.05 * factor])
    assert curve(axes, "decision rule") == ([75], [2])
    assert curve(axes, "guaranteed: 3 %")[1] == [3, 3]
    assert len({line.get_linestyle() for line in axes.lines[:2]}) == 2
    bottom, top = axes.get_ylim()
    assert bottom < 1
    assert top > 5
    assert axes.get_yscale() == "log"


def test_the_axis_begins_where_the_errors_do_and_ignores_one_early_error() -> None:
    n = 1000
    wrong = np.zeros(n)
    wrong[[0, *range(960, 1000)]] = 1  # the very first, a risk of 100 %, and the last forty
    k = np.arange(1, n + 1)
    (axes,) = plot_risk_coverage({"a": (k / n, np.cumsum(wrong) / k)}).axes
    assert axes.get_xlim()[0] == 90
    assert axes.get_ylim()[1] < 10
    (early,) = plot_risk_coverage({"a": (k / n, k / n)}, chosen=(0.55, 0.1)).axes
    assert early.get_xlim()[0] <= 20


def test_a_rule_without_errors_stands_on_the_axis() -> None:
    coverage = np.array([0.5, 1.0])
    (axes,) = plot_risk_coverage(
        {"a": (coverage, np.array([0, 0.1]))}, chosen=(0.5, 0.0), target=0.01
    ).axes
    x, y = curve(axes, "decision rule")
    assert (x, y) == ([50], [axes.get_ylim()[0]])
    assert "50.0 % accepted, none wrong" in axes.texts[0].get_text()
    (perfect,) = plot_risk_coverage({"a": (coverage, np.zeros(2))}, chosen=(0.5, 0.0)).axes
    assert perfect.get_yscale() == "linear"


# Turned and spoiled digits, confusion


def test_turned_digits_are_drawn_over_the_sorted_angles() -> None:
    upper, lower = plot_rotation(SWEEP, fitted_deg=12).axes
    assert curve(upper, "error rate") == ([-30, 0, 90], pytest.approx([10, 1, 60]))
    assert curve(upper, "accepted") == ([-30, 0, 90], pytest.approx([70, 90, 10]))
    assert curve(upper, "probability of “not a digit”")[1] == pytest.approx([20, 0, 50])
    assert curve(lower, "predictive entropy")[1] == pytest.approx([0.4, 0.1, 0.9])
    assert curve(lower, "mutual information")[1] == pytest.approx([0.1, 0.05, 0.3])
    shades = [axes.patches[0].get_extents().transformed(axes.transData.inverted())
              for axes in (upper, lower)]  # fmt: skip
    assert [(box.x0, box.x1) for box in shades] == [pytest.approx((-12, 12))] * 2
    for axes in (upper, lower):
        looks = {(line.get_linestyle(), line.get_marker()) for line in axes.lines}
        assert len(looks) == len(axes.lines)


def test_what_was_not_measured_of_turned_digits_is_not_drawn() -> None:
    no_output = [replace(point, not_a_digit=0.0, error=0.0) for point in SWEEP]
    no_rule = [replace(point, accepted=None) for point in no_output]
    for sweep, names in ((no_output, {"error rate", "accepted"}), (no_rule, {"error rate"})):
        upper, _ = plot_rotation(sweep).axes
        assert set(named(upper)) == names
        assert not upper.patches


def test_cells_hold_the_counts_and_only_errors_are_coloured() -> None:
    true, read = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
    figure = plot_confusion(true, read, ["a", "b", "c"])
    axes = figure.axes[0]
    cells = {tuple(map(int, t.get_position()[::-1])): t.get_text() for t in axes.texts}
    assert cells == {
        (0, 0): "2", (0, 1): "1", (0, 2): "",
        (1, 0): "", (1, 1): "1", (1, 2): "1",
        (2, 0): "", (2, 1): "", (2, 2): "1",
    }  # fmt: skip
    shades = axes.images[0].get_array()
    assert np.array(shades).tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    rates = [label.get_text() for label in axes.child_axes[0].get_yticklabels()]
    assert rates == ["33.3 %", "50.0 %", "0.0 %"]
    assert "2 of 6 predictions are wrong" in axes.get_title(loc="left")


def test_counts_are_legible_on_their_cells() -> None:
    true, read = np.array([0] * 50 + [1]), np.array([1] * 50 + [0])
    axes = plot_confusion(true, read, ["a", "b"]).axes[0]
    image = axes.images[0]
    for text in axes.texts:
        column, row = map(int, text.get_position())
        if row != column:
            cell = image.cmap(image.norm(image.get_array()[row, column]))
            assert contrast(to_hex(cell), text.get_color()) >= 3


def contrast(one: str, other: str) -> float:
    """Contrast ratio after WCAG 2.2."""

    def luminance(colour: str) -> float:
        colour = to_hex(colour)
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_bars_of_spoiled_digits_are_the_errors_with_and_without_the_rejected() -> None:
    (axes,) = plot_corruptions(CORRUPTED).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["stripe", "motion blur", "fog"]  # from the bottom to the top
    widths = [patch.get_width() for patch in axes.patches]
    assert widths[:3] == pytest.approx([10, 20, 70])
    assert widths[3:] == pytest.approx([2, 8, 0])  # 4 of 50 accepted
    assert [bool(patch.get_hatch()) for patch in axes.patches] == [False] * 3 + [True] * 3
    for patch, place in zip(axes.patches, [0, 1, 2] * 2, strict=True):
        assert abs(patch.get_y() + patch.get_height() / 2 - place) < 0.5
    words = [text.get_text() for text in axes.texts]
    assert "8.00 % of the 50 % accepted" in words
    assert "none accepted" in words
    assert "2.00 % of the 90 % accepted" in words


# Single answers among many


def cells(figure: Figure) -> list[tuple[Axes, Axes, str]]:
    """Picture, bars and words of each answer."""
    return [(*sub.axes, sub.get_suptitle()) for sub in figure.subfigs if sub.axes]


def test_each_answer_has_its_picture_bars_whiskers_and_words() -> None:
    answers = three_answers()
    accepted = np.array([True, False, True])
    figure = plot_prediction_grid(answers, [2, 1], ["a", "b", "c"], accepted=accepted, title="T")
    drawn = cells(figure)
    assert len(drawn) == 2
    assert figure.get_suptitle() == "T"
    for (picture, bars, words), index in zip(drawn, [2, 1], strict=True):
        assert (picture.images[0].get_array() == answers.pixels[index]).all()
        assert heights(bars) == pytest.approx(answers.summary.probability[index])
        stems = np.array(bars.collections[0].get_segments())
        assert stems[:, 0, 1] == pytest.approx(answers.summary.lower[index])
        assert stems[:, 1, 1] == pytest.approx(answers.summary.upper[index])
        hatched = [i for i, bar in enumerate(bars.patches) if bar.get_hatch()]
        assert hatched == [answers.labels[index]]
        assert f"entropy {answers.summary.predictive_entropy[index]:.2f} nats" in words
    assert drawn[0][2].startswith("true c, predicted c (")
    assert drawn[0][2].endswith("accepted")
    assert drawn[1][2].startswith("true a, predicted b (")
    assert drawn[1][2].endswith("review")
    assert f"({answers.summary.probability[1].max():.2f})" in drawn[1][2]


def test_without_a_rule_no_word_is_said_of_it() -> None:
    words = cells(plot_prediction_grid(three_answers(), [0], ["a", "b", "c"]))[0][2]
    assert words.endswith("nats")


def test_a_network_that_knows_what_is_no_digit_has_a_bar_for_it() -> None:
    answers = three_answers(labels=False, not_a_digit=True)
    _, bars, words = cells(plot_prediction_grid(answers, [1], ["a", "b", "c"]))[0]
    assert words.startswith("no digit, predicted b")
    assert [label.get_text() for label in bars.get_xticklabels()] == ["a", "b", "c", "none"]
    assert heights(bars)[3] == pytest.approx(answers.summary.not_a_digit[1])
    stems = np.array(bars.collections[0].get_segments())
    assert stems[3, :, 1] == pytest.approx(
        [answers.summary.not_a_digit_lower[1], answers.summary.not_a_digit_upper[1]]
    )
    assert not any(bar.get_hatch() for bar in bars.patches)
    plain = cells(plot_prediction_grid(three_answers(), [1], ["a", "b", "c"]))[0][1]
    assert len(heights(plain)) == 3


# The fit


def test_training_curves_are_the_epochs_numbers() -> None:
    figure = plot_training(EPOCHS)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.lines}
    assert list(panels) == [
        "negative log-likelihood",
        "KL from prior to posterior",
        "objective: negative ELBO",
        "speed",
    ]
    line = panels["negative log-likelihood"].lines[0]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2], [0.9, 0.05])
    line = panels["speed"].lines[0]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([2], [3.0])
    assert panels["negative log-likelihood"].get_yscale() == "log"
    assert panels["KL from prior to posterior"].get_yscale() == "linear"
    assert panels["KL from prior to posterior"].get_ylabel() == "nats"


# All of them

ALL: dict[str, Callable[[], Figure]] = {
    "confidence": lambda: plot_confidence(RIGHT, WRONG, {"f": WRONG}, threshold=0.9),
    "entropy": lambda: plot_entropy(RIGHT, WRONG, {"f": WRONG}),
    "no wrong answer": lambda: plot_confidence(RIGHT, np.array([]), {"f": np.array([])}),
    "reliability": lambda: plot_reliability(three_answers().summary.probability, np.zeros(3, int)),
    "risk": lambda: plot_risk_coverage({"a": (np.array([0.5, 1]), np.array([0, 0.1]))}),
    "rotation": lambda: plot_rotation(SWEEP),
    "confusion": lambda: plot_confusion(np.array([0, 1]), np.array([0, 0]), ["a", "b"]),
    "answers": lambda: plot_prediction_grid(three_answers(), [0, 1], ["a", "b", "c"]),
    "corruptions": lambda: plot_corruptions(CORRUPTED),
    "training": lambda: plot_training(EPOCHS),
}


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_a_figure_is_as_wide_as_all_and_can_be_drawn(make: Callable[[], Figure]) -> None:
    figure = make()
    assert figure.get_size_inches()[0] == 8
    assert type(figure.get_layout_engine()).__name__ == "ConstrainedLayoutEngine"
    figure.savefig(io.BytesIO(), dpi=50)  # warnings, such as of a missing glyph, are errors


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_whoever_sees_one_panel_knows_what_its_axes_are(make: Callable[[], Figure]) -> None:
    figure = make()
    if figure.subfigs:
        assert "probability" in figure.get_supxlabel()
        return
    for axes in figure.axes:
        if axes.axison:
            shared = axes.get_shared_x_axes()
            column = [a for a in figure.axes if a is axes or shared.joined(axes, a)]
            assert column[0].get_title(loc="left")
            assert column[-1].get_xlabel()
            assert axes.get_ylabel() or "motion blur" in [
                label.get_text() for label in axes.get_yticklabels()
            ]


def test_names_are_shown_to_the_letter() -> None:
    names = ["$x^2$", "_hidden", "<b>"]
    figure = plot_confidence(RIGHT, WRONG, dict.fromkeys(names, WRONG))
    shown = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert shown == ["digits (5)", r"\$x^2\$ (1)", " _hidden (1)", "<b> (1)"]
    figure.savefig(io.BytesIO(), dpi=50)
    plot_corruptions({"$a$": CORRUPTED["stripe"]}).savefig(io.BytesIO(), dpi=50)
    plot_confusion(np.array([0]), np.array([0]), ["$\\frac$"]).savefig(io.BytesIO(), dpi=50)
    plot_prediction_grid(three_answers(), [0], ["$", "_", "$$"]).savefig(io.BytesIO(), dpi=50)


def test_one_module_offers_every_figure() -> None:
    for module in (uncertainty_plots, error_plots, fit_plots):
        assert {name for name in vars(module) if name.startswith("plot_")} <= set(plots.__all__)
    assert {name for name in vars(plots) if name.startswith("plot_")} <= set(plots.__all__)


def test_colours_stand_out_from_white() -> None:
    colours = [drawing.RIGHT, drawing.WRONG, drawing.ACCEPTED, drawing.REVIEW, drawing.INK]
    assert min(contrast(colour, "white") for colour in colours) >= 3
    assert contrast(drawing.FAINT, "white") >= 4.5  # used for words

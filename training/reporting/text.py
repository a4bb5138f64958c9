"""The figures of an evaluation as aligned text, for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluation.result import Evaluation

__all__ = [
    "format_corruptions",
    "format_evaluation",
    "format_foreign",
    "format_parts",
    "format_rotation",
]

Row = tuple[str, str, str, float]

_PART_ROWS: Sequence[Row] = (
    ("pictures", "n", "{:,}", 1),
    ("error", "error", "{:.2f} %", 100),
    ("NLL (nats)", "nll", "{:.4f}", 1),
    ("Brier score", "brier_score", "{:.4f}", 1),
    ("calibration error, 15 bins", "calibration_error", "{:.2f} %", 100),
    ("adaptive calibration error", "adaptive_calibration_error", "{:.2f} %", 100),
    ("predictive entropy (nats)", "predictive_entropy", "{:.4f}", 1),
    ("mutual information (nats)", "mutual_information", "{:.4f}", 1),
    ("not a digit", "not_a_digit", "{:.2f} %", 100),
    ("accepted", "accepted", "{:.2f} %", 100),
    ("errors among the accepted", "errors_accepted", "{:,}", 1),
    ("risk-coverage area", "aurc", "{:.6f}", 1),
    ("prediction sets: coverage", "set_coverage", "{:.2f} %", 100),
    ("prediction sets: mean size", "set_size", "{:.3f}", 1),
)
_FOREIGN_ROWS: Sequence[Row] = (
    ("pictures that are no digits", "n", "{:,}", 1),
    ("accepted all the same", "accepted", "{:.2f} %", 100),
    ("accepted where 97 % of digits are", "accepted_where_97_of_digits_are", "{:.2f} %", 100),
    ("sent to a person by the door", "flagged", "{:.2f} %", 100),
    ("rejected as unlike training", "unlike_training", "{:.2f} %", 100),
    ("not a digit", "not_a_digit", "{:.2f} %", 100),
    ("mutual information (nats)", "mutual_information", "{:.4f}", 1),
    ("times that of the test part", "mutual_information_ratio", "{:.1f}", 1),
)


def format_evaluation(evaluation: Evaluation) -> str:
    """Everything that was measured, as text."""
    figures = evaluation.figures
    blocks = [format_parts(figures["parts"])]
    if figures.get("foreign"):
        blocks.append(format_foreign(figures["foreign"]))
    if figures.get("foreign_missing"):
        blocks.append(f"not found and left out: {', '.join(figures['foreign_missing'])}")
    if figures.get("rotation"):
        blocks.append(format_rotation(figures["rotation"]))
    if figures.get("corruptions"):
        blocks.append(format_corruptions(figures["corruptions"]))
    return "\n\n".join(blocks)


def format_parts(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Figures of held-out digits, one column per part of the data; errors at a coverage below."""
    text = _columns(_PART_ROWS, figures)
    lines = [
        f"errors among the {float(coverage):.0%} most certain: "
        + ", ".join(
            f"{name} {values['errors_at_coverage'][coverage]['errors']} of "
            f"{values['errors_at_coverage'][coverage]['n']:,}"
            for name, values in figures.items()
        )
        for coverage in next(iter(figures.values())).get("errors_at_coverage", {})
    ]
    return "\n".join([text, *lines])


def format_foreign(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Figures of pictures that are no digits, one column per data set."""
    scores = list(next(iter(figures.values()))["auroc"])
    lines = [_columns(_FOREIGN_ROWS, figures)]
    for title, key in (("AUROC", "auroc"), ("FPR at 95 % TPR", "fpr_at_95_tpr")):
        for score in scores:
            cells = "".join(f"{values[key][score]:>14.4f}" for values in figures.values())
            lines.append(f"{title + ', ' + score.replace('_', ' '):<46}{cells}")
    return "\n".join(lines)


def format_rotation(figures: Sequence[Mapping[str, Any]]) -> str:
    """One line per angle."""
    lines = [f"{'turned by':>9}{'error':>10}{'accepted':>10}{'not a digit':>13}{'entropy':>10}"]
    lines += [
        f"{row['angle_deg']:>8}°{100 * row['error']:>8.1f} %{100 * row['accepted']:>8.1f} %"
        f"{100 * row['not_a_digit']:>11.1f} %{row['predictive_entropy']:>10.3f}"
        for row in figures
    ]
    return "\n".join(lines)


def format_corruptions(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """One line per kind of corruption."""
    lines = [f"{'corruption':<14}{'error':>9}{'accepted':>10}{'wrong accepted':>16}"]
    lines += [
        f"{kind.replace('_', ' '):<14}{100 * row['error']:>7.1f} %{100 * row['accepted']:>8.1f} %"
        f"{row['errors_accepted']:>9} of {round(row['accepted'] * row['n']):,}"
        for kind, row in figures.items()
    ]
    return "\n".join(lines)


def _columns(rows: Sequence[Row], figures: Mapping[str, Mapping[str, Any]]) -> str:
    width = max(len(title) for title, *_ in rows)
    lines = [" " * width + "".join(f"{name:>14}" for name in figures)]
    for title, key, form, factor in rows:
        cells = (form.format(values[key] * factor) for values in figures.values())
        lines.append(f"{title:<{width}}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)

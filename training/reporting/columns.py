"""Metrics as the columns and rows of tables: title, format and unit of each."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

UNKNOWN = "–"


class Column(NamedTuple):
    """One metric: its title, its attribute, its format, and a factor to apply first."""

    title: str
    attribute: str
    form: str
    factor: float = 1

    def cell(self, metrics: Any) -> str:
        """The metric's value as text."""
        return format_number(getattr(metrics, self.attribute), self.form, self.factor)


def _percent(title: str, attribute: str) -> Column:
    return Column(title, attribute, "{:.2f} %", 100)


_UNCERTAINTY = (
    Column("predictive entropy, mean (nats)", "predictive_entropy", "{:.4f}"),
    Column("mutual information, mean (nats)", "mutual_information", "{:.4f}"),
    _percent("not a digit, mean probability", "not_a_digit"),
)
PART_COLUMNS = (
    Column("images", "n", "{:,}"),
    _percent("error rate", "error"),
    Column("negative log-likelihood (nats)", "nll", "{:.4f}"),
    Column("Brier score (0 to 2)", "brier_score", "{:.4f}"),
    _percent("calibration error, 15 equal bins", "calibration_error"),
    _percent("adaptive calibration error, 15 bins", "adaptive_calibration_error"),
    *_UNCERTAINTY,
    _percent("flagged by preprocessing", "flagged"),
    _percent("accepted", "accepted"),
    Column("errors among the accepted", "errors_accepted", "{:,}"),
    Column("area under risk-coverage", "aurc", "{:.6f}"),
    _percent("prediction sets: coverage", "set_coverage"),
    Column("prediction sets: mean size", "set_size", "{:.3f}"),
    _percent("prediction sets larger than one", "set_larger_than_one"),
)
SET_COLUMNS = (
    Column("images", "n", "{:,}"),
    _percent("coverage", "coverage"),
    Column("mean size", "size", "{:.3f}"),
    _percent("larger than one", "larger_than_one"),
)
OOD_COLUMNS = (
    Column("images", "n", "{:,}"),
    _percent("accepted (each one an error)", "accepted"),
    _percent("accepted where 97 % of digits are", "accepted_where_97_of_digits_are"),
    _percent("flagged by preprocessing", "flagged"),
    _percent("rejected as unlike training", "unlike_training"),
    *_UNCERTAINTY,
    Column("mutual information / that of digits", "mutual_information_ratio", "{:.1f}"),
)
ROTATION_COLUMNS = (
    _percent("error rate", "error"),
    _percent("accepted", "accepted"),
    Column("predictive entropy", "predictive_entropy", "{:.3f}"),
    Column("mutual information", "mutual_information", "{:.3f}"),
    _percent("not a digit", "not_a_digit"),
)
CORRUPTION_COLUMNS = (
    Column("images", "n", "{:,}"),
    _percent("error rate", "error"),
    _percent("accepted", "accepted"),
    Column("errors among the accepted", "errors_accepted", "{:,}"),
    Column("NLL (nats)", "nll", "{:.3f}"),
)

SCORE_TITLES = {
    "predictive_entropy": "predictive entropy",
    "mutual_information": "mutual information",
    "one_minus_max_probability": "1 − probability of the top class",
    "not_a_digit": "probability of not a digit",
    "one_minus_joint_probability": "1 − probability of a digit of the top class",
}


def shown_columns(columns: Sequence[Column], entries: Iterable[Any]) -> list[Column]:
    """The columns of these metrics, without the not-a-digit output if the network has none."""
    has_output = any(metrics.not_a_digit for metrics in entries)
    return [column for column in columns if column.attribute != "not_a_digit" or has_output]


def format_number(value: float | None, form: str, factor: float = 1) -> str:
    """A number as text; a dash if it is unknown or not finite."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return form.format(value * factor if factor != 1 else value)


def spaced(name: str) -> str:
    """An identifier as words."""
    return name.replace("_", " ")

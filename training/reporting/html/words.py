"""How a report puts figures into words and tables, whichever of them are there."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from training.reporting.html.page import table

__all__ = [
    "NBSP",
    "NOT_KNOWN",
    "PARTS",
    "SCORES",
    "Column",
    "flat",
    "interval",
    "known_columns",
    "measured_table",
    "number",
    "percent",
    "words",
]

NBSP = "\u00a0"
NOT_KNOWN = "–"
_NO_DIGIT = "not_a_digit"  # 0 throughout if the network has no output for it

PARTS = {
    "test": "the test pictures, opened last: they chose nothing",
    "calibration": "set the thresholds of the rules",
    "validation": "held aside to choose the score by",
    "imitated": "the validation pictures as others might send them: photographed, scanned, drawn",
}
"""What each held-out part is, the most telling first."""

SCORES = {
    "predictive_entropy": "predictive entropy",
    "mutual_information": "mutual information",
    "one_minus_max_probability": "1 − probability of the most probable digit",
    "not_a_digit": "probability of being no digit",
    "one_minus_joint_probability": "1 − probability of “a digit, and this one”",
}


class Column(NamedTuple):
    """One kind of figure: its title, its key, its format, and what to multiply it by first."""

    title: str
    key: str
    form: str
    factor: float = 1


def number(value: object, form: str, factor: float = 1) -> str:
    """A figure as text; a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return NOT_KNOWN
    return form.format(value * factor if factor != 1 else value)


def percent(value: object, places: int = 2) -> str:
    """A share as a percentage; a dash where there is none."""
    return number(value, f"{{:.{places}f}}{NBSP}%", 100)


def interval(values: object, form: str, factor: float = 1) -> str:
    """Both ends of an interval; empty where there is none."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 2:
        return ""
    low, high = (number(value, form, factor) for value in values)
    return f"{low} to {high}"


def words(name: str) -> str:
    """A key as one would say it."""
    return name.replace("_", " ")


def measured_table(
    caption: str,
    first: str,
    rows: Mapping[str, Mapping[str, Any]],
    columns: Sequence[Column],
    *,
    upright: bool = False,
) -> str:
    """A table of a row for each entry, with those columns that any of them has.

    Args:
        caption: What the table shows.
        first: What the rows are.
        rows: Figures by the rows' names.
        columns: The columns, in order.
        upright: Whether to let rows and columns change places: for few rows of many columns.
    """
    known = known_columns(columns, rows)
    if upright:
        return table(
            caption,
            ["", *rows],
            [
                (c.title, [number(values.get(c.key), c.form, c.factor) for values in rows.values()])
                for c in known
            ],
        )
    return table(
        caption,
        [first, *(column.title for column in known)],
        [
            (name, [number(values.get(c.key), c.form, c.factor) for c in known])
            for name, values in rows.items()
        ],
    )


def known_columns(
    columns: Sequence[Column], entries: Mapping[str, Mapping[str, Any]]
) -> list[Column]:
    """Those that any entry has; a probability of being no digit must be above 0 to be one."""
    return [
        column
        for column in columns
        if any(
            values.get(column.key) is not None and (values[column.key] or column.key != _NO_DIGIT)
            for values in entries.values()
        )
    ]


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, list[str]]]:
    """Nested figures and settings as rows of a name and one cell of words."""
    rows: list[tuple[str, list[str]]] = []
    for key, value in values.items():
        name = f"{prefix}{words(str(key))}"
        if isinstance(value, Mapping):
            rows += flat(value, f"{name}: ")
        else:
            rows.append((name, [_said(value)]))
    return rows


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{words(str(key))} {_said(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(_said(item) for item in value) if value else NOT_KNOWN
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) < 10_000_000 else str(value)  # larger ones are seeds
    if isinstance(value, float):
        return f"{value:.4g}"
    known = {True: "yes", False: "no", None: NOT_KNOWN}
    return known[value] if isinstance(value, bool | None) else str(value)

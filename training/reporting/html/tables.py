"""Tables of a report: a head, and rows of a name and cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.evaluation.intervals import UNSURE_BELOW
from training.evaluation.summary import OodMetrics, PartMetrics
from training.reporting.columns import (
    PART_COLUMNS,
    SCORE_TITLES,
    UNKNOWN,
    Column,
    format_number,
    shown_columns,
    spaced,
)

INTERVAL_COLUMNS = {
    "monte_carlo": (
        Column("images", "n", "{:,}"),
        Column("probability", "probability", "{:.4f}"),
        Column("lower end", "lower", "{:.4f}"),
        Column("upper end", "upper", "{:.4f}"),
    ),
    "another": (Column("images", "n", "{:,}"), Column("held", "held", "{:.1f} %", 100)),
}
_HASH = "_sha256"


@dataclass(frozen=True)
class Table:
    """Titles of all columns, and for each row its name and its cells.

    The text after a line break in a cell is shown small, below the rest.
    """

    head: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


def percent(share: float | None, places: int = 2) -> str:
    """A share as a percentage; a dash if it is unknown."""
    return format_number(share, f"{{:.{places}f}} %", 100)


def interval(ends: Sequence[float] | None, form: str, factor: float = 1) -> str:
    """Both ends of an interval; empty if there is none."""
    return "" if ends is None else " to ".join(format_number(end, form, factor) for end in ends)


def metrics_table(first: str, columns: Sequence[Column], entries: Mapping[str, Any]) -> Table:
    """A row for each entry, a column for each metric; `first` names the entries."""
    rows = [(name, [column.cell(entry) for column in columns]) for name, entry in entries.items()]
    return Table([first, *(column.title for column in columns)], rows)


def upright_table(columns: Sequence[Column], entries: Mapping[str, Any]) -> Table:
    """A row for each metric, a column for each entry."""
    shown = shown_columns(columns, entries.values())
    rows = [(column.title, [column.cell(m) for m in entries.values()]) for column in shown]
    return Table(["", *entries], rows)


def parts_table(parts: Mapping[str, PartMetrics]) -> Table:
    """A row for each metric with its bootstrap interval, a column for each part."""

    def cell(part: PartMetrics, column: Column) -> str:
        ends = (part.intervals or {}).get(column.attribute)
        return f"{column.cell(part)}\n{interval(ends, column.form, column.factor)}"

    shown = shown_columns(PART_COLUMNS, parts.values())
    rows = [(column.title, [cell(part, column) for part in parts.values()]) for column in shown]
    return Table(["", *parts], rows)


def coverage_table(parts: Mapping[str, PartMetrics]) -> Table:
    """A row for each coverage with the number of errors, a column for each part."""
    levels = next(iter(parts.values())).errors_at_coverage
    rows = []
    for level in levels:
        counts = [part.errors_at_coverage[level] for part in parts.values()]
        rows.append(
            (
                percent(float(level), 0),
                [f"{c.errors:,} of {c.n:,}\n{percent(c.errors / max(1, c.n), 3)}" for c in counts],
            )
        )
    return Table(["coverage", *parts], rows)


def scores_table(sets: Mapping[str, OodMetrics]) -> Table:
    """A row for each score with AUROC and FPR, a column for each out-of-distribution set.

    Scores of the not-a-digit output are left out if the network has none.
    """
    scores = dict.fromkeys(score for metrics in sets.values() for score in metrics.auroc)
    if not any(metrics.not_a_digit for metrics in sets.values()):
        for score in ("not_a_digit", "one_minus_joint_probability"):
            scores.pop(score, None)
    rows = [
        (
            SCORE_TITLES.get(score, spaced(score)),
            [
                f"{format_number(metrics.auroc.get(score), '{:.4f}')}\n"
                f"{percent(metrics.fpr_at_95_tpr.get(score))} pass"
                for metrics in sets.values()
            ],
        )
        for score in scores
    ]
    return Table(["score", *sets], rows)


def interval_rows(groups: Mapping[str, Any]) -> dict[str, Any]:
    """Interval metrics by the name of their group of predictions."""
    return {
        f"unsure, below {UNSURE_BELOW:g}" if name == "unsure" else name: metrics
        for name, metrics in groups.items()
    }


def settings_table(values: Mapping[str, Any]) -> Table:
    """A row for each of the nested settings."""
    return Table(["", "value"], [(name, [_setting(value)]) for name, value in _flat(values)])


def data_table(data: Mapping[str, Any]) -> Table:
    """A row for each part of the data with its size and hash."""
    rows = []
    for key, value in data.items():
        part = value if isinstance(value, Mapping) else {"sha256": value}
        if isinstance(value, Mapping) or key.endswith(_HASH):
            n, sha256 = format_number(part.get("n"), "{:,}"), str(part.get("sha256", UNKNOWN))
            rows.append((spaced(key.removesuffix(_HASH)), [n, sha256]))
    return Table(["part", "images", "SHA-256"], rows)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{prefix}{spaced(str(key))}"
        rows += _flat(value, f"{name}: ") if isinstance(value, Mapping) else [(name, value)]
    return rows


def _setting(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: UNKNOWN}[value]
    if isinstance(value, Mapping):
        return ", ".join(f"{spaced(str(key))} {_setting(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(_setting(item) for item in value) or UNKNOWN
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10_000_000 else str(value)  # larger ones are seeds
    return f"{value:.4g}" if isinstance(value, float) else str(value)

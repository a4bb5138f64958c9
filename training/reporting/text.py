"""The metrics of an evaluation as aligned text, for a terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from training.evaluation.result import Evaluation
from training.evaluation.robustness import CorruptionMetrics, RotationPoint
from training.evaluation.summary import OodMetrics, PartMetrics
from training.reporting.columns import (
    CORRUPTION_COLUMNS,
    OOD_COLUMNS,
    PART_COLUMNS,
    ROTATION_COLUMNS,
    Column,
    format_number,
    shown_columns,
    spaced,
)

_CELL = 14


def format_evaluation(evaluation: Evaluation) -> str:
    """All metrics as text."""
    metrics = evaluation.metrics
    blocks = [format_parts(metrics.parts)]
    if metrics.ood:
        blocks.append(format_ood(metrics.ood))
    if metrics.ood_missing:
        blocks.append(f"not found and left out: {', '.join(metrics.ood_missing)}")
    if metrics.rotation:
        blocks.append(format_rotation(metrics.rotation))
    if metrics.corruptions:
        blocks.append(format_corruptions(metrics.corruptions))
    return "\n\n".join(blocks)


def format_parts(parts: Mapping[str, PartMetrics]) -> str:
    """Metrics of digits, one column per part, and the errors at each coverage below."""
    lines = [_upright(parts, _rows(shown_columns(PART_COLUMNS, parts.values()), parts))]
    for coverage in next(iter(parts.values())).errors_at_coverage:
        counts = {name: part.errors_at_coverage[coverage] for name, part in parts.items()}
        cells = (f"{name} {found.errors} of {found.n:,}" for name, found in counts.items())
        lines.append(f"errors among the {float(coverage):.0%} most certain: {', '.join(cells)}")
    return "\n".join(lines)


def format_ood(sets: Mapping[str, OodMetrics]) -> str:
    """Metrics of out-of-distribution images, one column per set, and of each score below."""
    rows = _rows(shown_columns(OOD_COLUMNS, sets.values()), sets)
    for title, attribute in (("AUROC", "auroc"), ("FPR at 95 % TPR", "fpr_at_95_tpr")):
        for score in next(iter(sets.values())).auroc:
            values = [getattr(metrics, attribute)[score] for metrics in sets.values()]
            cells = [format_number(value, "{:.4f}") for value in values]
            rows.append((f"{title}, {spaced(score)}", cells))
    return _upright(sets, rows)


def format_rotation(points: Sequence[RotationPoint]) -> str:
    """One line per angle."""
    rows = {f"{point.angle_deg:g}°": point for point in points}
    return _table("rotated by", shown_columns(ROTATION_COLUMNS, points), rows)


def format_corruptions(kinds: Mapping[str, CorruptionMetrics]) -> str:
    """One line per kind of corruption."""
    rows = {spaced(kind): metrics for kind, metrics in kinds.items()}
    return _table("corruption", CORRUPTION_COLUMNS, rows)


def _rows(columns: Sequence[Column], entries: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The title of each column with the cells of all entries."""
    return [(column.title, [column.cell(m) for m in entries.values()]) for column in columns]


def _upright(names: Iterable[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A line for each metric, a column for each name."""
    width = max(len(title) for title, _ in rows)
    lines = [("", list(names)), *rows]
    return "\n".join(
        f"{title:<{width}}" + "".join(f"{cell:>{_CELL}}" for cell in cells)
        for title, cells in lines
    )


def _table(first: str, columns: Sequence[Column], rows: Mapping[str, Any]) -> str:
    """A line for each entry, a column for each metric."""
    width = max(len(first), *map(len, rows))
    lines = [f"{first:<{width}}" + "".join(f"  {column.title}" for column in columns)]
    for name, metrics in rows.items():
        cells = (f"  {column.cell(metrics):>{len(column.title)}}" for column in columns)
        lines.append(f"{name:<{width}}{''.join(cells)}")
    return "\n".join(lines)

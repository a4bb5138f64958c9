"""What a soak test measures, beside the bars that it must reach."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

__all__ = ["Measurements", "Row", "format_rows", "growth_per_item", "write_results"]

_MIN_SAMPLES = 10
_COLUMNS = ("test", "quantity", "measured", "bar", "reached")


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        quantity: What was measured, with its unit.
        value: The result.
        bar: What the result must be; empty where there is no bar.
        reached: Whether the result reaches the bar.
        strict: Whether the bar holds on any machine, however slow or busy.
    """

    quantity: str
    value: float | int | str
    bar: str = ""
    reached: bool = True
    strict: bool = True


@dataclass
class Measurements:
    """The measurements of one test.

    Args:
        title: What the test does.
        long: Whether this is the long form, which also enforces bars of time and memory.
    """

    title: str
    long: bool
    rows: list[Row] = field(default_factory=list)

    def note(self, quantity: str, value: float | int | str) -> None:
        """Record a measurement without a bar."""
        self.rows.append(Row(quantity, value))

    def require(
        self,
        quantity: str,
        value: float | int | str,
        bar: str,
        reached: bool,
        *,
        strict: bool = True,
    ) -> None:
        """Record a measurement with its bar, which `check` enforces.

        Args:
            quantity: What was measured, with its unit.
            value: The result.
            bar: What the result must be.
            reached: Whether it is.
            strict: Whether the bar holds on any machine; if not, only the long form enforces it.
        """
        self.rows.append(Row(quantity, value, bar, reached, strict))

    def check(self) -> None:
        """Fail if a bar was missed, and name all that were."""
        missed = [
            f"{row.quantity}: {_formatted(row.value)}, must be {row.bar}"
            for row in self.rows
            if not row.reached and (row.strict or self.long)
        ]
        assert not missed, f"{self.title}: " + "; ".join(missed)


def format_rows(tests: Sequence[Measurements]) -> str:
    """Format all measurements as aligned text."""
    lines = [_COLUMNS, *(_cells(test, row) for test in tests for row in test.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def write_results(folder: Path, tests: Sequence[Measurements], form: Mapping[str, object]) -> None:
    """Write all measurements as JSON and as a Markdown table."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {test.title: [vars(row) for row in test.rows] for test in tests}
    (folder / "soak.json").write_text(json.dumps({**form, "measurements": rows}, indent=1) + "\n")
    lines = [_COLUMNS, ("---",) * len(_COLUMNS)]
    lines += [_cells(test, row) for test in tests for row in test.rows]
    (folder / "soak.md").write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))


def growth_per_item(samples: Sequence[float], *, window: int) -> float:
    """Estimate the growth for each item, by least squares after a warm-up.

    Args:
        samples: Values after every `window` items; the first quarter is the warm-up.
        window: Items between two samples.

    Raises:
        ValueError: If there are too few samples after the warm-up.
    """
    later = samples[len(samples) // 4 :]
    if len(later) < _MIN_SAMPLES:
        raise ValueError(f"{len(later)} samples after the warm-up are too few to tell a growth")
    return float(np.polyfit(np.arange(len(later)), later, 1)[0]) / window


def _cells(test: Measurements, row: Row) -> tuple[str, ...]:
    reached = "" if not row.bar else "yes" if row.reached else "NO"
    return test.title, row.quantity, _formatted(row.value), row.bar, reached


def _formatted(value: float | int | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.3g}"

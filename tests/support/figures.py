"""What a soak test has measured, beside the bar that it had to reach."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common.report import format_table, write_json

__all__ = ["Figures", "Row", "keep", "shown"]


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        what: What was measured, with its unit.
        value: How much it was.
        bar: What it had to be; empty where there is no bar.
        holds: Whether it was.
        fixed: Whether the bar holds on any machine, however slow or busy.
    """

    what: str
    value: float | int | str
    bar: str = ""
    holds: bool = True
    fixed: bool = True


@dataclass
class Figures:
    """The figures of one test.

    Args:
        title: What was done.
        long: Whether this is the long form, in which bars of time and size hold, too.
    """

    title: str
    long: bool
    rows: list[Row] = field(default_factory=list)

    def note(self, what: str, value: float | int | str) -> None:
        """Keep a figure for which there is no bar."""
        self.rows.append(Row(what, value))

    def require(
        self, what: str, value: float | int | str, bar: str, holds: bool, *, fixed: bool = True
    ) -> None:
        """Keep a figure and whether it reaches its bar; `check` then says so.

        Args:
            what: What was measured, with its unit.
            value: How much it was.
            bar: What it has to be.
            holds: Whether it is.
            fixed: Whether the bar holds on any machine; if not, the long form alone checks it.
        """
        self.rows.append(Row(what, value, bar, holds, fixed))

    def check(self) -> None:
        """Fail if a bar was missed, naming all that were."""
        missed = [
            f"{row.what}: {_told(row.value)}, must be {row.bar}"
            for row in self.rows
            if not row.holds and (row.fixed or self.long)
        ]
        assert not missed, f"{self.title}: " + "; ".join(missed)


def shown(tests: Sequence[Figures]) -> str:
    """All figures as a table of aligned text."""
    return format_table([_cells(test, row) for test in tests for row in test.rows])


def keep(folder: Path, tests: Sequence[Figures], circumstances: Mapping[str, object]) -> None:
    """Write all figures as JSON and as a table in Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {test.title: [vars(row) for row in test.rows] for test in tests}
    write_json(folder / "soak.json", {**circumstances, "figures": rows})
    lines = ["| what | figure | measured | bar | held |", "|---|---|---|---|---|"]
    lines += [
        "| " + " | ".join(_cells(test, row).values()) + " |" for test in tests for row in test.rows
    ]
    (folder / "soak.md").write_text("\n".join(lines) + "\n")


def _cells(test: Figures, row: Row) -> dict[str, str]:
    held = "" if not row.bar else "yes" if row.holds else "NO"
    return {
        "what": test.title,
        "figure": row.what,
        "measured": _told(row.value),
        "bar": row.bar,
        "held": held,
    }


def _told(value: float | int | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.3g}"

"""What every benchmark prints and keeps: rows as a table, and JSON with machine and versions."""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["Row", "circumstances", "format_table", "write_json"]

Row = Mapping[str, Any]

_ROOT = Path(__file__).parents[2]
_VERSIONED = ("maybe-neural-network", "numpy", "onnxruntime", "torch", "fastapi", "uvicorn")


def circumstances() -> dict[str, Any]:
    """The machine, the versions and the commit that a measurement belongs to."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _VERSIONED},
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed": bool(_git("status", "--porcelain")),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def format_table(rows: Sequence[Row]) -> str:
    """Rows of equal keys as aligned text; numbers to three significant digits."""
    columns = list(rows[0])
    cells = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def write_json(path: Path, results: Mapping[str, Any]) -> None:
    """Keep the results with the circumstances they were measured in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**circumstances(), **results}, indent=1) + "\n")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(": ", 1)[1] for x in lines if x.startswith("model name")), "unknown")


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()

"""Command line, tables and JSON results of the benchmarks."""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

_ROOT = Path(__file__).parents[2]
_PACKAGES = (
    "maybe-neural-network", "numpy", "onnxruntime", "torch", "fastapi", "uvicorn",
    "bayesian-torch", "blitz-bayesian-pytorch", "torchbnn",
)  # fmt: skip


def make_parser(
    module: str, description: str | None, *, quick: str | None = None
) -> argparse.ArgumentParser:
    """Make a parser with the option `--json` and, if `quick` says what it reduces, `--quick`."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=description)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    if quick:
        parser.add_argument("--quick", action="store_true", help=f"a smoke test: {quick}")
    return parser


def format_table(rows: Sequence[Row]) -> str:
    """Format rows with equal keys as aligned text, numbers with three significant digits.

    Examples:
        >>> print(format_table([{"what": "a", "ms": 1.23456}, {"what": "longer", "ms": 12345.6}]))
        what        ms
        a         1.23
        longer  12,346
    """
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


def write_json(path: Path | None, results: Mapping[str, Any]) -> None:
    """Write the results with the machine, versions and commit they belong to; skip a path None."""
    if path is None:
        return
    environment = {
        "cpu": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(_PACKAGES),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain")),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**environment, **results}, indent=1) + "\n")


def has(module: str) -> bool:
    """Whether a module is installed."""
    return importlib.util.find_spec(module) is not None


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(": ", 1)[1] for x in lines if x.startswith("model name")), "unknown")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

"""Benchmarks run as commands, in their quick form."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

__all__ = ["run_benchmark"]


def run_benchmark(folder: Path, module: str, *options: str) -> tuple[str, dict[str, Any]]:
    """Run a benchmark with `--quick`.

    Args:
        folder: A temporary folder.
        module: The module below `benchmarks`.
        options: More options.

    Returns:
        Its output, and the JSON that it wrote.
    """
    path = folder / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", "--quick", "--json", str(path), *options],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.stdout, json.loads(path.read_text())

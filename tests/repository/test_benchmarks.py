"""The benchmarks run from a clone and record the machine; their formulas are right."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.benchmarks import run_benchmark
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("module", "n_examples"), [("common/report.py", 1), ("serving/queueing.py", 9)]
)
def test_the_examples_in_docstrings_hold(module: str, n_examples: int) -> None:
    """Queueing formulas against known queues, and the layout of tables."""
    done = subprocess.run(
        [sys.executable, "-m", "doctest", "-v", f"benchmarks/{module}"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(rf"^{n_examples} passed", done.stdout, re.MULTILINE), done.stdout[-500:]


def test_preprocessing_measures_each_image(tmp_path: Path) -> None:
    printed, results = run_benchmark(tmp_path, "inference.preprocessing")
    assert {"cpu", "cpus", "python", "versions", "commit", "time"} <= results.keys()
    rows = {row["image"]: row for row in results["preprocessing"]}
    assert rows["1 MP, PNG grey"]["found"] == "a digit"
    assert rows["1 MP, PNG noise"]["found"] == "no_ink"
    assert all(row["after ms"] > 0 for row in rows.values())
    assert all(name in printed for name in rows)

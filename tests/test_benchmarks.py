"""The benchmarks run from a clone, and keep what they print with the machine it belongs to."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.deslant import deslanted
from benchmarks.report import format_table
from tests.conftest import ROOT


def test_a_table_is_aligned_and_rounded() -> None:
    rows = [{"what": "a", "ms": 1.23456}, {"what": "longer", "ms": 12345.6}]
    assert format_table(rows).splitlines() == [
        "what        ms",
        "a         1.23",
        "longer  12,346",
    ]


def run(tmp_path: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """A benchmark in its quick form: what it printed, and what it kept."""
    kept = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", *arguments, "--quick", "--json", str(kept)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    results: dict[str, Any] = json.loads(kept.read_text())
    assert {"cpu", "cores", "python", "versions", "commit", "time"} <= results.keys()
    return done.stdout, results


@pytest.mark.slow
def test_predict_compares_the_engines_in_one_run(tmp_path: Path) -> None:
    printed, results = run(tmp_path, "benchmarks.predict", "--part", "speed")
    (rows,) = [rows for title, rows in results["speed"].items() if "1 picture, 100 draws" in title]
    names = {row["contender"] for row in rows}
    assert "ensemble engine, 1 thread" in names
    assert "deterministic network, 1 pass" in names
    assert all(name in printed for name in names)
    assert all(row["ms"] > 0 for row in rows if row["contender"] != "matrix product")


@pytest.mark.slow
def test_door_tells_what_each_picture_costs(tmp_path: Path) -> None:
    printed, results = run(tmp_path, "benchmarks.door")
    rows = {row["picture"]: row for row in results["door"]}
    assert rows["1 MP, PNG grey"]["found"] == "a digit"
    assert all(name in printed for name in rows)


@pytest.mark.slow
@pytest.mark.mnist
def test_deslant_compares_on_the_validation_part(tmp_path: Path, mnist_root: Path) -> None:
    _, results = run(tmp_path, "benchmarks.deslant", "--data-dir", str(mnist_root))
    assert [row["pictures"] for row in results["rows"]] == ["as the door leaves it", "deslanted"]
    assert all(row["validation, error %"] < 50 for row in results["rows"])


def test_deslanting_sets_a_slanted_stroke_upright() -> None:
    slanted = np.zeros((28, 28), np.uint8)
    for row in range(5, 24):
        slanted[row, 21 - row // 2 : 24 - row // 2] = 255
    columns = np.flatnonzero(deslanted(slanted).max(axis=0) > 128)
    assert np.ptp(columns) < 5 < np.ptp(np.flatnonzero(slanted.max(axis=0)))


@pytest.mark.slow
def test_train_compares_a_step_with_a_deterministic_one(tmp_path: Path) -> None:
    _, results = run(tmp_path, "benchmarks.train")
    rows = {(r["contender"], r["augmentation"]): r for r in results["step"]["rows"]}
    assert rows["deterministic", "yes"]["× deterministic"] == 1
    assert rows["Bayesian, this project", "yes"]["× deterministic"] > 1

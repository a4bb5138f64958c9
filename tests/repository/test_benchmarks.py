"""The benchmarks run from a clone, and keep what they print with the machine it belongs to."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.common.report import format_table
from benchmarks.serving.queueing import busy_probability, mean_wait, wait_percentile
from benchmarks.training.deslant import deslanted
from tests.support.paths import ROOT


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
    printed, results = run(tmp_path, "benchmarks.inference.predict", "--part", "speed")
    (rows,) = [rows for title, rows in results["speed"].items() if "1 picture, 100 draws" in title]
    names = {row["contender"] for row in rows}
    assert "ensemble engine, 1 thread" in names
    assert "deterministic network, 1 pass" in names
    assert all(name in printed for name in names)
    assert all(row["ms"] > 0 for row in rows if row["contender"] != "matrix product")


@pytest.mark.slow
def test_door_tells_what_each_picture_costs(tmp_path: Path) -> None:
    printed, results = run(tmp_path, "benchmarks.inference.preprocessing")
    rows = {row["picture"]: row for row in results["door"]}
    assert rows["1 MP, PNG grey"]["found"] == "a digit"
    assert all(name in printed for name in rows)


@pytest.mark.slow
@pytest.mark.mnist
def test_deslant_compares_on_the_validation_part(tmp_path: Path, mnist_root: Path) -> None:
    _, results = run(tmp_path, "benchmarks.training.deslant", "--data-dir", str(mnist_root))
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
    _, results = run(tmp_path, "benchmarks.training.train")
    rows = {(r["contender"], r["augmentation"]): r for r in results["step"]["rows"]}
    assert rows["deterministic", "yes"]["× deterministic"] == 1
    assert rows["Bayesian, this project", "yes"]["× deterministic"] > 1


@pytest.mark.slow
def test_ranks_compares_a_step_of_two_with_one_alone(tmp_path: Path) -> None:
    _, results = run(tmp_path, "benchmarks.training.ranks")
    assert [row["ranks"] for row in results["ranks"]] == ["1", "2"]
    assert all(row["ms per step"] > 0 for row in results["ranks"])


@pytest.mark.slow
def test_scaling_measures_a_process_and_foretells_its_waiting(tmp_path: Path) -> None:
    printed, results = run(tmp_path, "benchmarks.serving.scaling")
    foretold = [row for row in results["waiting, foretold and found"] if row[""] == "a process"]
    assert [row["load"] for row in foretold] == [0.5, 0.7, 0.85]
    assert all(row["found"] > 0 for row in foretold)
    assert "99 % wait at most, ms, a queue for each lane" in printed


@pytest.mark.parametrize(
    ("n_servers", "load", "expected"),
    [(1, 0.3, 0.3), (2, 1.0, 1 / 3), (3, 2.0, 4 / 9), (10, 8.0, 0.40918), (5, 0.0, 0.0)],
)
def test_all_servers_are_busy_as_often_as_erlang_has_it(
    n_servers: int, load: float, expected: float
) -> None:
    assert busy_probability(n_servers, load) == pytest.approx(expected, rel=1e-4)


def test_waiting_is_that_of_known_queues() -> None:
    m_m_1 = mean_wait(1, 0.8, 0.1, service_cv2=1.0)
    assert m_m_1 == pytest.approx(0.4)  # ρS / (1 - ρ)
    assert mean_wait(1, 0.8, 0.1) == pytest.approx(0.2)  # Pollaczek and Khinchine: half, for M/D/1
    assert mean_wait(2, 1.0, 0.3, service_cv2=1.0) == pytest.approx(0.1)  # M/M/2
    # M/M/1: P(W > t) = ρ exp(-(1 - ρ) t / S)
    assert wait_percentile(1, 0.8, m_m_1, 95) == pytest.approx(np.log(0.8 / 0.05) * 0.1 / 0.2)
    assert wait_percentile(1, 0.04, mean_wait(1, 0.04, 0.1), 95) == 0.0
    with pytest.raises(ValueError, match="cannot be served"):
        mean_wait(2, 2.0, 0.1)


def test_waiting_is_that_of_a_simulated_queue() -> None:
    """Two servers, alike service times, chance arrivals: an approximation, within a tenth."""
    generator = np.random.default_rng(0)
    n, service_s, load = 200_000, 0.1, 1.6
    free, now, waited = [0.0, 0.0], 0.0, 0.0
    for gap in generator.exponential(service_s / load, n):
        now += gap
        begins = max(now, free[0])
        waited += begins - now
        free = sorted([begins + service_s, free[1]])
    assert mean_wait(2, load, service_s) == pytest.approx(waited / n, rel=0.1)

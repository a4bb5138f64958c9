"""The benchmarks that take longer, in their quick form."""

from pathlib import Path

from tests.support.benchmarks import run_benchmark


def test_predict_compares_the_engines_in_one_run(tmp_path: Path) -> None:
    printed, results = run_benchmark(tmp_path, "inference.predict", "--part", "speed")
    (rows,) = [rows for title, rows in results["speed"].items() if "1 image, 100 draws" in title]
    names = {row["contender"] for row in rows}
    assert "ONNX engine, 1 thread" in names
    assert "deterministic network, 1 pass" in names
    assert all(name in printed for name in names)
    assert all(row["ms"] > 0 for row in rows if row["contender"] != "matrix product")


def test_train_compares_a_step_with_a_deterministic_one(tmp_path: Path) -> None:
    _, results = run_benchmark(tmp_path, "training.train")
    rows = {(r["contender"], r["augmentation"]): r for r in results["step"]["rows"]}
    assert rows["deterministic", "yes"]["× deterministic"] == 1
    assert rows["Bayesian, this project", "yes"]["× deterministic"] > 1


def test_ranks_compares_a_step_of_two_with_one_alone(tmp_path: Path) -> None:
    _, results = run_benchmark(tmp_path, "training.ranks")
    assert [row["ranks"] for row in results["ranks"]] == ["1", "2"]
    assert all(row["ms per step"] > 0 for row in results["ranks"])


def test_scaling_measures_a_process_and_predicts_its_waiting(tmp_path: Path) -> None:
    printed, results = run_benchmark(tmp_path, "serving.scaling")
    rows = [row for row in results["waiting, predicted and measured"] if row[""] == "a process"]
    assert [row["load"] for row in rows] == [0.5, 0.7, 0.85]
    assert all(row["measured"] > 0 for row in rows)
    assert "p99 wait, ms, one queue for each worker thread" in printed

"""`python -m training.baselines` on real digits, with few images and one epoch."""

import json
from pathlib import Path

import pytest

from training.baselines.__main__ import main


def test_the_command_puts_all_methods_into_one_table(
    mnist_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "baselines.json"
    options = ["--quick", "--epochs", "1", "--members", "2", "--data-dir", str(mnist_root)]
    assert main([*options, "--json", str(file)]) == 0
    results = json.loads(file.read_text())["results"]
    names = ["Bayesian", "deterministic", "with temperature", "MC dropout", "ensemble of 2"]
    assert sorted(results) == sorted(names)
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
    assert results["deterministic"]["test"]["mutual_information"] == 0
    assert results["ensemble of 2"]["test"]["mutual_information"] > 0

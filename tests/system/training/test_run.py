"""`python -m training.run` and `training.evaluate` on real digits, with their defaults."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model import load, load_checkpoint
from model.checkpoint import BUNDLED
from tests.support.commands import Result, call
from tests.support.paths import ROOT
from training import evaluate, run
from training.data.datasets import Digits
from training.data.ood import OOD_SETS

# On a CPU and with a stated number of threads, where equal seeds promise equal bytes. One thread:
# two would wait for each other wherever something else runs beside them.
ONE = ("--threads", "1")
SHORT = ("--dataset", "digits", "--epochs", "8", "--device", "cpu", "--brief", *ONE)
NAME = "sklearn-digits.safetensors"


def train(folder: Path, *arguments: object) -> Result:
    result = call(run.main, folder, *arguments)
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole run of `--dataset digits` with its defaults."""
    folder = tmp_path_factory.mktemp("training")
    # No out-of-distribution sets are found there: they take minutes.
    result = train(folder, "--dataset", "digits", "--data-dir", folder, *ONE)
    return folder / "checkpoints" / NAME, result.stdout


def test_a_run_leaves_the_weights_and_their_report(trained: tuple[Path, str]) -> None:
    path, output = trained
    checkpoint = load_checkpoint(path)
    assert re.search(r"epoch 40/40: NLL [\d.]+, KL [\d,]+ nats, validation error", output)
    assert checkpoint.version(100) in output.strip().splitlines()[-1]
    left = {path.with_suffix(suffix).name for suffix in (".safetensors", ".html", ".json")}
    assert {p.name for p in path.parent.iterdir()} == left


def test_the_result_is_a_good_classifier_of_these_digits(trained: tuple[Path, str]) -> None:
    metrics = load_checkpoint(trained[0]).metrics["test"]
    assert metrics["n"] == 360
    assert metrics["error"] <= 0.03
    assert metrics["nll"] <= 0.12


def test_the_checkpoint_records_the_sizes_of_its_parts(trained: tuple[Path, str]) -> None:
    checkpoint = load_checkpoint(trained[0])
    data = checkpoint.training["data"]
    sizes = {name: data[name]["n"] for name in ("fit", "validation", "calibration")}
    assert sizes == {"fit": 837, "validation": 200, "calibration": 400}
    assert len(checkpoint.training["epochs"]) == 40
    assert checkpoint.selective.n_calibration == checkpoint.conformal.n_calibration == 400


def test_the_result_answers_at_once(trained: tuple[Path, str]) -> None:
    classifier = load(trained[0], device="cpu")
    test = Digits().test()
    right = [
        classifier.predict(image).prediction == str(label)
        for image, label in zip(test.images[:40], test.labels, strict=False)
    ]
    assert np.mean(right) >= 0.9


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The version of a run of eight epochs that was never interrupted."""
    folder = tmp_path_factory.mktemp("short")
    train(folder, *SHORT)
    return version(folder / "checkpoints" / NAME)


def version(path: Path) -> str:
    return load_checkpoint(path).version(100)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_stopped_resumes_to_the_very_same_model(
    short: str, tmp_path: Path, sent: signal.Signals
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "training.run", *SHORT],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2/8"):
            process.send_signal(sent)
            break
    _, errors = process.communicate(timeout=60)
    if sent != signal.SIGKILL:
        assert process.returncode == 130
        assert "the same command continues" in errors
        assert "Traceback" not in errors
    output = tmp_path / "checkpoints" / NAME
    assert not output.exists()
    result = train(tmp_path, *SHORT)
    assert re.search(r"continuing the unfinished run after epoch [2-8] of 8", result.stdout)
    assert version(output) == short
    assert len(load_checkpoint(output).training["epochs"]) == 8


def test_the_bundled_weights_reach_the_bar_on_the_real_test_images(mnist_root: Path) -> None:
    """The table in the README, from the weights alone; takes about a minute."""
    result = call(evaluate.main, ROOT, "--data-dir", mnist_root, "--only", "test")
    assert result.returncode == 0
    metrics = load_checkpoint(BUNDLED).metrics["test"]
    line = r"^(images|error rate|negative log-likelihood|calibration error).*? {2,}([\d.,]+)"
    rows = dict(re.findall(line, result.stdout, re.MULTILINE))
    values = {name: float(value.replace(",", "")) for name, value in rows.items()}
    assert values["images"] == 10_000
    assert values["error rate"] <= 0.50
    assert values["negative log-likelihood"] <= 0.015
    assert values["calibration error"] <= 0.5
    assert values["error rate"] == pytest.approx(100 * metrics["error"], abs=0.011)
    assert values["negative log-likelihood"] == pytest.approx(metrics["nll"], abs=1e-4)


def test_one_epoch_of_mnist_works_and_reports_its_cost(mnist_root: Path, tmp_path: Path) -> None:
    hasty = ("--epochs", 1, "--imitated", 0, "--brief", *ONE)
    result = train(tmp_path, *hasty, "--data-dir", mnist_root)
    assert re.search(
        r"A short run, 1 of the usual \d+ epochs: validation error [\d.]+ %, where the bundled "
        r"weights have [\d.]+ %",
        result.stdout,
    )
    metrics = load_checkpoint(tmp_path / "checkpoints" / "digits.safetensors").metrics
    assert metrics["test"]["error"] < 0.05


def test_the_whole_evaluation_of_the_bundled_weights(mnist_root: Path, tmp_path: Path) -> None:
    """With few images and draws: seconds instead of ten minutes."""
    options = ("--data-dir", mnist_root, "--limit", 300, "--draws", 20, "--another", BUNDLED)
    result = call(evaluate.main, tmp_path, *options)
    assert result.returncode == 0, result.stderr
    for part in ("AUROC", "canny edges", "rotated by", "report.html"):
        assert part in result.stdout
    metrics = json.loads((tmp_path / "report.json").read_text())
    assert {part["n"] for part in metrics["parts"].values()} == {300}
    assert metrics["intervals"]["another"]["all"]["held"] > 0.9  # compared with itself
    named = set(metrics["foreign"]) | set(metrics["foreign_missing"])
    assert named == {known.name for known in OOD_SETS}
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page or "data:image/png" in page

"""`python -m training.run` as a user runs it: end to end on real digits, interrupted, refused."""

import contextlib
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from model import BayesianCNN, Checkpoint, load, load_checkpoint
from model.checkpoint import BUNDLED
from tests.support.paths import ROOT
from training import evaluate, run
from training.data.datasets import Digits
from training.fitting.trainer import EpochSummary, Fitter

# On a CPU and with a stated number of threads, where equal seeds promise equal bytes.
SHORT = ("--dataset", "digits", "--epochs", "8", "--device", "cpu", "--brief")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", *map(str, arguments)]


@dataclass
class Result:
    """What a command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


def called(function: Callable[[list[str]], int], folder: Path, *arguments: object) -> Result:
    """Run a command in this process, which spares the seconds that importing PyTorch takes."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), contextlib.chdir(folder):
        try:
            code = function([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse has refused an option
            code = int(stop.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def train(folder: Path, *arguments: object, check: bool = True) -> Result:
    result = called(run.main, folder, *arguments)
    assert not check or result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The tests' real end-to-end run: the whole `--dataset digits` with its defaults."""
    folder = tmp_path_factory.mktemp("training")
    # No foreign data sets are to be found there: they would take minutes.
    result = train(folder, "--dataset", "digits", "--data-dir", folder)
    return folder / "checkpoints" / "sklearn-digits.safetensors", result.stdout


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of eight epochs, never interrupted."""
    folder = tmp_path_factory.mktemp("short")
    result = train(folder, *SHORT)
    return folder / "checkpoints" / "sklearn-digits.safetensors", result.stdout


def test_a_run_ends_by_saying_what_it_wrote_and_how_good_it_is(trained: tuple[Path, str]) -> None:
    path, output = trained
    checkpoint = load_checkpoint(path)
    last = output.strip().splitlines()[-1]
    assert "checkpoints/sklearn-digits.safetensors" in last
    assert checkpoint.version(100) in last
    assert f"{100 * checkpoint.metrics['test']['error']:.2f} %" in last
    assert re.search(r"epoch 40/40: NLL [\d.]+, KL [\d,]+ nats, validation error", output)
    # Nothing but the weights and their report is left lying about.
    left = {path.with_suffix(suffix).name for suffix in (".safetensors", ".html", ".json")}
    assert {p.name for p in path.parent.iterdir()} == left


def test_the_result_is_a_good_reader_of_these_digits(trained: tuple[Path, str]) -> None:
    figures = load_checkpoint(trained[0]).metrics["test"]
    assert figures["n"] == 360
    assert figures["error"] <= 0.03
    assert figures["nll"] <= 0.12


def test_the_checkpoint_tells_where_it_comes_from(trained: tuple[Path, str]) -> None:
    checkpoint = load_checkpoint(trained[0])
    provenance = checkpoint.training
    assert provenance["dataset"] == "digits"
    assert {
        name: provenance["data"][name]["n"] for name in ("fit", "validation", "calibration")
    } == {
        "fit": 837,
        "validation": 200,
        "calibration": 400,
    }
    assert len(provenance["epochs"]) == 40
    assert provenance["fit"]["beta"] == 0.02
    assert "torch" in provenance["versions"]
    assert checkpoint.selective.n_calibration == checkpoint.conformal.n_calibration == 400
    assert "scikit-learn" in checkpoint.selective.population


def test_the_result_answers_at_once(trained: tuple[Path, str]) -> None:
    classifier = load(trained[0], device="cpu")
    test = Digits().test()
    right = [
        classifier.predict(image).prediction == str(label)
        for image, label in zip(test.images[:40], test.labels, strict=False)
    ]
    assert np.mean(right) >= 0.9


def test_evaluation_reproduces_the_table_from_the_weights_alone(trained: tuple[Path, str]) -> None:
    path, output = trained
    result = called(evaluate.main, path.parent, path, "--brief")
    assert result.returncode == 0
    table = [line for line in output.splitlines() if "calibration error" in line or "NLL (" in line]
    assert len(table) == 3
    for line in table:
        assert line in result.stdout


def weights(path: Path) -> tuple[str, Checkpoint]:
    checkpoint = load_checkpoint(path)
    return checkpoint.version(100), checkpoint


def test_the_same_seed_gives_the_same_model_and_another_seed_another(
    short: tuple[Path, str], tmp_path: Path
) -> None:
    same, other = tmp_path / "same.safetensors", tmp_path / "other.safetensors"
    train(tmp_path, *SHORT, "--output", same)
    train(tmp_path, *SHORT, "--output", other, "--seed", 1)
    assert weights(same)[0] == weights(short[0])[0]
    assert weights(other)[0] != weights(short[0])[0]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_continues_to_the_very_same_model(
    short: tuple[Path, str], tmp_path: Path, sent: signal.Signals
) -> None:
    process = subprocess.Popen(
        command("training.run", *SHORT),
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
    output = tmp_path / "checkpoints" / "sklearn-digits.safetensors"
    assert not output.exists()
    result = train(tmp_path, *SHORT)
    assert re.search(r"continuing the unfinished run after epoch [2-8] of 8", result.stdout)
    assert weights(output)[0] == weights(short[0])[0]
    assert len(weights(output)[1].training["epochs"]) == 8


def test_an_interruption_that_strikes_in_a_destructor_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Struck:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)  # what its handler raises is swallowed here

    plain = Fitter.summarise

    def summarise(fitter: Fitter[BayesianCNN], steps: list[tuple[float, float]]) -> EpochSummary:
        Struck()
        return plain(fitter, steps)

    monkeypatch.setattr(Fitter, "summarise", summarise)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    result = train(tmp_path, *SHORT, check=False)
    assert result.returncode == 130
    assert "epoch 1/8" in result.stdout
    assert "epoch 2/8" not in result.stdout


def test_an_unfinished_run_with_other_settings_is_not_thrown_away(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("training.run", *SHORT), cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 1/8"):
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(timeout=60)
    refused = train(tmp_path, "--dataset", "digits", "--epochs", 2, "--device", "cpu", check=False)
    assert refused.returncode == 2
    assert "--fresh" in refused.stderr
    assert "epochs" in refused.stderr
    result = train(tmp_path, "--dataset", "digits", "--epochs", 2, "--fresh", "--force", "--brief")
    assert "wrote" in result.stdout


def test_a_damaged_unfinished_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.unfinished.safetensors").write_bytes(b"nothing of use")
    refused = train(tmp_path, *SHORT, "--output", "x.safetensors", check=False)
    assert refused.returncode == 2
    assert "x.unfinished.safetensors" in refused.stderr
    assert "--fresh" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_result_below_the_floor_replaces_nothing_unless_forced(
    short: tuple[Path, str], tmp_path: Path
) -> None:
    output = tmp_path / "good.safetensors"
    output.write_bytes(short[0].read_bytes())
    poor = (*SHORT, "--epochs", 1, "--learning-rate", 1e-6, "--output", output)
    refused = train(tmp_path, *poor, check=False)
    assert refused.returncode == 3
    assert re.search(r"validation accuracy [\d.]+ % is below the floor of 90 %", refused.stderr)
    assert "--force" in refused.stderr
    assert output.read_bytes() == short[0].read_bytes()
    forced = train(tmp_path, *poor, "--force")
    assert "continuing" in forced.stdout  # the fit is not done again
    assert output.read_bytes() != short[0].read_bytes()


def test_a_fit_that_diverges_is_never_written(tmp_path: Path) -> None:
    output = tmp_path / "x.safetensors"
    result = train(
        tmp_path, *SHORT, "--learning-rate", 1e30, "--output", output, "--force", check=False
    )
    assert result.returncode == 3
    assert "not finite" in result.stderr
    assert not output.exists()


def test_a_short_run_says_what_it_costs(short: tuple[Path, str]) -> None:
    assert re.search(r"A short run, 8 of the usual 40 epochs: validation error [\d.]+ %", short[1])


def test_without_data_and_network_it_exits_2_with_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # A port of the loopback interface that nothing listens on: no other host is asked.
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.chdir(tmp_path)
    assert run.main(["--data-dir", "nowhere"]) == 2
    captured = capfd.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert "nowhere" in line
    assert "--dataset digits" in line
    assert captured.out == ""
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert not (tmp_path / "nowhere").exists()


def test_an_output_that_cannot_be_written_is_told_before_the_fit(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    result = train(tmp_path, *SHORT, "--output", "taken/x.safetensors", check=False)
    assert result.returncode == 1
    assert "taken" in result.stderr
    assert "Traceback" not in result.stderr
    assert "epoch" not in result.stdout


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (errno.ENOSPC, "is full. Make room and run the same command again"),
        (errno.EROFS, "may not write in checkpoints (Read-only file system). Hand that folder"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_file_system_that_refuses_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int, advice: str
) -> None:
    # `tests/system/containers/test_containers.py` has real ones: a full volume, and one of another user's.
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(run, "train", refuse)
    result = train(tmp_path, *SHORT, check=False)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: could not write checkpoints/sklearn-digits.safetensors: ")
    assert advice in line


@pytest.mark.parametrize(
    "options",
    [
        ("--epochs", 0),
        ("--beta", -1),
        ("--beta", "nan"),
        ("--coverage", 99.9),
        ("--target-risk", 5),
        ("--dataset", "cats"),
        ("--seed", "x"),
    ],
)
def test_options_that_make_no_sense_exit_2(tmp_path: Path, options: tuple[object, ...]) -> None:
    result = train(tmp_path, "--dataset", "digits", *options, check=False)
    assert result.returncode == 2
    assert str(options[0]) in result.stderr
    assert "Traceback" not in result.stderr


def test_evaluating_a_missing_checkpoint_exits_2(tmp_path: Path) -> None:
    result = called(evaluate.main, tmp_path, "absent.safetensors")
    assert result.returncode == 2
    assert "absent.safetensors" in result.stderr


@pytest.mark.mnist
def test_the_shipped_weights_reach_the_bar_on_the_real_test_pictures(mnist_root: Path) -> None:
    """The table in the README, from the weights alone; takes about a minute."""
    result = called(evaluate.main, ROOT, "--data-dir", mnist_root, "--only", "test")
    assert result.returncode == 0
    rows = {
        re.split(" {2,}", line)[0]: float(re.split(" {2,}", line)[1].split()[0].replace(",", ""))
        for line in result.stdout.splitlines()
        if re.match(r"(pictures|error|NLL \(nats\)|calibration error, 15 bins) {2,}", line)
    }
    assert rows["pictures"] == 10_000
    assert rows["error"] <= 0.50
    assert rows["NLL (nats)"] <= 0.015
    assert rows["calibration error, 15 bins"] <= 0.5
    recorded = load_checkpoint(BUNDLED).metrics["test"]
    assert rows["error"] == pytest.approx(100 * recorded["error"], abs=0.011)
    assert rows["NLL (nats)"] == pytest.approx(recorded["nll"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.mnist
def test_one_epoch_of_mnist_works_and_says_what_it_costs(mnist_root: Path, tmp_path: Path) -> None:
    # One thread: two would wait for each other wherever something else runs beside them.
    hasty = ("--epochs", 1, "--imitated", 0, "--brief", "--threads", 1)
    result = train(tmp_path, *hasty, "--data-dir", mnist_root)
    assert (tmp_path / "checkpoints" / "digits.safetensors").exists()
    assert re.search(
        r"A short run, 1 of the usual \d+ epochs: validation error [\d.]+ %, where the shipped "
        r"weights have [\d.]+ %",
        result.stdout,
    )
    assert (
        load_checkpoint(tmp_path / "checkpoints" / "digits.safetensors").metrics["test"]["error"]
        < 0.05
    )


@pytest.mark.slow
@pytest.mark.mnist
def test_the_whole_evaluation_of_the_shipped_weights(mnist_root: Path, tmp_path: Path) -> None:
    """With few pictures and draws: seconds instead of ten minutes."""
    options = ("--data-dir", mnist_root, "--limit", 300, "--draws", 20, "--another", BUNDLED)
    result = called(evaluate.main, tmp_path, *options)
    assert result.returncode == 0, result.stderr
    for part in ("AUROC", "canny edges", "turned by", "the report, with its pictures: report.html"):
        assert part in result.stdout
    figures = json.loads((tmp_path / "report.json").read_text())
    assert {part["n"] for part in figures["parts"].values()} == {300}
    assert figures["intervals"]["another"]["all"]["held"] > 0.9  # held against itself
    named = set(figures["foreign"]) | set(figures["foreign_missing"])
    assert named == {"Fashion-MNIST", "notMNIST", "KMNIST"}
    assert (
        "<svg" in (tmp_path / "report.html").read_text()
        or "data:image/png" in (tmp_path / "report.html").read_text()
    )

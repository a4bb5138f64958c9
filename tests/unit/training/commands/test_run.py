"""`python -m training.run` as a user runs it, on few images: results, interruptions, refusals."""

import errno
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from model import BayesianCNN, Checkpoint, Conv, ModelConfig, load_checkpoint
from tests.support.commands import Result, call
from training import evaluate, run
from training.config import PRESETS
from training.data.datasets import Digits, Part, split
from training.fitting.trainer import EpochSummary, Fitter, Step

SMALL = ("--dataset", "digits", "--device", "cpu", "--brief")
NAME = "sklearn-digits.safetensors"


@dataclass(frozen=True)
class FewDigits:
    """A few of scikit-learn's digits."""

    name: str = "digits"
    n_validation: int = 60
    n_calibration: int = 60

    def train(self) -> Part:
        return Digits().train().first(420)

    def test(self) -> Part:
        return Digits().test().first(40)


@pytest.fixture(scope="module", autouse=True)
def small_preset() -> Iterator[None]:
    """A small network, few images and few draws in place of those of `--dataset digits`."""
    preset = PRESETS[Digits.name]
    small = replace(
        preset,
        model=ModelConfig(convs=(Conv(6, 5, pool=True), Conv(6, 3, pool=True)), hidden=(16,)),
        fit=replace(preset.fit, epochs=4, batch_size=16, learning_rate=0.01),
        n_draws=20,
        validation_draws=2,
        min_accuracy=0.3,
        threads=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, Digits.name, small)
        patch.setattr(run, "data_source", lambda _name, _folder: FewDigits())
        patch.setattr(evaluate, "data_source", lambda _name, _folder: FewDigits())
        yield


def train(folder: Path, *arguments: object, check: bool = True) -> Result:
    result = call(run.main, folder, *arguments)
    assert not check or result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The checkpoint and the output of a run that was never interrupted."""
    folder = tmp_path_factory.mktemp("training")
    result = train(folder, *SMALL)
    return folder / "checkpoints" / NAME, result.stdout


def version(path: Path) -> str:
    return load_checkpoint(path).version(20)


def interrupted(folder: Path, after_epoch: int, *arguments: object) -> Result:
    """A run that receives SIGTERM at the beginning of an epoch's summary."""
    summarise = Fitter.summarise

    def spy(fitter: Fitter[BayesianCNN], steps: list[Step]) -> EpochSummary:
        if fitter.epoch > after_epoch:
            signal.raise_signal(signal.SIGTERM)
        return summarise(fitter, steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fitter, "summarise", spy)
        return train(folder, *arguments, check=False)


def test_a_run_ends_with_its_checkpoint_and_its_error(trained: tuple[Path, str]) -> None:
    path, output = trained
    checkpoint = load_checkpoint(path)
    last = output.strip().splitlines()[-1]
    assert f"checkpoints/{NAME}" in last
    assert checkpoint.version(20) in last
    assert f"{100 * checkpoint.metrics['test']['error']:.2f} %" in last
    assert re.search(r"epoch 4/4: NLL [\d.]+, KL [\d,]+ nats, validation error", output)
    assert [file.name for file in path.parent.iterdir()] == [NAME]


def test_the_checkpoint_records_its_provenance(trained: tuple[Path, str]) -> None:
    checkpoint: Checkpoint = load_checkpoint(trained[0])
    provenance = checkpoint.training
    assert provenance["dataset"] == "digits"
    source = FewDigits()
    parts = split(source)
    for name, part in vars(parts).items():
        assert provenance["data"][name] == {"n": len(part), "sha256": part.sha256()}
    assert provenance["data"]["test_sha256"] == source.test().sha256()
    assert len(provenance["epochs"]) == 4
    assert provenance["fit"]["beta"] == 0.02
    assert "torch" in provenance["versions"]
    assert checkpoint.selective.n_calibration == checkpoint.conformal.n_calibration == 60
    assert "scikit-learn" in checkpoint.selective.population


def test_evaluation_reproduces_the_table_from_the_weights_alone(trained: tuple[Path, str]) -> None:
    path, output = trained
    result = call(evaluate.main, path.parent, path, "--brief")
    assert result.returncode == 0
    rows = ("negative log-likelihood", "calibration error", "adaptive calibration error")
    table = [line for line in output.splitlines() if line.startswith(rows)]
    assert len(table) == 3
    for line in table:
        assert line in result.stdout


def test_the_same_seed_gives_the_same_model_and_another_seed_another(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    same, other = tmp_path / "same.safetensors", tmp_path / "other.safetensors"
    train(tmp_path, *SMALL, "--output", same)
    train(tmp_path, *SMALL, "--output", other, "--seed", 1, "--force")
    assert version(same) == version(trained[0])
    assert version(other) != version(trained[0])


def test_an_interrupted_run_resumes_to_the_very_same_model(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    result = interrupted(tmp_path, 2, *SMALL)
    assert result.returncode == 130
    assert "the same command continues" in result.stderr
    output = tmp_path / "checkpoints" / NAME
    assert not output.exists()
    result = train(tmp_path, *SMALL)
    assert "continuing the unfinished run after epoch 2 of 4" in result.stdout
    assert version(output) == version(trained[0])
    assert len(load_checkpoint(output).training["epochs"]) == 4


def test_an_interruption_in_a_destructor_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Struck:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)  # what its handler raises is swallowed here

    summarise = Fitter.summarise

    def spy(fitter: Fitter[BayesianCNN], steps: list[Step]) -> EpochSummary:
        Struck()
        return summarise(fitter, steps)

    monkeypatch.setattr(Fitter, "summarise", spy)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    result = train(tmp_path, *SMALL, check=False)
    assert result.returncode == 130
    assert "epoch 1/4" in result.stdout
    assert "epoch 2/4" not in result.stdout


def test_an_unfinished_run_with_other_settings_is_kept(tmp_path: Path) -> None:
    interrupted(tmp_path, 1, *SMALL)
    refused = train(tmp_path, *SMALL, "--epochs", 2, check=False)
    assert refused.returncode == 2
    assert "--fresh" in refused.stderr
    assert "epochs" in refused.stderr
    result = train(tmp_path, *SMALL, "--epochs", 2, "--fresh", "--force")
    assert "continuing" not in result.stdout
    assert "wrote" in result.stdout


def test_a_damaged_unfinished_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.unfinished.safetensors").write_bytes(b"nothing of use")
    refused = train(tmp_path, *SMALL, "--output", "x.safetensors", check=False)
    assert refused.returncode == 2
    assert "x.unfinished.safetensors" in refused.stderr
    assert "--fresh" in refused.stderr


def test_a_result_below_the_floor_replaces_nothing_unless_forced(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    output = tmp_path / "good.safetensors"
    output.write_bytes(trained[0].read_bytes())
    poor = (*SMALL, "--epochs", 1, "--learning-rate", 1e-6, "--output", output)
    refused = train(tmp_path, *poor, check=False)
    assert refused.returncode == 3
    assert re.search(r"validation accuracy [\d.]+ % is below the floor of 30 %", refused.stderr)
    assert "--force" in refused.stderr
    assert output.read_bytes() == trained[0].read_bytes()
    forced = train(tmp_path, *poor, "--force")
    assert "continuing" in forced.stdout  # the fit is not repeated
    assert output.read_bytes() != trained[0].read_bytes()
    assert re.search(
        r"A short run, 1 of the usual 4 epochs: validation error [\d.]+ %", forced.stdout
    )


def test_a_fit_that_diverges_is_never_written(tmp_path: Path) -> None:
    output = tmp_path / "x.safetensors"
    result = train(
        tmp_path, *SMALL, "--learning-rate", 1e30, "--output", output, "--force", check=False
    )
    assert result.returncode == 3
    assert "not finite" in result.stderr
    assert not output.exists()


def test_an_output_that_cannot_be_written_is_reported_before_the_fit(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    result = train(tmp_path, *SMALL, "--output", "taken/x.safetensors", check=False)
    assert result.returncode == 1
    assert "taken" in result.stderr
    assert "epoch" not in result.stdout


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (errno.ENOSPC, "is full. Make room and run the same command again"),
        (errno.EROFS, "may not write in checkpoints (Read-only file system). Give that folder"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_file_system_error_is_reported_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int, advice: str
) -> None:
    # tests/system/containers has real ones: a full volume, and one of another user.
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(run, "train", refuse)
    result = train(tmp_path, *SMALL, check=False)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: could not write checkpoints/{NAME}: ")
    assert advice in line


@pytest.mark.parametrize(
    "options",
    [
        ("--epochs", 0),
        ("--beta", -1),
        ("--beta", "nan"),
        ("--prior-scale", "inf"),
        ("--imitated", 1.5),
        ("--coverage", 99.9),
        ("--target-risk", 5),
        ("--dataset", "cats"),
        ("--seed", "x"),
        ("--seed", -1),
    ],
)
def test_invalid_options_exit_2(tmp_path: Path, options: tuple[object, ...]) -> None:
    result = train(tmp_path, "--dataset", "digits", *options, check=False)
    assert result.returncode == 2
    assert str(options[0]) in result.stderr
    assert "Traceback" not in result.stderr


def test_evaluating_a_missing_checkpoint_exits_2(tmp_path: Path) -> None:
    result = call(evaluate.main, tmp_path, "absent.safetensors")
    assert result.returncode == 2
    assert "absent.safetensors" in result.stderr


def test_without_data_and_network_it_exits_2_with_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from training.cli_options import data_source

    monkeypatch.setattr(run, "data_source", data_source)
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

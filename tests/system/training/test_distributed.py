"""Several processes that fit one network, started by torchrun as a user starts them."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from model import load_checkpoint
from tests.support.fitting import TINY_WITH_OUTLIERS
from tests.support.paths import ROOT
from training.data.datasets import Digits

RUN = ("-m", "training.run", "--dataset", "digits", "--device", "cpu", "--brief")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")


def environment() -> dict[str, str]:
    """This one, without the settings of the project."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MNN_")}
    return {**own, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def finish(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, check=False, cwd=folder, env=environment(), capture_output=True, text=True,
        timeout=900,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    """What `distributed_job` computed on two ranks and on one process, by process."""
    folder = tmp_path_factory.mktemp("ranks")
    job = ("-m", "tests.support.distributed_job", str(folder))
    for command in ((*TORCHRUN, *job), (sys.executable, *job)):
        done = finish(ROOT, *command)
        assert done.returncode == 0, done.stderr
    return {path.stem: safetensors.torch.load_file(path) for path in folder.iterdir()}


def of(found: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: value for name, value in found.items() if name.startswith(prefix)}


def test_the_gradient_of_two_ranks_is_that_of_one_with_the_same_batch_and_noise(
    found: dict[str, dict[str, Tensor]],
) -> None:
    expected = of(found["single"], "gradient.")
    assert len(expected) == 2 * len(TINY_WITH_OUTLIERS.parameter_shapes())
    for rank in ("rank0", "rank1"):
        for name, gradient in expected.items():
            torch.testing.assert_close(found[rank][name], gradient, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found[rank]["step"], found["single"]["step"], rtol=1e-6, atol=0)


def test_ranks_start_alike_draw_differently_and_end_alike(
    found: dict[str, dict[str, Tensor]],
) -> None:
    first, second = found["rank0"], found["rank1"]
    for name, value in of(found["single"], "start.").items():
        assert torch.equal(first[name], value)
        assert torch.equal(second[name], value)
    assert not torch.equal(first["noise"], second["noise"])
    for name, value in of(first, "end.").items():
        assert torch.equal(value, second[name]), name
    assert torch.equal(first["summary"], second["summary"])


def test_every_rank_knows_the_hardness_of_all_outliers(
    found: dict[str, dict[str, Tensor]],
) -> None:
    for rank in ("rank0", "rank1"):
        torch.testing.assert_close(found[rank]["hardness"], found["single"]["hardness"])
    assert len(found["single"]["hardness"].unique()) == 7 + 1  # those that were drawn, and the rest


def test_a_fit_of_several_ranks_resumes_exactly(found: dict[str, dict[str, Tensor]]) -> None:
    for rank in ("rank0", "rank1", "single"):
        for name, value in of(found[rank], "end.").items():
            resumed = found[rank][name.replace("end.", "resumed.")]
            if name != "end.generator" or rank == "single":
                assert torch.equal(resumed, value), (rank, name)


def start(folder: Path, *, epochs: int = 8, launch: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start a run of two ranks on scikit-learn's digits."""
    command = (*TORCHRUN, *launch, *RUN, "--epochs", str(epochs))
    return subprocess.Popen(
        command, cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for_first_epoch(folder: Path) -> Path:
    unfinished = folder / "checkpoints" / "sklearn-digits.unfinished.safetensors"
    deadline = time.monotonic() + 120
    while not unfinished.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return unfinished


def version_of(folder: Path) -> str:
    checkpoint = load_checkpoint(folder / "checkpoints" / "sklearn-digits.safetensors")
    return checkpoint.version(100)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole run of two ranks, and its output."""
    folder = tmp_path_factory.mktemp("by-two")
    process = start(folder, epochs=20)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return folder, output


def test_two_ranks_reach_the_quality_of_one(by_two: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = by_two
    single = finish(
        tmp_path, sys.executable, *RUN, "--epochs", "20", "--threads", "1"
    )  # as each of the two has
    assert single.returncode == 0, single.stderr
    two, one = (
        load_checkpoint(where / "checkpoints" / "sklearn-digits.safetensors")
        for where in (folder, tmp_path)
    )
    assert two.training["ranks"] == 2
    assert one.training["ranks"] == 1
    errors = [checkpoint.metrics["test"]["error"] for checkpoint in (two, one)]
    n = len(Digits().test())
    # Three standard errors of the difference of two shares of about 2 %.
    assert abs(errors[0] - errors[1]) < 3 * (2 * 0.02 * 0.98 / n) ** 0.5
    assert max(errors) < 0.05


def test_only_the_first_rank_writes_and_prints(by_two: tuple[Path, str]) -> None:
    folder, output = by_two
    assert output.count("preprocessing 837 images") == output.count("wrote ") == 1
    assert output.count("epoch 20/20") == 1
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        "sklearn-digits.safetensors"
    ]


def test_a_run_whose_rank_is_killed_restarts_and_ends_with_the_same_model(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    process = start(whole)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output

    process = start(killed, launch=("--max-restarts", "1"))
    wait_for_first_epoch(killed)
    os.kill(second_rank(process.pid), signal.SIGKILL)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert re.search(r"continuing the unfinished run after epoch [1-7] of 8", output), output
    assert version_of(killed) == version_of(whole)


def second_rank(launcher: int) -> int:
    """The process of rank 1, by its environment."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            if parent == launcher and b"\0RANK=1\0" in (status.parent / "environ").read_bytes():
                return int(status.parent.name)
        except OSError:
            continue
    pytest.fail("rank 1 was not found")


def test_one_rank_does_not_resume_what_two_have_left(tmp_path: Path) -> None:
    process = start(tmp_path)
    unfinished = wait_for_first_epoch(tmp_path)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert unfinished.exists(), output
    single = finish(tmp_path, sys.executable, *RUN, "--epochs", "8")
    assert single.returncode == 2
    assert "ranks 2 there, 1 now" in single.stderr

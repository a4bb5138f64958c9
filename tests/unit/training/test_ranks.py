"""Several processes that fit one network, started by torchrun as a user starts them."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from model import BayesianCNN, load_checkpoint
from tests.support.paths import ROOT
from tests.support.ranks_job import CONFIG, KNOWS_OTHERS, make_fitter
from training import run
from training.data.datasets import Digits
from training.data.parallel import in_processes
from training.distributed import ALONE, Ranks, started_ranks

RUN = ("-m", "training.run", "--dataset", "digits", "--device", "cpu", "--brief")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")


def environment() -> dict[str, str]:
    """This one, without what would have a child process take itself for a rank."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MNN_")}
    return {**own, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    """What `ranks_job` found on two ranks and alone, by process."""
    folder = tmp_path_factory.mktemp("ranks")
    job = ("-m", "tests.support.ranks_job", str(folder))
    for command in ((*TORCHRUN, *job), (sys.executable, *job)):
        done = subprocess.run(
            command, check=False, cwd=ROOT, env=environment(), capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return {path.stem: safetensors.torch.load_file(path) for path in folder.iterdir()}


def of(found: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: value for name, value in found.items() if name.startswith(prefix)}


def test_the_gradient_of_two_ranks_is_that_of_one_with_the_same_batch_and_noise(
    found: dict[str, dict[str, Tensor]],
) -> None:
    alone = of(found["alone"], "gradient.")
    assert len(alone) == 4 * len(KNOWS_OTHERS.parameter_shapes()) // 2
    for rank in ("rank0", "rank1"):
        for name, expected in alone.items():
            torch.testing.assert_close(found[rank][name], expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found[rank]["step"], found["alone"]["step"], rtol=1e-6, atol=0)


def test_the_kl_term_weighs_in_that_gradient() -> None:
    """Guards the test above: were the KL term light, counting it twice would go unseen."""
    network = BayesianCNN(KNOWS_OTHERS, generator=torch.Generator().manual_seed(3))
    (CONFIG.beta * network.kl_divergence() / 51).backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        if "weight" in name:
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 1e-3


def test_ranks_start_alike_draw_differently_and_end_alike(
    found: dict[str, dict[str, Tensor]],
) -> None:
    first, second = found["rank0"], found["rank1"]
    for name, value in of(found["alone"], "start.").items():
        assert torch.equal(first[name], value)
        assert torch.equal(second[name], value)
    assert not torch.equal(first["noise"], second["noise"])
    for name, value in of(first, "end.").items():
        assert torch.equal(value, second[name]), name
    assert torch.equal(first["summary"], second["summary"])


def test_every_rank_knows_how_badly_the_non_digits_of_all_were_told(
    found: dict[str, dict[str, Tensor]],
) -> None:
    for rank in ("rank0", "rank1"):
        torch.testing.assert_close(found[rank]["hardness"], found["alone"]["hardness"])
    assert len(found["alone"]["hardness"].unique()) == 7 + 1  # those that were shown, and the rest


def test_a_fit_of_several_ranks_continues_exactly(found: dict[str, dict[str, Tensor]]) -> None:
    for rank in ("rank0", "rank1", "alone"):
        for name, value in of(found[rank], "end.").items():
            continued = found[rank][name.replace("end.", "continued.")]
            if name != "end.generator" or rank == "alone":
                assert torch.equal(continued, value), (rank, name)


@pytest.mark.parametrize(("n", "count"), [(17, 2), (8, 3), (5, 5), (3, 4)])
def test_parts_are_disjoint_whole_and_of_the_sizes_that_are_said(n: int, count: int) -> None:
    ranks = [Ranks(rank, count) for rank in range(count)]
    parts = [rank.part(torch.arange(n)) for rank in ranks]
    assert torch.cat(parts).tolist() == list(range(n))
    assert [len(part) for part in parts] == [rank.share(n) for rank in ranks]
    # What each rank's mean counts for, averaged over the ranks, is every picture once.
    weights = [rank.weight(len(part), n) for rank, part in zip(ranks, parts, strict=True)]
    assert sum(weights) / count == pytest.approx(1)


def test_seeds_differ_by_rank_and_by_what_they_are_of() -> None:
    seeds = {
        Ranks(rank, 4).seed(seed, epoch) for rank in range(4) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(seeds) == 16
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert Ranks(1, 4).seed(0, 1) == Ranks(1, 4).seed(0, 1)


@pytest.mark.parametrize("config", [replace(CONFIG, batch_size=50), replace(CONFIG, non_digits=3)])
def test_more_ranks_than_pictures_in_a_batch_are_refused(config: object) -> None:
    with pytest.raises(ValueError, match="too many for the last batch"):
        make_fitter(BayesianCNN(KNOWS_OTHERS), Ranks(0, 4), config)  # type: ignore[arg-type]


def test_alone_all_work_is_ones_own() -> None:
    assert ALONE.part(torch.arange(5)).tolist() == [0, 1, 2, 3, 4]
    assert ALONE.gather("own") == ["own"]
    assert ALONE.from_first("own") == "own"
    results = in_processes(_doubled, [[1, 2], [3], [4, 5]], total=5, title="doubling")
    assert list(results) == [2, 4, 6, 8, 10]


def _doubled(values: list[int]) -> list[int]:
    return [2 * value for value in values]


def start(folder: Path, *, epochs: int = 8, launch: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start a run of two ranks on scikit-learn's digits."""
    command = (*TORCHRUN, *launch, *RUN, "--epochs", str(epochs))
    return subprocess.Popen(
        command, cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip


def version_of(folder: Path) -> str:
    checkpoint = load_checkpoint(folder / "checkpoints" / "sklearn-digits.safetensors")
    return checkpoint.version(100)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole run of two ranks, and what it said."""
    folder = tmp_path_factory.mktemp("by-two")
    process = start(folder, epochs=40)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    return folder, said


@pytest.mark.slow
def test_two_ranks_reach_the_quality_of_one(by_two: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = by_two
    alone = subprocess.run(
        (sys.executable, *RUN, "--threads", "1"),  # as each of two has, however many cores are busy
        check=False, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
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


@pytest.mark.slow
def test_only_the_first_rank_writes_and_speaks(by_two: tuple[Path, str]) -> None:
    folder, said = by_two
    assert said.count("preparing 837 pictures") == said.count("wrote ") == 1
    assert said.count("epoch 40/40") == 1
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        "sklearn-digits.safetensors"
    ]


@pytest.mark.slow
def test_a_run_whose_rank_is_killed_is_started_again_and_ends_as_if_it_had_not_been(
    tmp_path: Path,
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    process = start(whole)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said

    process = start(killed, launch=("--max-restarts", "1"))
    unfinished = killed / "checkpoints" / "sklearn-digits.unfinished.safetensors"
    deadline = time.monotonic() + 120
    while not unfinished.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(second_rank(process.pid), signal.SIGKILL)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert re.search(r"continuing the unfinished run after epoch [1-7] of 8", said), said
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


@pytest.mark.slow
def test_one_rank_does_not_go_on_from_what_two_have_left(tmp_path: Path) -> None:
    process = start(tmp_path)
    unfinished = tmp_path / "checkpoints" / "sklearn-digits.unfinished.safetensors"
    deadline = time.monotonic() + 120
    while not unfinished.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert unfinished.exists(), said
    alone = subprocess.run(
        (sys.executable, *RUN, "--epochs", "8"),
        check=False, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert alone.returncode == 2
    assert "ranks 2 there, 1 now" in alone.stderr


def test_half_of_what_torchrun_says_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert started_ranks() == ALONE
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert run.main(["--dataset", "digits"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "WORLD_SIZE=2" in line
    assert "LOCAL_RANK, LOCAL_WORLD_SIZE: start several ranks by torchrun" in line
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "two")
    with pytest.raises(ValueError, match="no number in LOCAL_WORLD_SIZE:"):
        started_ranks()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert started_ranks() == Ranks(0, 2, 0, 2)

"""A training run that is killed leaves the old checkpoint or the new one, whole, and no litter."""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from model import load_checkpoint
from model.checkpoint import SHIPPED
from model.errors import CheckpointError
from tests.conftest import ROOT
from tests.soak.conftest import choose, progress
from tests.soak.figures import Figures

pytestmark = pytest.mark.soak

AT_RANDOM, WHILE_WRITING = choose((0, 2), (20, 8))
OUTPUT = "digits.safetensors"
EPOCHS = 6
KNOWN = {OUTPUT, "digits.unfinished.safetensors"}


def begin(folder: Path, seed: int, *options: str) -> "subprocess.Popen[bytes]":
    """Start a short run that writes over the checkpoint in the folder."""
    command = [
        sys.executable, "-m", "training.run", "--dataset", "digits", "--epochs", str(EPOCHS),
        "--device", "cpu", "--threads", "1", "--output", str(folder / OUTPUT), "--force", "--brief",
        "--seed", str(seed), *options,
    ]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def whole_run_s(folder: Path) -> float:
    """The seconds of a run that nobody disturbs."""
    began = time.monotonic()
    assert begin(folder, 0, "--fresh").wait(300) == 0
    assert seed_on_disk(folder) == 0
    return time.monotonic() - began


def kill_after(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Kill it at that moment, or let it have ended before."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def kill_while_writing(process: "subprocess.Popen[bytes]", folder: Path, n_writes: int) -> None:
    """Kill it when the n-th temporary file of this run appears."""
    before = {path.name for path in folder.iterdir()}
    seen: set[str] = set()
    while process.poll() is None:
        new = {path.name for path in folder.iterdir() if path.name.endswith(".tmp")} - before
        seen |= new
        if new and len(seen) >= n_writes:
            process.kill()
            break
        time.sleep(0.0002)
    process.wait()


def seed_on_disk(folder: Path) -> int | None:
    """The seed of the run whose checkpoint is there; None if it is not whole."""
    try:
        return int(load_checkpoint(folder / OUTPUT).training["fit"]["seed"])
    except CheckpointError:
        return None


def test_a_run_killed_at_any_moment_leaves_a_whole_checkpoint_and_no_litter(
    tmp_path: Path, figures: Callable[[str], Figures]
) -> None:
    found = figures(f"{AT_RANDOM} runs killed at random, {WHILE_WRITING} while writing")
    rng = random.Random(11)
    shutil.copyfile(SHIPPED, tmp_path / OUTPUT)
    whole_s = whole_run_s(tmp_path) if AT_RANDOM else 0.0

    current = seed_on_disk(tmp_path)
    spoiled, most_litter, killed, renewed = 0, 0, 0, 0
    number = AT_RANDOM + WHILE_WRITING
    with progress(number, "killed runs") as bar:
        for seed in range(1, number + 1):
            process = begin(tmp_path, seed, "--fresh")
            if seed <= AT_RANDOM:
                kill_after(process, rng.uniform(0.3, 1.05) * whole_s)
            else:  # an epoch's state, or in the long form the checkpoint, which comes last
                kill_while_writing(process, tmp_path, rng.randint(1, choose(1, EPOCHS + 1)))
            killed += process.returncode == -signal.SIGKILL
            there = seed_on_disk(tmp_path)
            spoiled += there not in (current, seed)
            renewed += there == seed
            current = seed if there == seed else current
            litter = [path.name for path in tmp_path.iterdir() if path.name not in KNOWN]
            most_litter = max(most_litter, len(litter))
            bar.update()
    if AT_RANDOM:
        found.note("a whole run, s", whole_s)
        whole_run_s(tmp_path)
        left = sorted(path.name for path in tmp_path.iterdir() if path.name != OUTPUT)
        found.require("left after a run that ends", "; ".join(left) or 0, "0", not left)
    found.note("killed amid the run", killed)
    found.note("of those and others, with a new checkpoint", renewed)
    found.require("checkpoints neither old nor new", spoiled, "0", spoiled == 0)
    # One for each file that is written: the next who writes it removes it.
    found.require("litter files at most", most_litter, "≤ 2", most_litter <= len(KNOWN))
    found.check()

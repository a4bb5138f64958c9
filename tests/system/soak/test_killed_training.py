"""A training run that is killed leaves the old checkpoint or the new one, whole, and no litter."""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from model import load_checkpoint
from model.checkpoint import BUNDLED
from model.errors import CheckpointError
from tests.support.load.measurements import Measurements
from tests.support.load.soak import choose, progress
from tests.support.paths import ROOT

AT_RANDOM = choose(0, 20)
# So many are to be caught while they write the checkpoint, and as many while they write the state
# of an epoch. A write takes milliseconds: some are missed, and tried again.
CAUGHT, MOST_TRIES = choose((1, 4), (4, 10))
EPOCHS = choose(1, 6)
OUTPUT, STATE = "digits.safetensors", "digits.unfinished.safetensors"
KNOWN = {OUTPUT, STATE}
ANYTHING = "anything"


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


def kill_while_writing(
    process: "subprocess.Popen[bytes]", folder: Path, name: str, n_writes: int
) -> bool:
    """Kill it when it writes that file for the n-th time.

    Returns:
        Whether it was amid the write: what it had written is left beside the file.
    """
    before = temporary_files(folder, name)
    seen: set[str] = set()
    while process.poll() is None:
        new = temporary_files(folder, name) - before
        seen |= new
        if new and len(seen) >= n_writes:
            process.kill()
            break
        time.sleep(0.0002)
    process.wait()
    return bool(temporary_files(folder, name) - before)


def temporary_files(folder: Path, name: str) -> set[str]:
    """What those that write a file have there meanwhile, or have left."""
    return {
        path.name
        for path in folder.iterdir()
        if path.name.startswith(f".{name}.") and path.name.endswith(".tmp")
    }


def next_goal(tries: Counter[str], caught: Counter[str]) -> str:
    """The file that the next run is to be killed at, or `ANYTHING`; empty once it is enough."""
    if tries[ANYTHING] < AT_RANDOM:
        return ANYTHING
    for name in (STATE, OUTPUT):  # in the order in which a run writes them
        if caught[name] < CAUGHT and tries[name] < MOST_TRIES:
            return name
    return ""


def seed_on_disk(folder: Path) -> int | None:
    """The seed of the run whose checkpoint is there; None if it is not whole."""
    try:
        return int(load_checkpoint(folder / OUTPUT).training["fit"]["seed"])
    except CheckpointError:
        return None


def test_a_killed_run_leaves_a_whole_checkpoint_and_no_litter(
    tmp_path: Path, measure: Callable[[str], Measurements]
) -> None:
    found = measure(f"{AT_RANDOM} runs killed at random, {2 * CAUGHT} while writing")
    rng = random.Random(11)
    shutil.copyfile(BUNDLED, tmp_path / OUTPUT)
    whole_s = whole_run_s(tmp_path) if AT_RANDOM else 0.0

    current = seed_on_disk(tmp_path)
    spoiled, most_litter, killed, renewed, seed = 0, 0, 0, 0, 0
    caught, tries = Counter[str](), Counter[str]()
    with progress(AT_RANDOM + 2 * CAUGHT, "killed runs") as bar:
        while goal := next_goal(tries, caught):
            seed += 1
            tries[goal] += 1
            process = begin(tmp_path, seed, "--fresh")
            if goal == ANYTHING:
                kill_after(process, rng.uniform(0.3, 1.05) * whole_s)
                bar.update()
            else:
                n_writes = rng.randint(1, EPOCHS) if goal == STATE else 1
                if kill_while_writing(process, tmp_path, goal, n_writes):
                    caught[goal] += 1
                    bar.update()
            killed += process.returncode == -signal.SIGKILL
            there = seed_on_disk(tmp_path)
            spoiled += there not in (current, seed)
            renewed += there == seed
            current = seed if there == seed else current
            litter = [path.name for path in tmp_path.iterdir() if path.name not in KNOWN]
            most_litter = max(most_litter, len(litter))
    if AT_RANDOM:
        found.note("a whole run, s", whole_s)
        whole_run_s(tmp_path)
        left = sorted(path.name for path in tmp_path.iterdir() if path.name != OUTPUT)
        found.require("left after a run that ends", "; ".join(left) or 0, "0", not left)
    found.note("runs", seed)
    found.note("killed amid the run", killed)
    for name in (STATE, OUTPUT):
        amid = caught[name]
        found.require(f"killed while writing {name}", amid, f"{CAUGHT}", amid == CAUGHT)
    found.note("of those and others, with a new checkpoint", renewed)
    found.require("checkpoints neither old nor new", spoiled, "0", spoiled == 0)
    # One for each file that is written: the next who writes it removes it.
    found.require("litter files at most", most_litter, "≤ 2", most_litter <= len(KNOWN))
    found.check()

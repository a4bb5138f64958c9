"""The CI script: any failure is shown and fails the whole run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# Prints its target and fails at those that match; the containers take longest.
MAKE = """#!/bin/sh
case "$*" in test-containers) sleep 0.2 ;; esac
echo "made $*"
if echo "$*" | grep --quiet --extended-regexp --line-regexp "$FAILS"; then exit 2; fi
"""
SYSTEM = [
    "test-clean-clone", "test-containers", "test-ray",
    "test-training", "test-notebooks", "test-soak", "test-browser",
]  # fmt: skip


def run(folder: Path, fails: str, make: str = MAKE) -> "subprocess.CompletedProcess[str]":
    """Run the CI script with a stand-in for `make`, outside the repository."""
    script = folder / "repository" / ".ci" / "run"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", script)
    tools = folder / "tools"
    tools.mkdir()
    for name, content in {"make": make, "chromium": "", "promtool": ""}.items():
        (tools / name).write_text(content or "#!/bin/sh\n")
        (tools / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "FAILS": fails}
    environment["TMPDIR"] = str(folder)
    return subprocess.run(
        [script], check=False, env=environment, capture_output=True, text=True, timeout=60
    )


def made(done: "subprocess.CompletedProcess[str]") -> set[str]:
    lines = done.stdout.splitlines()
    return {line.removeprefix("made ") for line in lines if line.startswith("made ")}


@pytest.mark.parametrize("fails", ["nothing", *SYSTEM, "test-soak|test-ray"])
def test_every_system_tier_runs_whichever_fails(tmp_path: Path, fails: str) -> None:
    done = run(tmp_path, fails)
    assert done.returncode == (0 if fails == "nothing" else 1), done.stdout + done.stderr
    assert made(done) == {"install", "lint", "type", "test", *SYSTEM}


@pytest.mark.parametrize("fails", ["lint", "type", "test", "lint|test"])
def test_no_system_tier_runs_when_an_earlier_step_fails(tmp_path: Path, fails: str) -> None:
    done = run(tmp_path, fails)
    assert done.returncode == 1
    assert made(done) == {"install", "lint", "type", "test"}


def test_a_failed_installation_ends_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, "install")
    assert done.returncode != 0
    assert made(done) == {"install"}


def test_each_step_is_timed_and_a_failed_one_shown_in_full(tmp_path: Path) -> None:
    make = MAKE.replace('"made $*"', '"made $*"; seq 30')
    passed = run(tmp_path / "passed", "nothing", make).stdout
    failed = run(tmp_path / "failed", "test-soak", make).stdout
    assert passed.count("== make ") == failed.count("== make ") == 4 + len(SYSTEM)
    assert passed.count("\n10\n") == 0
    assert failed.count("\n10\n") == 1


def test_the_makefile_has_every_tier() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (line,) = (line for line in makefile.splitlines() if line.startswith("test-all:"))
    assert set(line.partition("##")[0].split()[1:]) == {"test", *SYSTEM}
    folders = {path.parent.name for path in (ROOT / "tests" / "system").glob("*/__init__.py")}
    assert folders == {name.removeprefix("test-").replace("-", "_") for name in SYSTEM}

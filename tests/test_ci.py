"""What CI runs: whatever fails is told, and fails all of it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Says what is made, and fails at what it is told to; the containers take longest.
MAKE = """#!/bin/sh
case "$*" in *docker*) sleep 0.5 ;; esac
echo "made $*"
if echo "$*" | grep --quiet --extended-regexp --line-regexp "$FAILS"; then exit 2; fi
"""
SLOW, DOCKER = "test-slow ARGS=-k 'not clean_clone'", "test-docker"


def run(folder: Path, fails: str) -> "subprocess.CompletedProcess[str]":
    """Run the script of CI with another `make`, outside the repository."""
    script = folder / "repository" / ".ci" / "run"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", script)
    tools = folder / "tools"
    tools.mkdir()
    for name, content in {"make": MAKE, "chromium": "", "promtool": ""}.items():
        (tools / name).write_text(content or "#!/bin/sh\n")
        (tools / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "FAILS": fails}
    environment["TMPDIR"] = str(folder)
    return subprocess.run(
        [script], check=False, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("fails", "code"),
    [("nothing", 0), (SLOW, 1), (DOCKER, 1), (f"{SLOW}|{DOCKER}", 1)],
    ids=["none", "slow tests", "containers", "both"],
)
def test_slow_tests_and_containers_are_both_told_of_whichever_fails(
    tmp_path: Path, fails: str, code: int
) -> None:
    done = run(tmp_path, fails)
    assert done.returncode == code, done.stdout + done.stderr
    assert f"made {SLOW}" in done.stdout
    assert f"made {DOCKER}" in done.stdout


@pytest.mark.parametrize(
    "target", ["install", "lint", "type", "test", "test-slow ARGS=-k clean_clone"]
)
def test_what_fails_before_ends_the_run(tmp_path: Path, target: str) -> None:
    done = run(tmp_path, target)
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1] == f"made {target}"

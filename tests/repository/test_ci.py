"""What CI runs: whatever fails is told, and fails all of it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# Says what is made, and fails at what it is told to; the containers take longest.
MAKE = """#!/bin/sh
case "$*" in *docker*) sleep 0.5 ;; esac
echo "made $*"
if echo "$*" | grep --quiet --extended-regexp --line-regexp "$FAILS"; then exit 2; fi
"""
SLOW, DOCKER = "test-slow ARGS=-k 'not clean_clone'", "test-docker"
CLONE, RAY = "test-slow ARGS=-k clean_clone", "test-ray"
SERVICE = "test ARGS=tests/service tests/page"
REST = "test ARGS=--ignore=tests/service --ignore=tests/page"


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
    "fails", ["nothing", SLOW, DOCKER, CLONE, RAY, f"{SLOW}|{DOCKER}", f"{CLONE}|{RAY}"]
)
def test_all_that_takes_long_is_told_of_whichever_fails(tmp_path: Path, fails: str) -> None:
    done = run(tmp_path, fails)
    assert done.returncode == (0 if fails == "nothing" else 1), done.stdout + done.stderr
    for target in (SERVICE, REST, CLONE, RAY, SLOW, DOCKER):
        assert f"made {target}" in done.stdout


@pytest.mark.parametrize("fails", [SERVICE, REST, f"{SERVICE}|{REST}"])
def test_what_takes_long_is_not_tried_when_something_else_fails(tmp_path: Path, fails: str) -> None:
    done = run(tmp_path, fails)
    assert done.returncode == 1
    assert f"made {SERVICE}" in done.stdout
    assert f"made {REST}" in done.stdout
    assert "slow" not in done.stdout


@pytest.mark.parametrize("target", ["install", "lint", "type"])
def test_what_fails_before_ends_the_run(tmp_path: Path, target: str) -> None:
    done = run(tmp_path, target)
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1] == f"made {target}"

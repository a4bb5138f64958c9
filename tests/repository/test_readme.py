"""The README's commands, run as a reader would; the slow ones in their own tier."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from model import load_checkpoint
from model.checkpoint import BUNDLED
from tests.support.paths import ROOT
from tests.support.server import Server, free_port

Wait = Callable[[str, subprocess.Popen[bytes]], None]

README = (ROOT / "README.md").read_text()

# Where each command of the README is run. One that is not here fails the first test.
COVERED = {
    "make serve": "test_a_clean_clone_serves_with_one_command",
    "make test": "CI runs it in a fresh clone",
    "curl -s -F file=@docs/examples/four-or-nine.png http://127.0.0.1:8000/predict": (
        "test_the_curl_line_gives_the_answer_that_is_printed"
    ),
    'make evaluate ARGS="--only test"': (
        "test_the_shipped_weights_reach_the_bar_on_the_real_test_pictures"
    ),
    'make evaluate ARGS="--pictures my-pictures"': "test_make_evaluates_a_folder_of_pictures",
    "make notebooks": "tests/notebooks runs each on a small part of the data",
    "make train": "the command that made the shipped weights; interrupted forms in test_run.py",
    "make evaluate": "test_the_whole_evaluation_of_the_shipped_weights, with fewer pictures",
    'make train ARGS="--epochs 1 --imitated 0 --brief"': (
        "test_one_epoch_of_mnist_works_and_says_what_it_costs"
    ),
    'make train ARGS="--dataset digits"': "test_make_passes_arguments_through_to_training",
    "docker compose up": "test_up_serves_the_shipped_weights_locked_down_and_within_its_limits",
    "docker compose run --rm training": (
        "test_training_on_mnist_in_a_mounted_folder_refreshes_the_service, with one epoch and "
        "no imitations"
    ),
    "docker compose -f docker-compose.yml -f compose.gpu.yml up": (
        "test_the_overlay_for_a_gpu_selects_the_image_with_cuda: built and run, without a GPU"
    ),
    "pip install -c constraints.txt .": "test_pip_installs_the_packages_with_their_weights",
    "conda create -n maybe python=3.12": "not run: conda cannot be installed by the tests",
    "conda activate maybe": "not run: as above; what follows is the pip command",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_every_command_of_the_readme_is_run_by_a_test() -> None:
    commands = {line for block in blocks("sh") for line in block.splitlines() if line.strip()}
    assert commands == set(COVERED)


def printed_answer() -> dict[str, object]:
    (block,) = blocks("json")
    answer: dict[str, object] = json.loads(block)
    return answer


def test_the_curl_line_gives_the_answer_that_is_printed(server: Server) -> None:
    (line,) = (c for c in COVERED if c.startswith("curl"))
    command = shlex.split(line.replace("http://127.0.0.1:8000", server.url))
    if shutil.which("curl"):
        result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        answer = json.loads(result.stdout)
    else:  # make and Python are all that the tests may ask for: the same request without it
        part, path = command[command.index("-F") + 1].split("=@")
        with (ROOT / path).open("rb") as file:
            answer = httpx.post(command[-1], files={part: file}, timeout=30).json()
    assert answer.keys() == printed_answer().keys()
    compare(answer, printed_answer())


def compare(found: object, printed: object) -> None:
    """Equal, numbers within 1e-5: the contract's promise across machines."""
    if isinstance(printed, dict) and isinstance(found, dict):
        assert found.keys() == printed.keys()
        for key in printed:
            compare(found[key], printed[key])
    elif isinstance(printed, list) and isinstance(found, list):
        assert len(found) == len(printed)
        for a, b in zip(found, printed, strict=True):
            compare(a, b)
    elif isinstance(printed, float):
        assert found == pytest.approx(printed, abs=1.1e-5)
    else:
        assert found == printed


def test_the_python_lines_print_what_is_said() -> None:
    (code,) = blocks("python")
    (promised,) = re.findall(r"prints `([^`]+)`", README)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == promised


def test_the_figures_are_those_of_the_shipped_weights() -> None:
    figures = load_checkpoint(BUNDLED).metrics["test"]
    row = (
        f"| {100 * figures['error']:.2f} % | {figures['nll']:.4f} | "
        f"{100 * figures['calibration_error']:.2f} % | {100 * figures['accepted']:.2f} % | "
        f"{figures['errors_accepted']} |"
    )
    assert row in README


def test_the_stated_beta_and_epochs_are_those_of_the_shipped_weights() -> None:
    fit = load_checkpoint(BUNDLED).training["fit"]
    assert f"β = {fit['beta']:g}" in README
    assert f"{fit['epochs']} epochs" in README


def clean_environment() -> dict[str, str]:
    """What a newcomer's shell has: nothing of this virtual environment."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(
            # ARGS: what `make test ARGS=…` was told is not for the commands that a test runs.
            ("MNN_", "COV_", "VIRTUAL_ENV", "PYTHONPATH", "MAKE", "MFLAGS", "ARGS")
        )
    }
    inside = str(Path(sys.prefix) / "bin")
    path = environment["PATH"].split(os.pathsep)
    environment["PATH"] = os.pathsep.join(entry for entry in path if entry != inside)
    return environment


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`make` in this environment, so that it has nothing to install."""
    if not (Path(sys.prefix) / ".ready").exists():
        pytest.skip("these tests do not run in an environment made by make")
    return subprocess.run(
        ["make", f"VENV={sys.prefix}", *arguments],
        cwd=ROOT,
        env=clean_environment(),
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_make_passes_arguments_through_to_training(tmp_path: Path) -> None:
    output = tmp_path / "x.safetensors"
    made = make("train", f"ARGS=--dataset digits --epochs 2 --brief --force --output {output}")
    assert "A short run, 2 of the usual" in made.stdout
    assert output.exists()


def test_make_evaluates_a_folder_of_pictures(tmp_path: Path) -> None:
    folder, sheet = tmp_path / "my-pictures", tmp_path / "sheet.png"
    folder.mkdir()
    shutil.copy(ROOT / "docs/examples/seven.png", folder)
    (folder / "manifest.csv").write_text("file,label,kind\nseven.png,7,drawing\n")
    made = make("evaluate", f"ARGS=--pictures {folder} --sheet {sheet} --draws 10")
    assert re.search(r"drawing +1 +1 +100\.0 % +1 +100\.0 % +0", made.stdout)
    assert sheet.exists()


def test_make_alone_lists_the_targets() -> None:
    listed = make().stdout
    for target in ("serve", "test", "train", "check"):
        assert target in listed


@pytest.mark.slow
def test_a_clean_clone_serves_with_one_command(tmp_path: Path, wait: Wait) -> None:
    clone, port = tmp_path / "clone", free_port()
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    process = subprocess.Popen(
        ["make", "serve", f"MNN_PORT={port}"],
        cwd=clone,
        env=clean_environment(),
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait(f"{url}/health/ready", process)
        with (clone / "docs" / "examples" / "seven.png").open("rb") as file:
            answer = httpx.post(f"{url}/predict", files={"file": file}, timeout=30).json()
        assert (answer["prediction"], answer["decision"]) == ("7", "accept")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


@pytest.fixture
def wait() -> Wait:
    def until_ok(url: str, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 540
        while time.monotonic() < deadline:
            if process.poll() is not None:
                pytest.fail(f"the command has ended, with code {process.returncode}")
            try:
                if httpx.get(url, timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(1)
        pytest.fail(f"{url} did not answer in time")

    return until_ok


@pytest.mark.slow
def test_pip_installs_the_packages_with_their_weights(tmp_path: Path) -> None:
    """Into a folder of its own, with the dependencies that are already here."""
    site = tmp_path / "site"
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "-q", "--no-deps", "-c",
            str(ROOT / "constraints.txt"), "--target", str(site), str(ROOT),
        ],
        check=True,
    )  # fmt: skip
    code = (
        "import model, service, training; from model import load;"
        f"assert model.__file__.startswith({str(site)!r});"
        f"print(load().predict({str(ROOT / 'docs/examples/seven.png')!r}).prediction)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == "7"

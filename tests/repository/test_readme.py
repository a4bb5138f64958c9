"""The commands and figures of the README and of the pages that show commands."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys

import httpx
import pytest

from model import load_checkpoint
from model.checkpoint import BUNDLED
from tests.support.paths import ROOT
from tests.support.service.server import Server

README = (ROOT / "README.md").read_text()
WITH_COMMANDS = (
    "README.md", "docs/installation.md", "docs/operations.md", "docs/training.md",
)  # fmt: skip

CURL = "curl -s -F file=@docs/examples/four-or-nine.png http://127.0.0.1:8000/predict"
SYSTEM = "tests/system"
CLONE = f"{SYSTEM}/clean_clone/test_clean_clone.py"
COMMANDS = f"{SYSTEM}/clean_clone/test_commands.py"
TRAINING = f"{SYSTEM}/training/test_run.py"
CONTAINERS = f"{SYSTEM}/containers/test_containers.py"
# The test that runs each command, or why no test does.
COVERED = {
    "make serve": f"{CLONE}::test_make_serve_installs_and_answers",
    "make test": "not run by a test: it runs these tests",
    CURL: "tests/repository/test_readme.py::test_the_curl_command_gives_the_printed_answer",
    'make evaluate ARGS="--only test"': (
        f"{TRAINING}::test_the_bundled_weights_reach_the_bar_on_the_real_test_images"
    ),
    'make evaluate ARGS="--images my-pictures"': (
        f"{COMMANDS}::test_make_evaluates_a_folder_of_images"
    ),
    "make notebooks": (
        f"{SYSTEM}/notebooks/test_notebooks.py::"
        "test_a_notebook_runs_from_top_to_bottom_and_reaches_its_floors"
    ),
    "make train": "not run in full: the command that made the bundled weights",
    "make baselines": (
        "tests/system/training/test_baselines.py::test_the_command_puts_all_methods_into_one_table"
    ),
    "make evaluate": (f"{TRAINING}::test_the_whole_evaluation_of_the_bundled_weights"),
    'make train ARGS="--epochs 1 --imitated 0 --brief"': (
        f"{TRAINING}::test_one_epoch_of_mnist_works_and_reports_its_cost"
    ),
    'make train ARGS="--dataset digits"': f"{COMMANDS}::test_make_trains_and_serves_the_result",
    "make serve MNN_CHECKPOINT=checkpoints/sklearn-digits.safetensors": (
        f"{COMMANDS}::test_make_trains_and_serves_the_result"
    ),
    "docker compose up": f"{CONTAINERS}::test_up_serves_the_bundled_weights_locked_down",
    "docker compose run --rm training": (
        f"{CONTAINERS}::test_training_updates_every_running_service_without_a_restart"
    ),
    "docker compose -f docker-compose.yml -f compose.gpu.yml up": (
        f"{CONTAINERS}::test_the_overlay_for_a_gpu_selects_the_image_with_cuda"
    ),
    "pip install -c constraints.txt .": f"{CLONE}::test_pip_installs_every_package_and_data_file",
    "pip install -c constraints.txt '.[training]'": "not run: `make train` installs the same extra",
    "conda create -n maybe python=3.12": "not run: pip cannot install conda",
    "conda activate maybe": "not run: pip cannot install conda",
}


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document, re.DOTALL)


def test_each_documented_command_is_run_by_a_test() -> None:
    text = "\n".join((ROOT / name).read_text() for name in WITH_COMMANDS)
    documented = {line for block in blocks(text, "sh") for line in block.splitlines() if line}
    assert documented == set(COVERED)


@pytest.mark.parametrize("command", COVERED)
def test_the_test_of_a_command_exists(command: str) -> None:
    module, _, name = COVERED[command].partition("::")
    if not name:
        assert module.startswith("not run")
        return
    functions = {
        node.name
        for node in ast.walk(ast.parse((ROOT / module).read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert name in functions


def printed_answer() -> dict[str, object]:
    (block,) = blocks(README, "json")
    answer: dict[str, object] = json.loads(block)
    return answer


def test_the_curl_command_gives_the_printed_answer(server: Server) -> None:
    command = shlex.split(CURL.replace("http://127.0.0.1:8000", server.url))
    if shutil.which("curl"):
        result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        answer = json.loads(result.stdout)
    else:  # the tests need no more than make and Python: the same request without curl
        part, path = command[command.index("-F") + 1].split("=@")
        with (ROOT / path).open("rb") as file:
            answer = httpx.post(command[-1], files={part: file}, timeout=30).json()
    assert answer.keys() == printed_answer().keys()
    compare(answer, printed_answer())


def compare(found: object, printed: object) -> None:
    """Compare exactly, but for numbers: the contract promises 1e-5 across machines."""
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


def test_the_python_example_prints_the_promised_output() -> None:
    (code,) = blocks(README, "python")
    (promised,) = re.findall(r"prints `([^`]+)`", README)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == promised


def test_the_figures_are_those_of_the_bundled_weights() -> None:
    figures = load_checkpoint(BUNDLED).metrics["test"]
    row = (
        f"| {100 * figures['error']:.2f} % | {figures['nll']:.4f} | "
        f"{100 * figures['calibration_error']:.2f} % | {100 * figures['accepted']:.2f} % | "
        f"{figures['errors_accepted']} |"
    )
    assert row in README


def test_the_stated_beta_and_epochs_are_those_of_the_bundled_weights() -> None:
    fit = load_checkpoint(BUNDLED).training["fit"]
    assert f"β = {fit['beta']:g}" in README
    assert f"{fit['epochs']} epochs" in README


def test_make_alone_lists_the_targets() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for target in ("serve", "train", "test", "test-all", "check"):
        assert re.search(rf"^{target} +\w", listed, re.MULTILINE)

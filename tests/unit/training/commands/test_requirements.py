"""Missing packages: every command says in one line what to install."""

import ast
import runpy
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from training.requirements import REQUIRED, check_requirements

BASE = {"model", "training", "mahotas", "numpy", "PIL", "safetensors"}
COMMANDS = ("training.run", "training.evaluate", "training.baselines")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("package", ["torch", "sklearn"])
def test_a_command_without_a_package_says_what_to_install(
    command: str,
    package: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    for module in (command, f"{command}.__main__"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit) as exit_:
        runpy.run_module(command, run_name="__main__")
    assert exit_.value.code == 2
    out, error = capsys.readouterr()
    (line,) = error.splitlines()
    assert f"training needs {package}: run `make train`" in line
    assert "pip install 'maybe-neural-network[training]'" in line
    assert out == ""


def test_a_process_without_pytorch_ends_in_one_line() -> None:
    code = (
        "import runpy, sys\n"
        "sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        "runpy.run_module('training.run', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: training needs torch, torchvision: ")
    assert len(done.stderr.splitlines()) == 1


def test_nothing_is_missing_here() -> None:
    check_requirements()


def test_all_imported_packages_are_required() -> None:
    imported = set()
    for path in (ROOT / "training").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    assert imported - sys.stdlib_module_names - BASE == set(REQUIRED)

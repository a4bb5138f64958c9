"""Who may import whom: `service` and `training` rest on `model`, which knows neither."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.paths import ROOT

ALLOWED = {
    "model": {"numpy", "safetensors", "PIL", "mahotas", "onnx", "onnxruntime", "torch"},
    "training": {
        "model", "numpy", "safetensors", "torch", "torchvision", "torchmetrics", "scipy",
        "skimage", "sklearn", "matplotlib", "PIL", "mahotas", "tqdm",
    },
    "service": {
        "model", "numpy", "PIL", "fastapi", "starlette", "uvicorn", "pydantic", "pydantic_settings",
        "prometheus_client",
    },
    "deploy": {"service", "fastapi", "starlette", "pydantic", "ray"},
}  # fmt: skip

# What answering on a CPU needs must not need torch.
WITH_TORCH = ("layers", "network", "torch_engine", "cuda")


def modules() -> list[Path]:
    return sorted(path for room in ALLOWED for path in (ROOT / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level packages that a module imports anywhere in its text."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names - set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_what_its_room_may(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    foreign = imported(path) - ALLOWED[room] - {room}
    assert not foreign, f"{room} may not import {sorted(foreign)}"


@pytest.mark.parametrize("path", sorted((ROOT / "model").glob("*.py")), ids=lambda p: p.stem)
def test_torch_stays_in_its_rooms(path: Path) -> None:
    if path.stem not in WITH_TORCH:
        assert "torch" not in imported(path)


def test_the_check_would_notice_a_forbidden_import(tmp_path: Path) -> None:
    module = tmp_path / "m.py"
    module.write_text("def f():\n    from service.app import create_app\n    import flask.views\n")
    assert imported(module) == {"service", "flask"}


def test_every_package_is_listed_and_no_other() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(settings["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for room in ALLOWED
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert listed == found

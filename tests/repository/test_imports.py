"""Who may import whom: between packages, between their sub-packages, and from outside."""

import ast
import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# What is right of an arrow may import what is left of it, near or far. A top-level module or folder
# that no arrow names belongs nowhere yet, and fails.
ARROWS = {
    "model": [
        "types errors architecture system ← uncertainty posterior preprocessing nn",
        "uncertainty posterior preprocessing nn ← decision engines ← checkpoint ← classifier",
    ],
    "training": [
        "distributed interruption ← data fitting ← config ← training_set ← pipeline",
        "data ← synthesis ← evaluation ← calibration reporting ← pipeline ← run evaluate",
        "config synthesis ← training_set calibration cli_options ← run evaluate ← baselines",
        "requirements ← run evaluate",
    ],
    "service": [
        "settings paths encoding request_state ← errors ← security ← observability ← process",
        "process ← inference ← model_lifecycle ← dependencies ← api open_inference ← app",
        "model_lifecycle ← middleware ← server app ← __main__",
    ],
    "deploy": ["ray_app"],
    "benchmarks": ["common ← inference training serving"],
}
PACKAGES = {
    "model": set(),
    "service": {"model"},
    "training": {"model"},
    "deploy": {"service"},
    "benchmarks": {"model", "service", "training", "deploy"},
    "notebooks": {"model", "training"},
    "docs": {"model", "service", "training", "benchmarks"},
    "tests": {"model", "service", "training", "deploy", "notebooks", "docs"},
}
THIRD_PARTY = {
    "model": {"numpy", "safetensors", "PIL", "mahotas", "onnx", "onnxruntime", "torch"},
    "training": {
        "numpy", "safetensors", "torch", "torchvision", "scipy", "skimage", "sklearn", "matplotlib",
        "PIL", "mahotas", "tqdm", "jinja2",
    },
    "service": {
        "numpy", "PIL", "fastapi", "starlette", "uvicorn", "pydantic", "pydantic_settings",
        "prometheus_client", "msgspec",
    },
    "deploy": {"fastapi", "starlette", "pydantic", "ray"},
}  # fmt: skip
# Answering on a CPU needs no PyTorch.
WITH_TORCH = ("model.nn", "model.engines.cuda_engine", "model.engines.reference_engine", "training")
MOST_MODULES = 12


@dataclass(frozen=True)
class Import:
    """One imported name, as `from model.engines import make_engine` has it.

    Attributes:
        module: Module that imports it.
        target: Imported module.
        name: Name taken from it, or an empty string for the module itself.
        package: Whether the importing module is an `__init__`.
    """

    module: str
    target: str
    name: str
    package: bool

    def __str__(self) -> str:
        return f"{self.module} imports {self.target}{self.name and '.' + self.name}"


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def modules(root: Path, *packages: str) -> dict[str, Path]:
    """Modules of packages under a folder, by dotted name."""
    found = {}
    for path in sorted(each for package in packages for each in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(root: Path, *packages: str) -> Iterator[Import]:
    """Absolute imports anywhere in the modules of packages, the standard library's left out."""
    known = modules(root, *PACKAGES)
    for module, path in modules(root, *packages).items():
        package = path.name == "__init__.py"
        for node in ast.walk(parsed(path)):
            taken = []
            if isinstance(node, ast.Import):
                taken = [(alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                source = node.module or ""
                taken = [(source, alias.name) for alias in node.names]
            for source, name in taken:
                if source.split(".")[0] in sys.stdlib_module_names:
                    continue
                if f"{source}.{name}" in known:
                    yield Import(module, f"{source}.{name}", "", package)
                else:
                    yield Import(module, source, name, package)


def room(module: str) -> str:
    """Top-level module or folder of a package that a module belongs to, empty for the package."""
    return ".".join(module.split(".")[1:2])


def directions(arrows: list[str]) -> dict[str, set[str]]:
    """What each room may import: all that it reaches against the arrows."""
    below: dict[str, set[str]] = {}
    for chain in arrows:
        groups = [group.split() for group in chain.split("←")]
        for each in groups[0]:
            below.setdefault(each, set())
        for lower, upper in itertools.pairwise(groups):
            for each in upper:
                below.setdefault(each, set()).update(lower)
    for each in itertools.chain.from_iterable(itertools.repeat(list(below), len(below))):
        below[each] |= set().union(*(below[reached] for reached in below[each]))
    return below


def against_the_packages(root: Path) -> list[str]:
    return [
        f"{each}: {package} may import {', '.join(sorted(allowed)) or 'no other package'}"
        for package, allowed in PACKAGES.items()
        for each in imports(root, package)
        if (target := each.target.split(".")[0]) in PACKAGES.keys() - {package}
        and target not in allowed
    ]


def against_the_arrows(root: Path) -> list[str]:
    found = []
    for package, arrows in ARROWS.items():
        below = directions(arrows)
        rooms = {room(module) for module in modules(root, package)} - {""}
        found += [f"no arrow names {package}.{each}" for each in sorted(rooms - below.keys())]
        for each in imports(root, package):
            inside, target = room(each.module), room(each.target)
            if each.target.split(".")[0] != package or not inside or inside == target:
                continue
            if target not in below.get(inside, set()):
                found.append(f"{each}: against the arrows")
    return found


def from_outside(root: Path) -> list[str]:
    found = []
    for package, allowed in THIRD_PARTY.items():
        for each in imports(root, package):
            top = each.target.split(".")[0]
            if top not in allowed | PACKAGES.keys():
                found.append(f"{each}: {package} may not use {top}")
            if top == "torch" and not f"{each.module}.".startswith(
                tuple(f"{where}." for where in WITH_TORCH)
            ):
                found.append(f"{each}: PyTorch is for {', '.join(WITH_TORCH)}")
    return found


def private(root: Path) -> list[str]:
    def hidden(dotted: str) -> bool:
        return any(part.startswith("_") and part != "__main__" for part in dotted.split("."))

    return [
        f"{each}: private"
        for each in imports(root, *PACKAGES)
        if each.target.split(".")[0] in PACKAGES and hidden(f"{each.target}.{each.name}")
    ]


def relative(root: Path) -> list[str]:
    return [
        f"{module}: relative import in line {node.lineno}"
        for module, path in modules(root, *PACKAGES).items()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]


def between_tests(root: Path) -> list[str]:
    return [
        f"{each}: share it in tests.support"
        for each in imports(root, "tests")
        if each.target.startswith("tests.") and not each.target.startswith("tests.support")
    ]


def more_than_exports(root: Path) -> list[str]:
    """An `__init__` holds a docstring, imports and assignments, or exports lazily."""
    exports = (ast.Import, ast.ImportFrom, ast.Assign)
    found = []
    for module, path in modules(root, *ARROWS).items():
        if path.name != "__init__.py":
            continue
        for node in parsed(path).body:
            described = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            lazy = isinstance(node, ast.FunctionDef) and node.name == "__getattr__"
            typed = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            if not (described or lazy or typed or isinstance(node, exports)):
                found.append(f"{module}: line {node.lineno} is more than an export")
    return found


def crowded_folders(root: Path) -> list[str]:
    folders = [path.parent for path in modules(root, *PACKAGES).values()]
    return [
        f"{folder.relative_to(root)} holds {number} modules; {MOST_MODULES} at most"
        for folder in dict.fromkeys(folders)
        if (number := len([each for each in folder.glob("*.py") if each.stem != "__init__"]))
        > MOST_MODULES
    ]


Check = Callable[[Path], list[str]]
CHECKS: list[Check] = [
    against_the_packages, against_the_arrows, from_outside, private, relative, between_tests,
    more_than_exports, crowded_folders,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_repository_keeps_the_rules(check: Check) -> None:
    assert "\n".join(check(ROOT)) == ""


@pytest.mark.parametrize(
    ("check", "module", "text"),
    [
        (against_the_packages, "model/types.py", "from service.app import create_app"),
        (against_the_packages, "service/app.py", "def f():\n    import training.config"),
        (against_the_packages, "tests/unit/test_x.py", "from benchmarks.common import timing"),
        (against_the_arrows, "model/types.py", "from model import classifier"),
        (against_the_arrows, "model/nn/layers.py", "from model import load"),
        (against_the_arrows, "model/uncertainty.py", "from model.posterior import Posterior"),
        (against_the_arrows, "service/errors.py", "import service.app"),
        (against_the_arrows, "benchmarks/inference/x.py", "import benchmarks.serving.load"),
        (against_the_arrows, "model/novel.py", "import numpy"),
        (from_outside, "service/app.py", "import flask.views"),
        (from_outside, "model/engines/onnx_engine.py", "from torch import nn"),
        (private, "model/types.py", "from model.errors import _secret"),
        (private, "benchmarks/common/x.py", "from model._hidden import name"),
        (relative, "model/types.py", "from . import errors"),
        (between_tests, "tests/unit/test_x.py", "from tests.unit.test_y import f"),
        (more_than_exports, "model/nn/__init__.py", "def f(): ..."),
        (crowded_folders, "model/nn/m12.py", ""),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, check: Check, module: str, text: str) -> None:
    for name in ("model/classifier.py", *(f"model/nn/m{number}.py" for number in range(12))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert check(tmp_path) == []
    path = tmp_path / module
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    (found,) = check(tmp_path)
    assert module.rpartition("/")[0].replace("/", ".") in found.replace("/", ".")

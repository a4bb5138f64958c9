"""What is not documented does not exist: settings, problems, links."""

import re
from pathlib import Path

import pytest

from service.errors import TITLES
from service.settings import Settings
from tests.support.paths import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def rows() -> dict[str, tuple[str, str]]:
    section = OPERATIONS.split("\n## ")[1]
    found = re.findall(r"^\| `(MNN_[A-Z_]+)` \| `([^`]*)` \| (.*) \|$", section, re.MULTILINE)
    return {name: (default, meaning) for name, default, meaning in found}


def test_every_setting_is_documented_with_its_default_and_meaning() -> None:
    expected = {}
    for name, field in Settings.model_fields.items():
        default = str(field.default)
        if isinstance(field.default, bool):
            default = default.lower()
        expected[f"MNN_{name.upper()}"] = (default, field.description)
    assert rows() == expected


def test_every_variable_of_the_compose_files_is_documented() -> None:
    used = set()
    for path in (ROOT / "docker-compose.yml", ROOT / "compose.gpu.yml"):
        used |= set(re.findall(r"\$\{(\w+)", path.read_text()))
    documented = set(re.findall(r"`((?:MNN|TORCH)_[A-Z_]+)`", OPERATIONS.split("## Containers")[1]))
    assert used - documented == set()


def test_every_status_is_documented() -> None:
    documented = {int(s) for s in re.findall(r"\b([45]\d\d)\b", OPERATIONS)}
    assert documented >= set(TITLES)


def test_every_metric_is_documented_and_no_other() -> None:
    served = set(re.findall(r'"(mnn_\w+)"', (ROOT / "service" / "metrics.py").read_text()))
    documented = set(re.findall(r"`(mnn_\w+)`", OPERATIONS))
    assert documented == (served - {"mnn_model"}) | {"mnn_model_info"}


def test_the_documents_and_make_help_agree_on_how_long_the_soak_tests_take() -> None:
    told = re.search(r"^soak:.*; (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert told is not None
    assert f"`make soak` ({told[1]}," in OPERATIONS


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_and_tests_named_in_documents_exist(path: Path) -> None:
    code = "\n".join(
        p.read_text()
        for room in ("model", "service", "training", "tests", "benchmarks")
        for p in (ROOT / room).rglob("*.py")
    )
    for name in re.findall(r"`(test_\w+)`", path.read_text()):
        assert f"def {name}(" in code, name
    for name in re.findall(r"`(?:model|training|service)(?:\.\w+)*\.(\w+)`", path.read_text()):
        assert re.search(rf"\b{name}\b", code) or (ROOT / "model" / f"{name}.py").exists(), name

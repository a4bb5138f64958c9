"""The documents name every setting, metric, status and tensor; their links and names exist."""

import re
from pathlib import Path
from typing import get_args

import pytest

from docs.make_tables import DOCS, TABLES, filled
from service.api.schemas import PredictResponse, Uncertainty
from service.errors import KINDS, Rejection
from service.settings import Settings
from tests.support.paths import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GUIDES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def read(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def first_column(name: str) -> set[str]:
    _, make_rows = TABLES[name]
    return {cell for row in list(make_rows())[1:] for cell in re.findall(r"`(\w+)`", row[0])}


@pytest.mark.parametrize("name", TABLES)
def test_a_generated_table_is_up_to_date(name: str) -> None:
    document, make_rows = TABLES[name]
    text = (DOCS / document).read_text()
    assert filled(text, name, make_rows()) == text, "stale: run `make docs`"


def test_a_stale_table_would_be_noticed() -> None:
    document, make_rows = TABLES["settings"]
    text = (DOCS / document).read_text()
    assert filled(text, "settings", list(make_rows())[:-1]) != text


def test_every_setting_is_documented_with_its_default() -> None:
    text = read("configuration.md")
    documented = dict(
        re.findall(r"^\| `(MNN_[A-Z_]+)` \| ([^|]*) \| [^|]+ \|$", text, re.MULTILINE)
    )
    for name, field in Settings.model_fields.items():
        default = documented[f"MNN_{name.upper()}"]
        if field.default is None:
            assert default == "not set", name
        else:
            assert default.strip("`").lower() == str(field.default).lower(), name


def test_every_variable_of_the_compose_files_is_documented() -> None:
    used = set()
    for path in (ROOT / "docker-compose.yml", ROOT / "compose.gpu.yml"):
        used |= set(re.findall(r"\$\{(\w+)", path.read_text()))
    section = read("configuration.md").split("## Compose variables")[1]
    assert used <= set(re.findall(r"`((?:MNN|TORCH)_[A-Z_]+)`", section))


def test_every_status_is_documented() -> None:
    section = read("api.md").split("## Errors")[1].split("\n## ")[0]
    rows = "\n".join(line.split("|")[1] for line in section.splitlines() if line.startswith("|"))
    documented = {int(status) for status in re.findall(r"\b[45]\d\d\b", rows)}
    assert documented >= {kind.status for kind in KINDS.values()} | {405}


def test_every_reason_of_a_rejection_is_documented() -> None:
    assert first_column("reasons") == set(get_args(Rejection))


@pytest.mark.parametrize("path", GUIDES, ids=lambda p: p.name)
def test_metrics_and_settings_named_in_guides_exist(path: Path) -> None:
    text = path.read_text()
    families = {name for name in first_column("metrics") if name.startswith("mnn_")}
    named = set(re.findall(r"(?<![a-z_])mnn_[a-z_]+\b", re.sub(r"ray_mnn_\w+", "", text)))
    known = families | {
        f"{name}_{part}" for name in families for part in ("bucket", "count", "sum")
    }
    assert named <= known
    compose = set(re.findall(r"MNN_[A-Z_]+", (ROOT / "docker-compose.yml").read_text()))
    settings = {f"MNN_{name.upper()}" for name in Settings.model_fields}
    tests = {"MNN_FUZZ_EXAMPLES"}
    assert set(re.findall(r"MNN_[A-Z_]+", text)) <= settings | compose | tests


def test_the_documents_and_make_help_agree_on_how_long_the_soak_tests_take() -> None:
    target = re.search(r"^soak:.*## .*; (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert target is not None
    assert target[1] in read("operations.md")


def test_the_readme_fits_in_150_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if link.startswith("http"):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target) if target else path
        assert file.exists(), link
        if anchor:
            assert anchor in anchors(file), link


NOT_CODE = {"model.version", "service.access"}  # a field of the answer, a logger
PACKAGES = ("benchmarks", "deploy", "docs", "model", "service", "tests", "training")


@pytest.fixture(scope="module")
def code() -> str:
    """All Python code of the repository."""
    return "\n".join(p.read_text() for each in PACKAGES for p in (ROOT / each).rglob("*.py"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_tests_named_in_documents_exist(path: Path, code: str) -> None:
    for name in re.findall(r"`(test_\w+)`", path.read_text()):
        assert f"def {name}(" in code, name


def exists(dotted: str) -> bool:
    """Whether a dotted name is a package, a module, or a name in a module."""
    path, rest = ROOT, dotted.split(".")
    while rest and (path / rest[0]).is_dir():
        path /= rest.pop(0)
    module = (path / rest.pop(0)).with_suffix(".py") if rest else path / "__init__.py"
    return module.exists() and all(re.search(rf"\b{n}\b", module.read_text()) for n in rest)


@pytest.mark.parametrize("path", GUIDES, ids=lambda p: p.name)
def test_modules_and_functions_named_in_guides_exist(path: Path) -> None:
    dotted = rf"(?<![\w/.])(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+"
    named = {n for n in re.findall(dotted, path.read_text()) if not n.endswith(".md")} - NOT_CODE
    assert {name for name in named if not exists(name)} == set()


@pytest.mark.parametrize("path", GUIDES, ids=lambda p: p.name)
def test_files_named_in_guides_exist(path: Path) -> None:
    text = path.read_text()
    named = set(re.findall(rf"`((?:{'|'.join(PACKAGES)})/[\w/.-]+)`", text))
    assert {name for name in named if not (ROOT / name).exists()} == set()
    tests = {file.name for file in (ROOT / "tests").rglob("*.py")}
    assert set(re.findall(r"`(test_\w+\.py)`", text)) <= tests


def test_the_readme_explains_every_field_of_the_answer() -> None:
    table = (ROOT / "README.md").read_text().split("## What the fields mean")[1].split("\n## ")[0]
    explained = set(re.findall(r"`([\w.]+)`", table))
    obvious = {
        "prediction",
        "classes",
        "samples",
        "level",
        "model",
        "preview",
        "draws",
        "uncertainty",
    }
    fields = PredictResponse.model_fields.keys() | Uncertainty.model_fields.keys()
    assert fields - obvious <= explained | {"label"}

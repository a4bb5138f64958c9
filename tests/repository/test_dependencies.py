"""The dependency lists of pyproject.toml and the tested versions of constraints.txt."""

import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT
from training.requirements import REQUIRED

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LISTS: dict[str, list[str]] = {
    "base": PROJECT["dependencies"],
    **PROJECT["optional-dependencies"],
}
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
)
TESTED = {canonicalize_name(name): version for name, version in PINS.items()}
# Distributions whose modules have another name.
IMPORTED_AS = {"scikit-image": "skimage", "scikit-learn": "sklearn"}


@pytest.mark.parametrize("name", LISTS)
def test_each_dependency_allows_its_tested_version(name: str) -> None:
    for requirement in map(Requirement, LISTS[name]):
        version = TESTED[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_the_base_is_without_pytorch() -> None:
    names = {Requirement(line).name for line in LISTS["base"]}
    assert not names & {Requirement(line).name for line in LISTS["cuda"] + LISTS["training"]}


def test_training_checks_for_all_that_its_extra_installs() -> None:
    names = {Requirement(line).name for line in LISTS["training"]}
    assert {IMPORTED_AS.get(name, name) for name in names} == set(REQUIRED)

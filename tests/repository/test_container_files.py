"""The Dockerfile and the Compose file: versions, settings and grace periods."""

import re
import tomllib
from typing import Any

import pytest
import yaml

from service.settings import Settings
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    """The service of the Compose file."""
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return dict(document["services"]["service"])


def test_the_image_states_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'image.version="{version}"' in (ROOT / "Dockerfile").read_text()


def test_the_index_of_pytorch_adds_to_the_usual_one() -> None:
    # Alone it lacks what the constraints pin of PyTorch's own dependencies.
    assert not re.search(r"(?<!extra)-index-url", (ROOT / "Dockerfile").read_text())


def test_each_setting_but_the_address_reaches_the_container(service: dict[str, Any]) -> None:
    settings = {f"MNN_{name.upper()}" for name in Settings.model_fields}
    assert set(service["environment"]) == settings - {"MNN_HOST", "MNN_PORT"}


def test_the_grace_period_is_above_the_longest_drain(service: dict[str, Any]) -> None:
    grace_s = int(service["stop_grace_period"].removesuffix("s"))
    waits = ("drain_delay_s", "body_timeout_s", "request_timeout_s")
    assert grace_s >= sum(Settings.model_fields[name].default for name in waits) + 5

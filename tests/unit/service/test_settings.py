"""Settings that are written wrongly are named."""

from collections.abc import Callable

import pytest

from service import Settings
from service.settings import misspelt
from tests.support.server import Server


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MNN_KEYFORALL", "MNN_KEY_FOR_ALL"),
        ("MNN_APIKEY", "MNN_API_KEY"),
        ("MNN_QUEU", "MNN_QUEUE"),
        ("mnn_lane", "MNN_LANES"),
        ("MNN_CORS_ORIGIN", "MNN_CORS_ORIGINS"),
        ("MNN_REQUEST_TIMEOUT", "MNN_REQUEST_TIMEOUT_S"),
    ],
)
def test_a_name_that_is_nearly_a_setting_is_told_with_the_one_that_may_be_meant(
    name: str, meant: str
) -> None:
    assert misspelt(["PATH", "QUEU", name]) == {name: meant}


def test_settings_themselves_and_what_others_of_the_project_read_are_not_told() -> None:
    settings = [f"MNN_{name}".upper() for name in Settings.model_fields]
    others = ["MNN_DATA_DIR", "MNN_PUBLISH", "MNN_MEMORY", "MNN_CPUS", "MNN_SOAK", "PORT"]
    assert misspelt([*settings, *map(str.lower, settings), *others]) == {}


def test_the_service_warns_of_one_without_its_value_and_serves(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(device="cpu", apikey="never to be logged")
    warnings = [line["message"] for line in server.logged() if line["level"] == "warning"]
    assert warnings == ["MNN_APIKEY is no setting and has no effect; is MNN_API_KEY meant?"]
    assert "never to be" not in server.log.read_text()

"""Settings: misspelt names are reported, invalid values rejected."""

import logging
import sys
from collections.abc import Iterator

import pytest

from model import Classifier
from model.checkpoint import BUNDLED
from service import Settings
from service.model_lifecycle.loading import load_model
from service.process.tuning import prepare
from service.settings import find_misspelt
from tests.support.checkpoints import tiny_checkpoint
from tests.support.service.engines import FailingEngine


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MNN_REQUIRE_APIKEY", "MNN_REQUIRE_API_KEY"),
        ("MNN_APIKEY", "MNN_API_KEY"),
        ("MNN_MAX_QUEUE_IMAGES", "MNN_MAX_QUEUED_IMAGES"),
        ("mnn_worker_thread", "MNN_WORKER_THREADS"),
        ("MNN_CORS_ORIGIN", "MNN_CORS_ORIGINS"),
        ("MNN_REQUEST_TIMEOUT", "MNN_REQUEST_TIMEOUT_S"),
    ],
)
def test_a_misspelt_setting_is_found_with_the_likely_one(name: str, meant: str) -> None:
    assert find_misspelt(["PATH", "DRAW", name]) == {name: meant}


def test_settings_and_variables_of_other_tools_are_not_misspelt() -> None:
    settings = [f"MNN_{name}".upper() for name in Settings.model_fields]
    others = ["MNN_DATA_DIR", "MNN_PUBLISH", "MNN_MEMORY", "MNN_CPUS", "MNN_SOAK", "PORT"]
    assert find_misspelt([*settings, *map(str.lower, settings), *others]) == {}


@pytest.fixture
def _restored_process() -> Iterator[None]:
    """Undo what `prepare` changes of this process."""
    root, interval = logging.getLogger(), sys.getswitchinterval()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_restored_process")
def test_a_misspelt_setting_is_logged_without_its_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MNN_APIKEY", "never to be logged")
    prepare(Settings())
    logged = capsys.readouterr().err
    assert "MNN_APIKEY is not a setting and has no effect; did you mean MNN_API_KEY?" in logged
    assert "never to be" not in logged


def test_the_bytes_in_flight_must_hold_one_body() -> None:
    with pytest.raises(ValueError, match="MNN_MAX_INFLIGHT_BYTES"):
        Settings(max_inflight_bytes=2**20, max_body_bytes=2**21)


@pytest.mark.parametrize(("worker_threads", "threads"), [(1, 1), (0, None)])
def test_worker_threads_bound_the_threads_of_the_engine(
    worker_threads: int, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    def load(_: object, **options: object) -> Classifier:
        given.update(options)
        return Classifier(tiny_checkpoint(), FailingEngine())

    monkeypatch.setattr("service.model_lifecycle.loading.load", load)
    load_model(BUNDLED, Settings(worker_threads=worker_threads), allow_bundled=True)
    assert given["threads"] == threads

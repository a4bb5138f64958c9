"""A service that cannot start says why in one line and ends."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model import CheckpointError, load_checkpoint, save_checkpoint
from service import Settings, create_app
from tests.support.checkpoints import spoil, tiny_checkpoint
from tests.support.service.in_process import running
from tests.support.service.server import Server, error_of_start, service_environment

pytestmark = pytest.mark.not_through_ray("it starts a process")

MakeServer = Callable[..., Server]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The file of a small checkpoint, for tests to damage."""
    path = tmp_path / "spoiled.safetensors"
    save_checkpoint(tiny_checkpoint(), path)
    return path


def check_refused(server: Server, *reasons: str) -> None:
    """Check that it ends by itself with code 1, and that one line of its log says why."""
    try:
        code = server.process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        pytest.fail(f"it did not end:\n{server.log.read_text()}")
    log = server.log.read_text()
    assert code == 1, log
    lines = [line for line in server.logged() if line["message"].startswith("cannot serve")]
    assert len(lines) == 1, log
    assert lines[0]["level"] == "error"
    for reason in reasons:
        assert reason in lines[0]["message"]
    assert "Traceback" not in log


def check_refused_here(caplog: pytest.LogCaptureFixture, path: Path, *reasons: str) -> None:
    """Check the same of an application in this process."""
    failed = threading.Event()
    settings = Settings(device="cpu", draws=40, checkpoint=path)
    app = create_app(settings, on_failed_start=failed.set)
    with running(app) as client:
        assert failed.wait(30)
        assert client.get("/health/ready").status_code == 503
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage().startswith("cannot serve")
    assert record.exc_info is None
    for reason in (str(path), *reasons):
        assert reason in record.getMessage()


def test_a_missing_checkpoint_is_refused_without_the_bundled_model(
    make_server: MakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "absent.safetensors"
    server = make_server(ready=False, checkpoint=path, allow_bundled_model=False)
    check_refused(server, str(path), "no such file", "MNN_ALLOW_BUNDLED_MODEL")


def test_a_truncated_checkpoint_is_refused_in_spite_of_the_bundled_model(
    make_server: MakeServer, checkpoint: Path
) -> None:
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: len(data) // 2])
    check_refused(make_server(ready=False, checkpoint=checkpoint), str(checkpoint), "truncated")


def test_a_checkpoint_of_another_architecture_is_refused_by_tensor_and_shape(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(checkpoint, lambda _, metadata: metadata["architecture"].update(hidden=[9]))
    check_refused_here(caplog, checkpoint, "dense1.weight.mean", "(6, 75)", "(9, 75)")


def test_a_checkpoint_that_holds_a_nan_is_refused_by_tensor(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(checkpoint, lambda tensors, _: tensors["conv2.bias.mean"].__setitem__(0, np.nan))
    check_refused_here(caplog, checkpoint, "conv2.bias.mean", "not finite")


def test_a_checkpoint_with_an_impossible_name_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check_refused_here(caplog, Path(300 * "x"))  # longer than a file's name may be


def test_an_absent_device_is_refused(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that no machine has one
    check_refused(make_server(ready=False, device="cuda"), "cuda", "'auto' or 'cpu'")


def test_a_port_in_use_is_refused(server: Server, tmp_path: Path) -> None:
    port = server.url.rsplit(":", 1)[1]
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        env=service_environment(port=port),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "address already in use" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("part", ["provider.make_pool", "provider.ModelProvider.install"])
def test_a_start_that_fails_after_loading_is_logged_and_ends(
    part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(f"service.model_lifecycle.{part}", fail)
    failed = threading.Event()
    app = create_app(Settings(device="cpu", draws=40), on_failed_start=failed.set)
    with running(app) as client:
        assert failed.wait(30)
        assert client.get("/health/ready").status_code == 503
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "cannot serve: can't start new thread"
    ]


METADATA: dict[str, Callable[[dict[str, Any]], object]] = {
    "size that is no whole number": lambda m: m["architecture"].update(image_size=28.0),
    "infinite width": lambda m: m["architecture"].update(hidden=[float("inf")]),
    "number of images in words": lambda m: m["selective"].update(n_calibration="many"),
    "metrics that are no object": lambda m: m.update(metrics=False),
    "training that is no object": lambda m: m.update(training=3),
}


@pytest.mark.parametrize("kind", METADATA)
def test_invalid_metadata_is_refused_at_loading(checkpoint: Path, kind: str) -> None:
    spoil(checkpoint, lambda _, metadata: METADATA[kind](metadata))
    with pytest.raises(CheckpointError, match=checkpoint.name):
        load_checkpoint(checkpoint)


# Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", "abc"), ("device", "tpu"), ("draws", "1"), ("max_queued_images", "-1")],
)
def test_an_invalid_setting_is_named_in_one_line(name: str, value: str) -> None:
    (line,) = error_of_start(**{name: value}).splitlines()
    assert line.startswith(f"error: MNN_{name.upper()}={value!r}: Input should be")


def test_every_invalid_setting_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        env=service_environment(port="abc", device="tpu"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert [line.split("=")[0] for line in sorted(done.stderr.splitlines())] == [
        "error: MNN_DEVICE",
        "error: MNN_PORT",
    ]

"""Fuzzing: any image or checkpoint file is read, or rejected with a documented error.

A normal run is short; `MNN_FUZZ_EXAMPLES=20000` makes it thorough. `preprocessing` and
`test_checkpoint.py` have known kinds of damage, one by one.
"""

import json
import resource
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from model import CheckpointError, Classifier, load, save_checkpoint
from model.errors import ImageError
from model.preprocessing.normalize import open_bytes
from tests.support.checkpoints import tiny_checkpoint
from tests.support.fuzz.hostile import edited, hostile_images, hostile_json
from tests.support.fuzz.strategies import fuzz_examples

# Far more than any example takes: longer means it hangs.
NO_HANG = timedelta(seconds=30)
MAX_MEMORY_MIB = 1024

thorough = settings(deadline=NO_HANG, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module", autouse=True)
def _memory_is_bounded() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) / 1024 < MAX_MEMORY_MIB


# Images


@settings(thorough, max_examples=fuzz_examples(200))
@given(hostile_images())
def test_a_hostile_image_is_read_or_rejected_with_a_documented_error(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the service does not treat them as errors either
        try:
            image = open_bytes(data)
        except ImageError as error:
            event(type(error).__name__)
            return
    event("read")
    assert image.pixels.shape == (28, 28)
    assert image.pixels.dtype == np.uint8
    assert (image.pixels.max() == 0) == ("no_ink" in image.reasons)


# Checkpoints


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "tiny.safetensors"
    save_checkpoint(tiny_checkpoint(), path)
    return path.read_bytes()


def parts(data: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The header of a checkpoint, its metadata decoded, and the tensors' bytes."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    metadata = {key: json.loads(value) for key, value in header.pop("__metadata__").items()}
    return header, metadata, data[8 + size :]


def joined(header: dict[str, Any], metadata: dict[str, Any], body: bytes) -> bytes:
    encoded = {key: json.dumps(value) for key, value in metadata.items()}
    text = json.dumps({"__metadata__": encoded, **header}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything inside a JSON value."""
    if at:
        yield at
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*at, key))


@st.composite
def spoiled(draw: st.DrawFn, value: dict[str, Any]) -> dict[str, Any]:
    """A copy of a JSON object with one or two values replaced, removed or added."""
    result: dict[str, Any] = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from(list(places(result))))
        inside: Any = result
        for step in way:
            inside = inside[step]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if kind == "replace":
            inside[last] = draw(hostile_json())
        elif kind == "remove":
            del inside[last]
        elif isinstance(inside, dict):
            inside[draw(st.text(max_size=6))] = draw(hostile_json())
    return result


def check_loaded_or_rejected(path: Path, data: bytes) -> None:
    """Check that a file is rejected by a `CheckpointError` that names it, or loads and predicts."""
    path.write_bytes(data)
    try:
        classifier = load(path, n_draws=4, device="cpu", threads=1)
    except CheckpointError as error:
        event("rejected")
        message = str(error)
    else:
        event("loaded")
        check_predicts(classifier)
        return
    assert path.name in message


def check_predicts(classifier: Classifier) -> None:
    probabilities = classifier.probabilities(np.zeros((1, 28, 28), np.uint8))
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    classifier.predict(np.zeros((28, 28), np.uint8), level=0.5)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "hostile.safetensors"


@settings(thorough, max_examples=fuzz_examples(50))
@given(data=st.data())
def test_a_checkpoint_with_hostile_metadata_is_rejected_or_predicts(
    whole: bytes, path: Path, data: st.DataObject
) -> None:
    header, metadata, body = parts(whole)
    check_loaded_or_rejected(path, joined(header, data.draw(spoiled(metadata)), body))


@settings(thorough, max_examples=fuzz_examples(50))
@given(data=st.data())
def test_a_checkpoint_with_a_hostile_header_is_rejected_or_predicts(
    whole: bytes, path: Path, data: st.DataObject
) -> None:
    header, metadata, body = parts(whole)
    check_loaded_or_rejected(path, joined(data.draw(spoiled(header)), metadata, body))


@settings(thorough, max_examples=fuzz_examples(50))
@given(data=st.data())
def test_a_checkpoint_of_hostile_bytes_is_rejected_or_predicts(
    whole: bytes, path: Path, data: st.DataObject
) -> None:
    check_loaded_or_rejected(path, data.draw(edited(whole, others=st.just(whole))))

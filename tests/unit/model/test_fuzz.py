"""Hostile files: whatever a picture or a checkpoint holds, only the documented errors come out.

A normal run is short; `MNN_FUZZ_EXAMPLES=20000` makes it thorough. `tests/unit/model/test_normalize.py` and
`test_checkpoint.py` have the damages that were thought of one by one.
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
from tests.support.hostile import edited, hostile_json, hostile_pictures
from tests.support.strategies import fuzz_examples

# Far more than any of them takes: what takes longer hangs.
NO_HANG = timedelta(seconds=30)
MOST_MEMORY_MIB = 1024

thorough = settings(deadline=NO_HANG, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module", autouse=True)
def _memory_is_bounded() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) / 1024 < MOST_MEMORY_MIB


# Pictures


@settings(thorough, max_examples=fuzz_examples(1000))
@given(hostile_pictures())
def test_a_hostile_picture_is_read_or_refused_with_a_documented_error(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in the service, where they are no errors
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
    """The way to everything inside a JSON value."""
    if at:
        yield at
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*at, key))


@st.composite
def spoiled(draw: st.DrawFn, value: dict[str, Any]) -> dict[str, Any]:
    """A copy of a JSON object in which one or two things are others, gone, or new."""
    result: dict[str, Any] = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from(list(places(result))))
        inside: Any = result
        for step in way:
            inside = inside[step]
        kind = draw(st.sampled_from(["another", "another", "gone", "new"]))
        if kind == "another":
            inside[last] = draw(hostile_json())
        elif kind == "gone":
            del inside[last]
        elif isinstance(inside, dict):
            inside[draw(st.text(max_size=6))] = draw(hostile_json())
    return result


def check_loaded_or_refused(path: Path, data: bytes) -> None:
    """Only a `CheckpointError` may come, and it names the file; what is loaded answers."""
    path.write_bytes(data)
    try:
        classifier = load(path, n_draws=4, device="cpu", threads=1)
    except CheckpointError as error:
        event("refused")
        told = str(error)
    else:
        event("loaded")
        check_answers(classifier)
        return
    assert path.name in told


def check_answers(classifier: Classifier) -> None:
    probabilities = classifier.probabilities(np.zeros((1, 28, 28), np.uint8))
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    classifier.predict(np.zeros((28, 28), np.uint8), level=0.5)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "hostile.safetensors"


@settings(thorough, max_examples=fuzz_examples(200))
@given(data=st.data())
def test_a_checkpoint_with_hostile_metadata_is_refused_or_answers(
    whole: bytes, path: Path, data: st.DataObject
) -> None:
    header, metadata, body = parts(whole)
    check_loaded_or_refused(path, joined(header, data.draw(spoiled(metadata)), body))


@settings(thorough, max_examples=fuzz_examples(200))
@given(data=st.data())
def test_a_checkpoint_with_a_hostile_header_is_refused_or_answers(
    whole: bytes, path: Path, data: st.DataObject
) -> None:
    header, metadata, body = parts(whole)
    check_loaded_or_refused(path, joined(data.draw(spoiled(header)), metadata, body))


@settings(thorough, max_examples=fuzz_examples(200))
@given(data=st.data())
def test_a_checkpoint_of_hostile_bytes_is_refused_or_answers(
    whole: bytes, path: Path, data: st.DataObject
) -> None:
    check_loaded_or_refused(path, data.draw(edited(whole, others=st.just(whole))))

"""Checkpoints: read whole or rejected, naming file, tensor, expected and found."""

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model import Checkpoint, CheckpointError, Posterior, load_checkpoint, save_checkpoint
from model.checkpoint import BUNDLED
from tests.support.checkpoints import spoil, tiny_checkpoint
from tests.support.fuzz.strategies import fuzz_examples

Tensors = dict[str, np.ndarray]
Metadata = dict[str, Any]


def saved(folder: Path) -> Path:
    path = folder / "tiny.safetensors"
    save_checkpoint(tiny_checkpoint(), path)
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    original, back = tiny_checkpoint(), load_checkpoint(saved(tmp_path))
    for part in ("mean", "scale"):
        before, after = getattr(original.posterior, part), getattr(back.posterior, part)
        assert list(before) == list(after)
        assert all(np.array_equal(before[name], after[name]) for name in before)
    for name in ("name", "digest", "selective", "conformal", "metrics", "training"):
        assert getattr(original, name) == getattr(back, name)
    assert back.posterior.config == original.posterior.config
    assert back.version(20) == original.version(20)
    assert back.draws_are_reproduced()


def changed(checkpoint: Checkpoint, **fields: Any) -> Checkpoint:
    """A copy with other fields of the checkpoint, or of its posterior."""
    own = {k: v for k, v in fields.items() if hasattr(checkpoint, k)}
    inner = {k: v for k, v in fields.items() if not hasattr(checkpoint, k)}
    return replace(checkpoint, posterior=replace(checkpoint.posterior, **inner), **own)


def nudged(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    copies = {name: values.copy() for name, values in arrays.items()}
    copies["dense2.bias"][0] += 1e-6
    return copies


def test_the_version_is_a_hash_of_what_decides_an_answer_and_of_nothing_else() -> None:
    checkpoint = tiny_checkpoint()
    posterior = checkpoint.posterior
    relabelled = replace(posterior.config, labels=tuple("abcdefghij"))
    deciding = [
        changed(checkpoint, mean=nudged(posterior.mean)),
        changed(checkpoint, scale=nudged(posterior.scale)),
        changed(checkpoint, seed=8),
        changed(checkpoint, config=relabelled),
        changed(checkpoint, selective=replace(checkpoint.selective, threshold=0.1)),
        changed(checkpoint, conformal=replace(checkpoint.conformal, threshold=0.1)),
        changed(checkpoint, input_contract="another contract"),
    ]
    versions = {checkpoint.version(20), checkpoint.version(21), *(c.version(20) for c in deciding)}
    assert len(versions) == len(deciding) + 2
    words = replace(checkpoint.selective, population="others", target=0.5, n_calibration=7)
    beside = changed(
        checkpoint,
        metrics={},
        training={"created": "now"},
        digest="0" * 16,
        selective=words,
        conformal=replace(checkpoint.conformal, coverage=0.5),
        config=replace(posterior.config, prior_scale=0.7),
    )
    assert beside.version(20) == checkpoint.version(20)
    assert len(checkpoint.version(20)) == 12


def check_rejected(path: Path, *parts: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    for part in (path.name, *parts):
        assert part in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    check_rejected(tmp_path / "absent.safetensors", "no such file")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_rejected(tmp_path: Path, share: float) -> None:
    path = saved(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    check_rejected(path, "truncated")


def test_other_files_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    for data in (b"hello", b"\x80\x04K\x01.", os.urandom(500), b"\xff" * 100):
        path.write_bytes(data)
        check_rejected(path, "safetensors")
    path.write_bytes(safetensors.numpy.save({"a": np.zeros(2)}))
    check_rejected(path, "metadata")
    nested = b"[" * 100_000
    path.write_bytes(len(nested).to_bytes(8, "little") + nested)
    check_rejected(path, "safetensors")
    check_rejected(tmp_path, "cannot be read")


DAMAGES: dict[str, tuple[Callable[[Tensors, Metadata], object], tuple[str, ...]]] = {
    "NaN": (
        lambda t, _: t["dense1.weight.mean"].__setitem__((0, 0), np.nan),
        ("dense1.weight.mean", "not finite"),
    ),
    "infinite scale": (
        lambda t, _: t["conv1.bias.scale"].__setitem__(0, np.inf),
        ("conv1.bias.scale", "not finite"),
    ),
    "zero scale": (
        lambda t, _: t["conv1.bias.scale"].__setitem__(0, 0),
        ("conv1.bias.scale", "above 0"),
    ),
    "shape": (
        lambda t, _: t.update({"dense2.bias.mean": np.zeros(11, np.float32)}),
        ("dense2.bias.mean", "(11,)", "(10,)"),
    ),
    "type": (
        lambda t, _: t.update({"dense2.bias.mean": np.zeros(10, np.float64)}),
        ("dense2.bias.mean", "float64", "float32"),
    ),
    "missing tensor": (lambda t, _: t.pop("conv2.weight.scale"), ("missing conv2.weight.scale",)),
    "unknown tensor": (
        lambda t, _: t.update(extra=np.zeros(1, np.float32)),
        ("unknown extra",),
    ),
    "another architecture": (
        lambda _, m: m["architecture"].update(hidden=[9]),
        ("dense1.weight.mean", "(6, 75)", "(9, 75)"),
    ),
    "unknown architecture": (lambda _, m: m["architecture"].update(depth=3), ("architecture",)),
    "format": (lambda _, m: m.update(format="pickle 9"), ("pickle 9", "maybe-neural-network 1")),
    "preprocessing": (lambda _, m: m.update(input_contract="v0"), ("v0", "train again")),
    "missing metadata": (lambda _, m: m.pop("selective"), ("selective", "missing")),
    "unknown score": (lambda _, m: m["selective"].update(score="luck"), ("luck",)),
    "text threshold": (
        lambda _, m: m["selective"].update(threshold="low"),
        ("selective threshold", "'low'"),
    ),
    "NaN threshold": (
        lambda _, m: m["conformal"].update(threshold=float("nan")),
        ("conformal threshold", "nan"),
    ),
    "no number of draws": (lambda _, m: m["selective"].update(n_draws=None), ("n_draws",)),
    "risk in percent": (lambda _, m: m["selective"].update(target=5), ("target", "5", "share")),
    "coverage in percent": (
        lambda _, m: m["conformal"].update(coverage=99.9),
        ("coverage", "99.9", "share"),
    ),
    "another size of input": (
        lambda _, m: m["architecture"].update(image_size=29),
        ("image_size", "29", "28"),
    ),
    "negative seed": (lambda _, m: m["draws"].update(seed=-1), ("seed",)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_rejected_by_file_place_expected_and_found(
    tmp_path: Path, damage: str
) -> None:
    path = saved(tmp_path)
    function, parts = DAMAGES[damage]
    spoil(path, function)
    check_rejected(path, *parts)


def test_an_oversized_file_is_rejected_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.truncate(65 * 2**20)  # sparse: takes no room on disk
    check_rejected(path, "expected at most")


@settings(
    max_examples=fuzz_examples(50),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_damaged_bytes_raise_nothing_but_checkpoint_errors(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = saved(tmp_path)
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    # Anything but a whole checkpoint or a CheckpointError fails the test.
    with contextlib.suppress(CheckpointError):
        load_checkpoint(path)


def test_draws_that_cannot_be_reproduced_are_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path)
    spoil(path, lambda _, m: m["draws"].update(digest="0" * 16))
    assert not load_checkpoint(path).draws_are_reproduced()


def test_weights_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()
    broken = tiny_checkpoint()
    broken.posterior.mean["conv1.bias"][0] = np.nan
    with pytest.raises(CheckpointError, match=r"conv1\.bias\.mean"):
        save_checkpoint(broken, path)
    assert path.read_bytes() == before


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    other = changed(tiny_checkpoint(), seed=9)
    with pytest.raises(OSError, match="space"):
        save_checkpoint(other, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_others_may_read_a_checkpoint_as_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        assert saved(tmp_path).stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def test_the_bundled_weights_are_small_whole_and_reproduced() -> None:
    assert BUNDLED.stat().st_size <= 2 * 2**20
    checkpoint = load_checkpoint(BUNDLED)
    assert checkpoint.draws_are_reproduced()
    assert checkpoint.selective.n_draws == 100
    assert isinstance(checkpoint.posterior, Posterior)
    for key in ("dataset", "data", "architecture", "fit", "epochs", "versions", "created"):
        assert key in checkpoint.training, key
    parts = {part: m["n"] for part, m in checkpoint.metrics.items() if part != "foreign"}
    assert parts == {
        "validation": 5_000,
        "imitated": 5_000,
        "calibration": 8_000,
        "test": 10_000,
    }
    ood = {name: m["n"] for name, m in checkpoint.metrics["foreign"].items()}
    assert ood.items() >= {"Fashion-MNIST": 10_000, "notMNIST": 10_000, "KMNIST": 10_000}.items()

"""Data sets: disjoint parts, and one clear line where there are no data."""

import errno
import gzip
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from training.data import datasets as data
from training.data.datasets import (
    DataNotFoundError,
    Digits,
    Mnist,
    Part,
    mnist_or_digits,
    split,
)
from training.data.preprocess import preprocess

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def numbered(n: int) -> Part:
    return Part(np.arange(n, dtype=np.uint8)[:, None, None], np.arange(n, dtype=np.int64))


def test_the_parts_are_disjoint_and_together_everything() -> None:
    parts = split(numbered(100), n_validation=20, n_calibration=30)
    sizes = [len(parts.fit), len(parts.validation), len(parts.calibration)]
    everything = np.concatenate(
        [parts.fit.labels, parts.validation.labels, parts.calibration.labels]
    )
    assert sizes == [50, 20, 30]
    assert sorted(everything) == list(range(100))
    for part in (parts.fit, parts.validation, parts.calibration):
        assert np.array_equal(part.images[:, 0, 0], part.labels)


def test_the_division_is_always_the_same_and_not_the_original_order() -> None:
    first = split(numbered(100), n_validation=20, n_calibration=30)
    second = split(numbered(100), n_validation=20, n_calibration=30)
    assert first.fit.sha256() == second.fit.sha256()
    assert not np.array_equal(np.sort(first.fit.labels), first.fit.labels)


def test_too_few_images_to_split_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        split(numbered(50), n_validation=20, n_calibration=30)


def test_a_hash_depends_on_images_and_classes() -> None:
    part = numbered(5)
    assert part.sha256() != Part(part.images, part.labels[::-1]).sha256()
    assert part.sha256() != Part(part.images + 1, part.labels).sha256()


def test_the_bundled_digits_are_divided_once_and_for_all() -> None:
    source = Digits()
    train, test = source.train(), source.test()
    assert (len(train), len(test)) == (1437, 360)
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in test.images)
    assert set(train.labels) == set(range(10))


def test_every_image_is_preprocessed() -> None:
    images = preprocess(Part(Digits().test().images[:5], np.zeros(5, np.int64)), "a few").pixels
    assert images.shape == (5, 28, 28)
    assert images.dtype == np.uint8
    assert (images.max(axis=(1, 2)) == 255).all()


def fake_archives(raw: Path, n: int = 3) -> None:
    raw.mkdir(parents=True)
    for name in NAMES:
        if "images" in name:
            content = struct.pack(">IIII", 2051, n, 28, 28) + bytes(range(256)) * 30
            content = content[: 16 + n * 784]
        else:
            content = struct.pack(">II", 2049, n) + bytes(range(n))
        (raw / f"{name}.gz").write_bytes(gzip.compress(content))


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision take archives that are not the original ones."""
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "resources", [(f"{name}.gz", None) for name in NAMES])


@pytest.mark.usefixtures("unchecked")
def test_archives_on_disk_are_used_without_a_network(tmp_path: Path) -> None:
    fake_archives(tmp_path / "MNIST" / "raw")
    part = Mnist(tmp_path).train()
    assert part.images.shape == (3, 28, 28)
    assert part.labels.tolist() == [0, 1, 2]


@pytest.mark.usefixtures("unchecked")
def test_a_folder_that_must_not_be_written_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_archives(tmp_path / "MNIST" / "raw")
    # Root may write anywhere, so the file system's answer is given here.
    monkeypatch.setattr(data, "_writable", lambda _folder: False)
    assert len(Mnist(tmp_path).test()) == 3
    assert sorted(p.name for p in (tmp_path / "MNIST" / "raw").iterdir()) == sorted(
        f"{name}.gz" for name in NAMES
    )


@pytest.mark.usefixtures("unchecked")
def test_a_full_disk_beside_a_read_only_folder_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_paths: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fake_archives(tmp_path / "MNIST" / "raw")
    monkeypatch.setattr(data, "_writable", lambda _folder: False)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(
        DataNotFoundError, match=r"No space left.*make room, or unpack the archives"
    ):
        Mnist(tmp_path).test()


def test_a_read_only_folder_is_recognised(tmp_path: Path) -> None:
    assert data._writable(tmp_path)
    assert not data._writable(tmp_path / "absent")


def test_without_data_and_network_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import MNIST

    # A port of the loopback interface that nothing listens on: no other host is asked.
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    root = tmp_path / "data"
    with pytest.raises(DataNotFoundError) as caught:
        Mnist(root).train()
    text = str(caught.value)
    for part in (str(root), "--data-dir", "MNN_DATA_DIR", "--dataset digits"):
        assert part in text
    assert "\n" not in text
    assert not root.exists()


def test_the_real_mnist_is_read(mnist_root: Path) -> None:
    train, test = Mnist(mnist_root).train(), Mnist(mnist_root).test()
    assert train.images.shape == (60_000, 28, 28)
    assert test.images.shape == (10_000, 28, 28)
    assert np.bincount(test.labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip


def test_preprocessing_leaves_mnist_nearly_unchanged(mnist_root: Path) -> None:
    part = Mnist(mnist_root).train()
    images = part.images[:2000]
    prepared = preprocess(Part(images, part.labels[:2000]), "test").pixels
    difference = np.abs(prepared.astype(int) - images)
    # Faint digits are made as dark as others, the thinnest and thickest 2 % are redrawn, dust goes.
    assert difference.mean() < 1.5
    assert (difference.max(axis=(1, 2)) <= 8).mean() > 0.8
    assert (difference.max(axis=(1, 2)) <= 32).mean() > 0.9


@pytest.mark.usefixtures("unchecked")
def test_unpacked_files_alone_are_enough(tmp_path: Path) -> None:
    fake_archives(tmp_path / "MNIST" / "raw")
    Mnist(tmp_path).train()  # unpacks
    for archive in (tmp_path / "MNIST" / "raw").glob("*.gz"):
        archive.unlink()
    assert len(Mnist(tmp_path).train()) == 3


def test_without_mnist_the_bundled_digits_take_its_place(tmp_path: Path) -> None:
    (tmp_path / "no folder").touch()
    with pytest.warns(UserWarning, match="take the place of MNIST: MNIST could be neither read"):
        source = mnist_or_digits(tmp_path / "no folder")
    assert source.name == "digits"


def test_mnist_is_taken_where_it_is_found(mnist_root: Path) -> None:
    assert mnist_or_digits(mnist_root) == Mnist(mnist_root)

"""Data sets: disjoint parts, and one clear line where there are no data."""

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

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


@dataclass(frozen=True)
class Numbered:
    """As many images as asked for, each with its number as pixel and label."""

    n: int
    n_validation: int = 20
    n_calibration: int = 30

    def train(self) -> Part:
        return numbered(self.n)


def numbered(n: int) -> Part:
    return Part(np.arange(n, dtype=np.uint8)[:, None, None], np.arange(n, dtype=np.int64))


def test_the_parts_are_disjoint_and_together_everything() -> None:
    parts = split(Numbered(100))
    sizes = [len(parts.fit), len(parts.validation), len(parts.calibration)]
    everything = np.concatenate(
        [parts.fit.labels, parts.validation.labels, parts.calibration.labels]
    )
    assert sizes == [50, 20, 30]
    assert sorted(everything) == list(range(100))
    for part in (parts.fit, parts.validation, parts.calibration):
        assert np.array_equal(part.images[:, 0, 0], part.labels)


def test_the_division_is_always_the_same_and_not_the_original_order() -> None:
    first, second = split(Numbered(100)), split(Numbered(100))
    assert first.fit.sha256() == second.fit.sha256()
    assert not np.array_equal(np.sort(first.fit.labels), first.fit.labels)


def test_too_few_images_to_split_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        split(Numbered(50))


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


def test_archives_on_disk_are_read_where_they_are(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    fake_archives(raw)
    for part in (Mnist(tmp_path).train(), Mnist(tmp_path).test()):
        assert part.images.shape == (3, 28, 28)
        assert part.images[0, 0].tolist() == list(range(28))
        assert part.labels.tolist() == [0, 1, 2]
    # Nothing is written, so that the folder may be read-only.
    assert sorted(p.name for p in raw.iterdir()) == sorted(f"{name}.gz" for name in NAMES)


def test_unpacked_files_alone_are_enough(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    fake_archives(raw)
    for archive in list(raw.iterdir()):
        archive.with_suffix("").write_bytes(gzip.decompress(archive.read_bytes()))
        archive.unlink()
    assert len(Mnist(tmp_path).train()) == 3


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        gzip.compress(struct.pack(">II", 2049, 3) + bytes(3))[:-9],
        gzip.compress(struct.pack(">II", 2049, 3) + bytes(2)),
        gzip.compress(struct.pack(">II", 2049, 2) + bytes(2)),
        gzip.compress(struct.pack(">II", 2051, 3) + bytes(3)),
        gzip.compress(struct.pack(">II", 3329, 3) + bytes(12)),
    ],
)
def test_a_damaged_archive_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    raw = tmp_path / "MNIST" / "raw"
    fake_archives(raw)
    (raw / name).write_bytes(content)
    with pytest.raises(DataNotFoundError, match="neither read from"):
        Mnist(tmp_path).train()


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


def test_without_mnist_the_bundled_digits_take_its_place(tmp_path: Path) -> None:
    (tmp_path / "no folder").touch()
    with pytest.warns(UserWarning, match="take the place of MNIST: MNIST could be neither read"):
        source = mnist_or_digits(tmp_path / "no folder")
    assert source.name == "digits"


def test_mnist_is_taken_where_it_is_found(mnist_root: Path) -> None:
    assert mnist_or_digits(mnist_root) == Mnist(mnist_root)

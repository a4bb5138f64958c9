"""Foreign data sets: read where they lie, and only when they are what they should be."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from training.data.datasets import DataNotFoundError
from training.data.ood import FOREIGN, find_ood_sets, read_ood_set

PICTURES = np.arange(3 * 28 * 28, dtype=np.uint32).reshape(3, 28, 28).astype(np.uint8)


def idx(pictures: np.ndarray, magic: int = 0x0803) -> bytes:
    return np.array([magic, *pictures.shape], ">i4").tobytes() + pictures.tobytes()


def placed(root: Path, place: str, data: bytes) -> Path:
    file = root / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def test_each_is_found_in_any_of_its_places_and_the_rest_is_left_out(tmp_path: Path) -> None:
    assert find_ood_sets(tmp_path) == {}
    fashion = placed(
        tmp_path, "FashionMNIST/raw/t10k-images-idx3-ubyte.gz", gzip.compress(idx(PICTURES))
    )
    letters = placed(tmp_path, "notmnist/t10k-images-idx3-ubyte", idx(PICTURES))
    assert find_ood_sets(tmp_path) == {"Fashion-MNIST": fashion, "notMNIST": letters}
    for file in (fashion, letters):
        assert np.array_equal(read_ood_set(file), PICTURES)
    assert set(FOREIGN) == {"Fashion-MNIST", "notMNIST", "KMNIST"}


def test_npz_files_are_read_without_pickle(tmp_path: Path) -> None:
    file = tmp_path / "kmnist" / "kmnist-test-imgs.npz"
    file.parent.mkdir()
    np.savez(file, PICTURES)
    assert find_ood_sets(tmp_path) == {"KMNIST": file}
    assert np.array_equal(read_ood_set(file), PICTURES)
    np.savez(file, np.array([{"no": "array"}], dtype=object))
    with pytest.raises(DataNotFoundError, match="cannot be read"):
        read_ood_set(file)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        idx(PICTURES)[:-1],
        idx(PICTURES) + b"x",
        idx(PICTURES, magic=0x0D03),
        gzip.compress(b"not idx"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, data: bytes) -> None:
    file = placed(tmp_path, "t10k-images-idx3-ubyte", data)
    with pytest.raises(DataNotFoundError, match="t10k-images"):
        read_ood_set(file)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    file = placed(tmp_path, "x.gz", gzip.compress(idx(PICTURES))[:-20])
    with pytest.raises(DataNotFoundError, match=r"x\.gz"):
        read_ood_set(file)
    file = placed(tmp_path, "x.npz", b"no archive")
    with pytest.raises(DataNotFoundError, match=r"x\.npz"):
        read_ood_set(file)


def test_pictures_of_another_kind_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    np.savez(file, PICTURES.astype(float))
    with pytest.raises(DataNotFoundError, match="float64"):
        read_ood_set(file)

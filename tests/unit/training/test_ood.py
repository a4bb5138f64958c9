"""Out-of-distribution sets: found where they lie, and read only if they are whole."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from training.data.datasets import DataNotFoundError
from training.data.ood import OOD_SETS, OodSet, find_ood_sets, read_ood_set

IMAGES = np.arange(3 * 28 * 28, dtype=np.uint32).reshape(3, 28, 28).astype(np.uint8)


def idx(images: np.ndarray, magic: int = 0x0803) -> bytes:
    return np.array([magic, *images.shape], ">i4").tobytes() + images.tobytes()


def placed(root: Path, place: str, data: bytes) -> Path:
    file = root / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


@pytest.mark.parametrize("known", OOD_SETS, ids=lambda known: known.name)
def test_each_is_found_in_any_of_its_places(tmp_path: Path, known: OodSet) -> None:
    assert find_ood_sets(tmp_path) == {}
    for number, place in enumerate(known.files):
        for name in (place,) if place.endswith(".npz") else (place, f"{place}.gz"):
            root = tmp_path / str(number) / Path(name).suffix
            file = placed(root, name, b"")
            if name.endswith(".npz"):
                np.savez(file, IMAGES)
            else:
                file.write_bytes(
                    gzip.compress(idx(IMAGES)) if name.endswith(".gz") else idx(IMAGES)
                )
            assert find_ood_sets(root) == {known.name: file}
            assert np.array_equal(read_ood_set(file), IMAGES)


def test_the_first_place_wins_and_names_are_unique(tmp_path: Path) -> None:
    places = ("notMNIST/raw/t10k-images-idx3-ubyte", "notmnist/t10k-images-idx3-ubyte")
    first, _ = (placed(tmp_path, place, idx(IMAGES)) for place in places)
    assert find_ood_sets(tmp_path) == {"notMNIST": first}
    assert len({known.name for known in OOD_SETS}) == len(OOD_SETS)
    assert all(known.description and known.license and known.source for known in OOD_SETS)


def test_npz_files_are_read_without_pickle(tmp_path: Path) -> None:
    file = tmp_path / "kmnist" / "kmnist-test-imgs.npz"
    file.parent.mkdir()
    np.savez(file, IMAGES)
    assert find_ood_sets(tmp_path) == {"KMNIST": file}
    assert np.array_equal(read_ood_set(file), IMAGES)
    np.savez(file, np.array([{"no": "array"}], dtype=object))
    with pytest.raises(DataNotFoundError, match="cannot be read"):
        read_ood_set(file)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        idx(IMAGES)[:-1],
        idx(IMAGES) + b"x",
        idx(IMAGES, magic=0x0D03),
        gzip.compress(b"not idx"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, data: bytes) -> None:
    file = placed(tmp_path, "t10k-images-idx3-ubyte", data)
    with pytest.raises(DataNotFoundError, match="t10k-images"):
        read_ood_set(file)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    file = placed(tmp_path, "x.gz", gzip.compress(idx(IMAGES))[:-20])
    with pytest.raises(DataNotFoundError, match=r"x\.gz"):
        read_ood_set(file)
    file = placed(tmp_path, "x.npz", b"no archive")
    with pytest.raises(DataNotFoundError, match=r"x\.npz"):
        read_ood_set(file)


def test_images_of_another_kind_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    np.savez(file, IMAGES.astype(float))
    with pytest.raises(DataNotFoundError, match="float64"):
        read_ood_set(file)

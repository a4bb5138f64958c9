"""Out-of-distribution image sets: for evaluation, never for fitting or choosing.

They are read where they lie below a torchvision root and never downloaded. A set that is not there
is left out and named. To add a set, add an entry to `OOD_SETS`.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.datasets import DataNotFoundError, read_idx


@dataclass(frozen=True)
class OodSet:
    """A set of images of which none is a digit.

    Attributes:
        name: The name that tables and reports use.
        files: Where its test images may lie below the data folder; IDX files may also end in `.gz`.
        description: What the images show.
        license: Under which terms they are published.
        source: Who published them.
    """

    name: str
    files: tuple[str, ...]
    description: str
    license: str
    source: str


OOD_SETS = (
    OodSet(
        name="Fashion-MNIST",
        files=("FashionMNIST/raw/t10k-images-idx3-ubyte",),
        description="photographs of clothes",
        license="MIT",
        source="Xiao, Rasul and Vollgraf (2017)",
    ),
    OodSet(
        name="notMNIST",
        files=("notMNIST/raw/t10k-images-idx3-ubyte", "notmnist/t10k-images-idx3-ubyte"),
        description="letters A to J from fonts",
        license="MIT",
        source="Bulatov (2011)",
    ),
    OodSet(
        name="KMNIST",
        files=("KMNIST/raw/t10k-images-idx3-ubyte", "kmnist/kmnist-test-imgs.npz"),
        description="cursive Japanese characters",
        license="CC BY-SA 4.0",
        source="CODH; Clanuwat et al. (2018)",
    ),
)
"""The out-of-distribution sets that an evaluation looks for."""


def find_ood_sets(data_dir: Path) -> dict[str, Path]:
    """The files of the sets that are there, by name."""
    found: dict[str, Path] = {}
    for ood_set in OOD_SETS:
        for place in ood_set.files:
            for file in (data_dir / place, data_dir / f"{place}.gz"):
                if file.is_file():
                    found.setdefault(ood_set.name, file)
    return found


def read_ood_set(file: Path) -> NDArray[np.uint8]:
    """The images of one set, uint8 (N, H, W).

    Args:
        file: An IDX file of bytes, compressed or not, or an npz file with `arr_0`.

    Raises:
        DataNotFoundError: If the file is damaged or holds something else.
    """
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                images = archive["arr_0"]
        else:
            images = read_idx(file)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataNotFoundError(f"{file} cannot be read as images: {error}") from error
    if images.ndim != 3 or images.dtype != np.uint8 or not len(images):
        raise DataNotFoundError(
            f"{file} holds {images.dtype} {images.shape}, expected images: uint8 (N, H, W)"
        )
    result: NDArray[np.uint8] = images
    return result

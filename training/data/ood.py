"""Pictures of others that are no digits: for evaluation, never for fitting or choosing.

They are read where they lie below a torchvision root; none is downloaded. A data set that is not
there is left out and named.
"""

import gzip
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from training.data.datasets import DataNotFoundError

__all__ = ["FOREIGN", "find_ood_sets", "read_ood_set"]

FOREIGN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Fashion-MNIST": ("FashionMNIST/raw/t10k-images-idx3-ubyte",),
        "notMNIST": ("notMNIST/raw/t10k-images-idx3-ubyte", "notmnist/t10k-images-idx3-ubyte"),
        "KMNIST": ("KMNIST/raw/t10k-images-idx3-ubyte", "kmnist/kmnist-test-imgs.npz"),
    }
)
"""The test pictures of each data set, where they may lie; IDX files may be compressed.

Source: Xiao, Rasul and Vollgraf (2017), "Fashion-MNIST"; Bulatov (2011), notMNIST; Clanuwat et al.
(2018), "Deep Learning for Classical Japanese Literature" (KMNIST, created by CODH).
"""

_IDX_BYTES_3D = 0x0803
_MOST_BYTES = 256 * 2**20


def find_ood_sets(data_dir: Path) -> dict[str, Path]:
    """The files of the data sets that are there, by name."""
    found: dict[str, Path] = {}
    for name, places in FOREIGN.items():
        for place in places:
            for file in (data_dir / place, data_dir / f"{place}.gz"):
                if file.is_file():
                    found.setdefault(name, file)
    return found


def read_ood_set(file: Path) -> NDArray[np.uint8]:
    """The pictures of one data set, uint8 (N, H, W).

    Args:
        file: An IDX file of bytes, compressed or not, or an npz file with them as `arr_0`.

    Raises:
        DataNotFoundError: If the file is damaged or holds something else.
    """
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                images = archive["arr_0"]
        else:
            images = _read_idx(file)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataNotFoundError(f"{file} cannot be read as pictures: {error}") from error
    if images.ndim != 3 or images.dtype != np.uint8 or not len(images):
        raise DataNotFoundError(
            f"{file} holds {images.dtype} {images.shape}, expected pictures: uint8 (N, H, W)"
        )
    result: NDArray[np.uint8] = images
    return result


def _read_idx(file: Path) -> NDArray[np.uint8]:
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        data = stream.read(_MOST_BYTES)
    magic, *shape = (int(n) for n in np.frombuffer(data, ">i4", 4))
    if magic != _IDX_BYTES_3D or min(shape) < 1 or len(data) != 16 + math.prod(shape):
        raise ValueError("not an IDX file of byte pictures, or not a whole one")
    return np.frombuffer(data, np.uint8, offset=16).reshape(shape)

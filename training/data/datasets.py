"""Data sets of digits and their split into parts.

The training images are split into three disjoint parts: *fit* for the posterior, *validation* for
every choice, *calibration* for thresholds alone. `Source.test` loads the test images, which decide
nothing.
"""

import contextlib
import gzip
import hashlib
import io
import math
import socket
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.parallel import stream

SPLIT_SEED = 20260101
"""Fixed, so that all runs hold out the same images, whatever their seed."""

_MIRROR_TIMEOUT_S = 20.0
_IDX_BYTES = b"\0\0\x08"  # first bytes of an IDX file of unsigned bytes
_MAX_IDX_BYTES = 256 * 2**20


class DataNotFoundError(Exception):
    """The data set is not on disk and cannot be downloaded."""


@dataclass(frozen=True, eq=False)
class Part:
    """Images (N, H, W), uint8 from 0 to 255 or float32 from 0 to 1, and their classes (N,)."""

    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def first(self, n: int | None) -> "Part":
        """The first `n` images; all if None."""
        return Part(self.images[:n], self.labels[:n])

    def sha256(self) -> str:
        """Hash of images and classes, for the record of the training data."""
        sha = hashlib.sha256(self.images.tobytes())
        sha.update(self.labels.astype("<i8").tobytes())
        return sha.hexdigest()


@dataclass(frozen=True)
class Split:
    """The three disjoint parts of the training images."""

    fit: Part
    validation: Part
    calibration: Part


@dataclass(frozen=True)
class Mnist:
    """MNIST: 60,000 training and 10,000 test images.

    Attributes:
        data_dir: A torchvision root; torchvision downloads absent archives there.
    """

    data_dir: Path
    name: str = "mnist"
    n_validation: int = 5_000
    n_calibration: int = 8_000

    def train(self) -> Part:
        """The 60,000 training images, for `split`.

        Raises:
            DataNotFoundError: If they are not in `data_dir` and cannot be downloaded.
        """
        return self._load("train")

    def test(self) -> Part:
        """The 10,000 test images, for the final table and nothing else; raises as `train`."""
        return self._load("t10k")

    def _load(self, prefix: str) -> Part:
        names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
        raw = self.data_dir / "MNIST" / "raw"
        try:
            if not all(_idx_file(raw, name) for name in names):
                _download_mnist(self.data_dir)
            images, labels = (read_idx(_idx_file(raw, name) or raw / name) for name in names)
            part = Part(images.reshape(-1, 28, 28), labels.reshape(len(images)).astype(np.int64))
        except (RuntimeError, OSError, ValueError, EOFError) as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise DataNotFoundError(
                f"MNIST could be neither read from {raw} nor downloaded ({reason}). Put the four "
                "original *-ubyte.gz archives there, name another torchvision root with --data-dir "
                "or MNN_DATA_DIR, or train on the bundled data with --dataset digits."
            ) from error
        return part


@dataclass(frozen=True)
class Digits:
    """The 1,797 images of 8×8 pixels bundled with scikit-learn; they need no network.

    Source: Alpaydin and Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI.
    """

    name: str = "digits"
    n_validation: int = 200
    n_calibration: int = 400
    n_test: int = 360

    def train(self) -> Part:
        """The 1,437 training images."""
        return self._load()[0]

    def test(self) -> Part:
        """The 360 test images."""
        return self._load()[1]

    def _load(self) -> tuple[Part, Part]:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - takes seconds

        bundle = load_digits()
        whole = Part((bundle.images / 16).astype(np.float32), bundle.target.astype(np.int64))
        order = stream(SPLIT_SEED, 1).permutation(len(whole))
        return _take(whole, order[self.n_test :]), _take(whole, order[: self.n_test])


Source = Mnist | Digits
"""A data set of single digits."""


def mnist_or_digits(data_dir: Path) -> Source:
    """MNIST or, with a warning, scikit-learn's digits where MNIST is not available.

    For notebooks, which run everywhere; a training run names its data set.

    Args:
        data_dir: A torchvision root.
    """
    source = Mnist(data_dir)
    try:
        source.train()
    except DataNotFoundError as error:
        warnings.warn(f"scikit-learn's digits take the place of MNIST: {error}", stacklevel=2)
        return Digits()
    return source


def split(source: Source) -> Split:
    """Split the training images at random, always in the same way.

    Raises:
        DataNotFoundError: If they are not on disk and cannot be downloaded.
        ValueError: If nothing would be left to fit.
    """
    part, n_validation = source.train(), source.n_validation
    held_out = n_validation + source.n_calibration
    if held_out >= len(part):
        raise ValueError(f"{len(part)} images are too few to hold out {held_out}")
    order = stream(SPLIT_SEED, 0).permutation(len(part))
    return Split(
        fit=_take(part, order[held_out:]),
        validation=_take(part, order[:n_validation]),
        calibration=_take(part, order[n_validation:held_out]),
    )


def _take(part: Part, index: NDArray[np.int64]) -> Part:
    return Part(part.images[index], part.labels[index])


def read_idx(file: Path) -> NDArray[np.uint8]:
    """Read an IDX file of bytes, compressed if its name ends in `.gz`.

    Raises:
        OSError: If it cannot be read.
        EOFError: If it is truncated.
        ValueError: If it is no complete IDX file of bytes.
    """
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
        data = opened.read(_MAX_IDX_BYTES)
    if len(data) < 4 or data[:3] != _IDX_BYTES:
        raise ValueError("not an IDX file of bytes")
    shape = np.frombuffer(data[4 : 4 + 4 * data[3]], ">i4").tolist()
    start = 4 + 4 * data[3]
    if len(shape) != data[3] or min(shape, default=0) < 1 or len(data) != start + math.prod(shape):
        raise ValueError("not a complete IDX file")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()


def _idx_file(folder: Path, name: str) -> Path | None:
    """The file of that name, else its archive, else None."""
    return next((f for f in (folder / name, folder / f"{name}.gz") if f.is_file()), None)


def _download_mnist(root: Path) -> None:
    """Download MNIST by torchvision, and leave no empty folders behind."""
    from torchvision.datasets import MNIST  # noqa: PLC0415 - takes seconds

    folders = [root, root / "MNIST", root / "MNIST" / "raw"]
    created = [folder for folder in folders if not folder.exists()]
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_MIRROR_TIMEOUT_S)  # torchvision waits for minutes
    try:
        # torchvision prints a line for each mirror; the caller's error is the only report.
        with contextlib.redirect_stdout(io.StringIO()):
            MNIST(str(root), download=True)
    finally:
        socket.setdefaulttimeout(timeout)
        for folder in reversed(created):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()

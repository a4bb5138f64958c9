"""Data sets of digits and their split into parts.

The training images are split into three disjoint parts: *fit* for the posterior, *validation* for
every choice, *calibration* for thresholds alone. `Source.test` loads the test images, which decide
nothing.
"""

import contextlib
import hashlib
import io
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DataNotFoundError",
    "Digits",
    "Mnist",
    "Part",
    "Source",
    "Split",
    "mnist_or_digits",
    "split",
]

SPLIT_SEED = 20260101
"""Fixed, so that all runs hold out the same images, whatever their seed."""

_MIRROR_TIMEOUT_S = 20.0


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
        sha = hashlib.sha256()
        sha.update(np.ascontiguousarray(self.images).tobytes())
        sha.update(self.labels.astype("<i8").tobytes())
        return sha.hexdigest()


@dataclass(frozen=True)
class Split:
    """The three disjoint parts of the training images."""

    fit: Part
    validation: Part
    calibration: Part


class Source(Protocol):
    """A data set of single digits."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def n_validation(self) -> int:
        """Size of the validation part."""

    @property
    def n_calibration(self) -> int:
        """Size of the calibration part."""

    def train(self) -> Part:
        """The training images, for `split`."""

    def test(self) -> Part:
        """The test images, for the final table and nothing else."""


@dataclass(frozen=True)
class Mnist:
    """MNIST, read by torchvision: 60,000 training and 10,000 test images.

    Attributes:
        data_dir: A torchvision root; absent archives are downloaded there.
    """

    data_dir: Path
    name: str = "mnist"
    n_validation: int = 5_000
    n_calibration: int = 8_000

    def train(self) -> Part:
        """The 60,000 training images.

        Raises:
            DataNotFoundError: If they are not in `data_dir` and cannot be downloaded.
        """
        return self._load(train=True)

    def test(self) -> Part:
        """The 10,000 test images.

        Raises:
            DataNotFoundError: If they are not in `data_dir` and cannot be downloaded.
        """
        return self._load(train=False)

    def _load(self, *, train: bool) -> Part:
        from torchvision.datasets import MNIST  # noqa: PLC0415 - takes seconds

        with (
            _readable_root(self.data_dir) as root,
            contextlib.redirect_stdout(io.StringIO()),
            _socket_timeout(),
        ):
            # torchvision prints a line for each mirror; the error below is the only report.
            existing = _folders(root)
            try:
                data = MNIST(str(root), train=train, download=True)
            except (RuntimeError, OSError, ValueError, EOFError) as error:
                _remove_new_empty_folders(root, existing)
                archives = self.data_dir / "MNIST" / "raw"
                raise DataNotFoundError(
                    f"MNIST could be neither read from {archives} nor downloaded "
                    f"({_one_line(error)}). Put the four original *-ubyte.gz archives there, and "
                    "nothing else, name another torchvision root with --data-dir or MNN_DATA_DIR, "
                    "or train on the bundled data with --dataset digits."
                ) from error
            return Part(data.data.numpy(), data.targets.numpy().astype(np.int64))


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
        whole = Part(
            (bundle.images / 16).astype(np.float32), np.asarray(bundle.target, dtype=np.int64)
        )
        order = _permutation(len(whole), stream=1)
        return _take(whole, order[self.n_test :]), _take(whole, order[: self.n_test])


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


def split(part: Part, *, n_validation: int, n_calibration: int) -> Split:
    """Split the training images at random, always in the same way.

    Raises:
        ValueError: If nothing would be left to fit.
    """
    held_out = n_validation + n_calibration
    if held_out >= len(part):
        raise ValueError(f"{len(part)} images are too few to hold out {held_out}")
    order = _permutation(len(part), stream=0)
    return Split(
        fit=_take(part, order[held_out:]),
        validation=_take(part, order[:n_validation]),
        calibration=_take(part, order[n_validation:held_out]),
    )


def _take(part: Part, index: NDArray[np.int64]) -> Part:
    return Part(part.images[index], part.labels[index])


def _permutation(n: int, *, stream: int) -> NDArray[np.int64]:
    key = np.array([SPLIT_SEED, stream], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(n)


@contextlib.contextmanager
def _readable_root(data_dir: Path) -> Iterator[Path]:
    """A torchvision root where torchvision can unpack the archives.

    torchvision unpacks them in place. For a read-only folder this is a temporary copy.
    """
    archives = data_dir / "MNIST" / "raw"
    packed = sorted(archives.glob("*-ubyte.gz")) if archives.is_dir() else []
    if not packed or _writable(archives):
        yield data_dir
        return
    with tempfile.TemporaryDirectory(prefix="mnist-") as temporary:
        copies = Path(temporary) / "MNIST" / "raw"
        try:
            copies.mkdir(parents=True)
            for archive in archives.iterdir():
                if archive.suffix == ".gz" or not (archives / f"{archive.name}.gz").exists():
                    shutil.copyfile(archive, copies / archive.name)
        except OSError as error:
            raise DataNotFoundError(
                f"{archives} cannot be written to, and MNIST could not be copied to {temporary} "
                f"({error.strerror}) to be unpacked there: make room, or unpack the archives."
            ) from error
        yield Path(temporary)


@contextlib.contextmanager
def _socket_timeout() -> Iterator[None]:
    """Bound the wait for a mirror that does not answer; torchvision would wait for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_MIRROR_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _writable(folder: Path) -> bool:
    # Permission bits say nothing to root or about a read-only mount, so try.
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _folders(root: Path) -> set[Path]:
    return {folder for folder in (root, root / "MNIST", root / "MNIST" / "raw") if folder.exists()}


def _remove_new_empty_folders(root: Path, existing: set[Path]) -> None:
    for folder in sorted(_folders(root) - existing, reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:300] if text else type(error).__name__

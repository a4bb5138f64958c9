"""Pictures to train on: where they come from, how they are divided, and the way in for all.

The training pictures are divided into three disjoint parts: *fit* for the posterior, *validation*
for every choice, *calibration* for thresholds alone. The test pictures are loaded by a call of
their own, after everything has been decided.
"""

import contextlib
import hashlib
import io
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.preprocessing.normalize import DigitImage, open_array
from training.data.parallel import CHUNK, in_processes
from training.distributed import ALONE, Ranks

__all__ = [
    "DataNotFoundError",
    "Digits",
    "Inputs",
    "Mnist",
    "Part",
    "Source",
    "Split",
    "mnist_or_digits",
    "split",
    "preprocess",
]

SPLIT_SEED = 20260101
"""Fixed, so that runs with different seeds hold the same pictures aside."""

_MIRROR_TIMEOUT_S = 20.0


class DataNotFoundError(Exception):
    """The data set is neither on disk nor to be had from the network."""


@dataclass(frozen=True, eq=False)
class Part:
    """Pictures (N, H, W) with values 0 to 255, or floating point 0 to 1, and their classes (N,)."""

    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.labels)

    def first(self, n: int | None) -> "Part":
        """The first `n` pictures; all if None."""
        return Part(self.images[:n], self.labels[:n])

    def sha256(self) -> str:
        """Hash of pictures and classes, for the record of what was trained on."""
        sha = hashlib.sha256()
        sha.update(np.ascontiguousarray(self.images).tobytes())
        sha.update(self.labels.astype("<i8").tobytes())
        return sha.hexdigest()


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the digit door makes of many pictures.

    Attributes:
        pixels: What the network is fed, uint8 (N, 28, 28).
        flagged: Whether a person should look whatever the network says, (N,).
    """

    pixels: NDArray[np.uint8]
    flagged: NDArray[np.bool_]

    @classmethod
    def of(cls, images: Sequence[DigitImage]) -> "Inputs":
        """Gather what the door returned for single pictures, at least one."""
        return cls(
            np.stack([image.pixels for image in images]),
            np.array([bool(image.reasons) for image in images]),
        )


@dataclass(frozen=True)
class Split:
    """The three disjoint parts of the training pictures."""

    fit: Part
    validation: Part
    calibration: Part


class Source(Protocol):
    """A data set of single digits."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def n_validation(self) -> int:
        """Size of the validation part."""
        ...

    @property
    def n_calibration(self) -> int:
        """Size of the calibration part."""
        ...

    def train(self) -> Part:
        """The training pictures, to be divided by `split`."""
        ...

    def test(self) -> Part:
        """The test pictures, for the final table and nothing else."""
        ...


@dataclass(frozen=True)
class Mnist:
    """MNIST through torchvision: 60,000 training and 10,000 test pictures.

    Attributes:
        data_dir: A torchvision root; the archives are downloaded there when absent.
    """

    data_dir: Path
    name: str = "mnist"
    n_validation: int = 5_000
    n_calibration: int = 8_000

    def train(self) -> Part:
        """The 60,000 training pictures.

        Raises:
            DataNotFoundError: If they are neither in `data_dir` nor to be downloaded.
        """
        return self._load(train=True)

    def test(self) -> Part:
        """The 10,000 test pictures.

        Raises:
            DataNotFoundError: If they are neither in `data_dir` nor to be downloaded.
        """
        return self._load(train=False)

    def _load(self, *, train: bool) -> Part:
        from torchvision.datasets import MNIST  # noqa: PLC0415 - takes seconds, digits do without

        with (
            _readable_root(self.data_dir) as root,
            contextlib.redirect_stdout(io.StringIO()),
            _impatient_sockets(),
        ):
            # torchvision reports each mirror on standard output; ours is one line at the end.
            existing = _folders(root)
            try:
                data = MNIST(str(root), train=train, download=True)
            except (RuntimeError, OSError, ValueError, EOFError) as error:
                _remove_new_empty_folders(root, existing)
                archives = self.data_dir / "MNIST" / "raw"
                raise DataNotFoundError(
                    f"MNIST could be neither read from {archives} nor downloaded "
                    f"({_brief(error)}). Put the four original *-ubyte.gz archives there, and "
                    "nothing else, name another torchvision root with --data-dir or MNN_DATA_DIR, "
                    "or train on the bundled data with --dataset digits."
                ) from error
            return Part(data.data.numpy(), data.targets.numpy().astype(np.int64))


@dataclass(frozen=True)
class Digits:
    """The 1,797 pictures of 8×8 pixels that come with scikit-learn: no network needed.

    Source: Alpaydin and Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI.
    """

    name: str = "digits"
    n_validation: int = 200
    n_calibration: int = 400
    n_test: int = 360

    def train(self) -> Part:
        """The 1,437 pictures that are not for testing."""
        return self._load()[0]

    def test(self) -> Part:
        """The 360 test pictures."""
        return self._load()[1]

    def _load(self) -> tuple[Part, Part]:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - takes seconds, MNIST does without

        bundle = load_digits()
        whole = Part(
            (bundle.images / 16).astype(np.float32), np.asarray(bundle.target, dtype=np.int64)
        )
        order = _permutation(len(whole), stream=1)
        return _take(whole, order[self.n_test :]), _take(whole, order[: self.n_test])


def mnist_or_digits(data_dir: Path) -> Source:
    """MNIST, or scikit-learn's digits, with a warning, where it can be neither read nor downloaded.

    For notebooks, which are to run everywhere; a training run asks for one or the other.

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
    """Divide the training pictures at random, always in the same way.

    Raises:
        ValueError: If nothing would be left to fit.
    """
    held_aside = n_validation + n_calibration
    if held_aside >= len(part):
        raise ValueError(f"{len(part)} pictures are too few to hold {held_aside} aside")
    order = _permutation(len(part), stream=0)
    return Split(
        fit=_take(part, order[held_aside:]),
        validation=_take(part, order[:n_validation]),
        calibration=_take(part, order[n_validation:held_aside]),
    )


def preprocess(part: Part, name: str, *, processes: int = 1, ranks: Ranks = ALONE) -> Inputs:
    """What the digit door makes of each picture of a part.

    Args:
        part: The pictures.
        name: What the progress bar calls them.
        processes: How many work at once.
        ranks: The processes that share the work; each is given all of it.
    """
    images = in_processes(
        _prepared_chunk,
        [part.images[start : start + CHUNK] for start in range(0, len(part), CHUNK)],
        total=len(part),
        processes=processes,
        title=f"preparing {name}",
        ranks=ranks,
    )
    return Inputs.of(list(images))


def _prepared_chunk(images: NDArray[np.uint8] | NDArray[np.float32]) -> list[DigitImage]:
    return [open_array(image) for image in images]


def _take(part: Part, index: NDArray[np.int64]) -> Part:
    return Part(part.images[index], part.labels[index])


def _permutation(n: int, *, stream: int) -> NDArray[np.int64]:
    key = np.array([SPLIT_SEED, stream], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(n)


@contextlib.contextmanager
def _readable_root(data_dir: Path) -> Iterator[Path]:
    """A torchvision root in which the archives can be unpacked.

    torchvision unpacks them beside themselves. Where that is not allowed (a folder mounted
    read-only), it works on a temporary copy.
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
def _impatient_sockets() -> Iterator[None]:
    """Give up on a mirror that does not answer; torchvision itself would wait for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_MIRROR_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _writable(folder: Path) -> bool:
    # Asking the file system, since permission bits say nothing to root or about a read-only mount.
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


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:300] if text else type(error).__name__

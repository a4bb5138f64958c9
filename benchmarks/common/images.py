"""Pictures for the benchmarks: MNIST where it is found, never fetched; else what is at hand."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.preprocessing.normalize import open_bytes
from training.data.datasets import Mnist, Part, preprocess

__all__ = ["examples", "find_mnist", "random_pictures", "test_inputs"]

_EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def find_mnist() -> Mnist | None:
    """MNIST under `MNN_DATA_DIR` or `data`, or None."""
    folder = Path(os.environ.get("MNN_DATA_DIR") or "data")
    raw = folder / "MNIST" / "raw"
    return Mnist(folder) if any(raw.glob("t10k-images-idx3-ubyte*")) else None


def test_inputs(mnist: Mnist, n: int) -> NDArray[np.uint8]:
    """The network's inputs for the first `n` test pictures (n, 28, 28)."""
    part = mnist.test()
    return preprocess(Part(part.images[:n], part.labels[:n]), "test pictures").pixels


def examples() -> NDArray[np.uint8]:
    """The network's inputs for the pictures of the documents (n, 28, 28)."""
    return np.stack([open_bytes(p.read_bytes()).pixels for p in sorted(_EXAMPLES.glob("*.png"))])


def random_pictures(n: int) -> NDArray[np.uint8]:
    """Noise (n, 28, 28), always the same: what is in a picture does not change its cost."""
    return np.random.default_rng(0).integers(0, 256, (n, 28, 28), np.uint8)

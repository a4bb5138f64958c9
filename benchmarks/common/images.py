"""Input images: MNIST where it is installed, else the examples of the documents or noise."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model import open_bytes
from training.data.datasets import Mnist, Part
from training.data.preprocess import preprocess

_EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def find_mnist() -> Mnist | None:
    """MNIST in `MNN_DATA_DIR` or `data`, or None; it is never downloaded."""
    folder = Path(os.environ.get("MNN_DATA_DIR") or "data")
    raw = folder / "MNIST" / "raw"
    return Mnist(folder) if any(raw.glob("t10k-images-idx3-ubyte*")) else None


def test_inputs(mnist: Mnist, n: int) -> NDArray[np.uint8]:
    """Preprocess the first `n` MNIST test images (n, 28, 28)."""
    part = mnist.test()
    return preprocess(Part(part.images[:n], part.labels[:n]), "test images").pixels


def example_inputs() -> NDArray[np.uint8]:
    """Preprocess the example images of the documents (n, 28, 28)."""
    return np.stack([open_bytes(p.read_bytes()).pixels for p in sorted(_EXAMPLES.glob("*.png"))])


def random_images(n: int) -> NDArray[np.uint8]:
    """Return fixed noise (n, 28, 28): the cost of inference does not depend on the content."""
    return np.random.default_rng(0).integers(0, 256, (n, 28, 28), np.uint8)

"""Preprocessing and the bundled weights on MNIST and on images that people have sent."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model import load, open_bytes
from model.uncertainty import softmax
from training.data.datasets import Mnist
from training.data.labelled_folder import predict_images, read_manifest


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def test_mnist_uploaded_as_png_is_read_as_well_as_mnists_own_pixels(mnist_root: Path) -> None:
    test = Mnist(mnist_root).test()
    classifier = load(device="cpu")
    images = [open_bytes(png(pixels)) for pixels in test.images]

    def wrong(inputs: np.ndarray) -> int:
        chunks = [inputs[i : i + 250] for i in range(0, len(inputs), 250)]
        means = [softmax(classifier.engine.logits(chunk, 100)).mean(axis=0) for chunk in chunks]
        return int((np.concatenate(means).argmax(axis=1) != test.labels).sum())

    uploaded = wrong(np.stack([image.pixels for image in images]))
    assert uploaded <= wrong(test.images) + 5  # 0.05 points of 10,000
    assert sum(bool(image.reasons) for image in images) <= 10  # hardly any sent to a person


def test_real_images_are_read(mnist_root: Path) -> None:
    folder = mnist_root / "realworld"
    if not folder.exists():
        pytest.skip(f"no images under {folder}")
    results = predict_images(load(device="cpu"), read_manifest(folder), 100)
    assert sum(result.correct for result in results) >= 0.98 * len(results)
    assert not [result for result in results if result.accepted and not result.correct]

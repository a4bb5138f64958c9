"""Memory of preprocessing: the largest accepted images need little more than their own pixels."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model import open_bytes
from tests.support.images import drawn_seven, encoded

SIDE = 5_000  # 25 MP, the default limit


def seven() -> Image.Image:
    return drawn_seven(SIDE)


def transparent() -> Image.Image:
    image = Image.new("RGBA", (SIDE, SIDE), (20, 20, 20, 0))
    image.putalpha(drawn_seven(SIDE, ink=255, paper=0))
    return image


def noise() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(values)


IMAGES: dict[str, Callable[[], bytes]] = {
    "PNG, colour": lambda: encoded(seven().convert("RGB"), compress_level=1),
    "PNG, transparent": lambda: encoded(transparent(), compress_level=1),
    "PNG, 16 bits": lambda: encoded(
        Image.fromarray(np.asarray(seven()).astype(np.uint16) * 257), compress_level=1
    ),
    "PNG, noise": lambda: encoded(noise(), compress_level=1),
    "JPEG, progressive": lambda: encoded(
        seven().convert("RGB"), "JPEG", progressive=True, quality=60
    ),
    "WebP": lambda: encoded(seven().convert("RGB"), "WEBP", method=0),
    "GIF": lambda: encoded(seven(), "GIF"),
    "TIFF, CMYK": lambda: encoded(seven().convert("CMYK"), "TIFF", compression="tiff_lzw"),
    "TIFF, float": lambda: encoded(
        Image.fromarray(np.asarray(seven(), np.float32) / 255),
        "TIFF",
        compression="tiff_adobe_deflate",
    ),
    "TIFF, LAB": lambda: encoded(Image.merge("LAB", [seven()] * 3), "TIFF", compression="tiff_lzw"),
    "BMP, 1 bit": lambda: encoded(seven().convert("1"), "BMP"),
}


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def growth_mb(name: str) -> tuple[float, tuple[str, ...]]:
    """Peak growth of this process while it preprocesses an image, and the reasons found."""
    data = IMAGES[name]()
    open_bytes(encoded(drawn_seven(64)))  # loads what every image needs
    before, peak, done = resident_mb(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, resident_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    image = open_bytes(data)
    done.set()
    watcher.join()
    return peak - before, image.reasons


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", IMAGES)
def test_an_image_of_25_megapixels_takes_at_most_300_mb(name: str) -> None:
    """WebP's own decoder holds several copies and takes 400."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # a process for each: its own peak
        grown, reasons = pool.apply(growth_mb, (name,))
    assert 0 < grown <= (400 if name == "WebP" else 300)
    assert bool(reasons) == (name == "PNG, noise")

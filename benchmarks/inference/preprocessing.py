"""Cost of preprocessing, by kind and size of image.

Each image is measured in its own process on one CPU: the time to decode the file, the time of the
remaining steps (to grey, reduction, segmentation, 28×28) and the peak growth of the process. The
column `found` shows the result of preprocessing.

The images are generated: a seven in even light, with a shadow, on lines, noise, and the largest
images that the service accepts, in every format.
"""

import io
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
from PIL import Image, ImageDraw
from tqdm import tqdm

from benchmarks.common.report import format_table, make_parser, write_json
from model.preprocessing.decode import MAX_SIDE
from model.preprocessing.normalize import open_bytes, open_image

_ROUNDS, _QUICK_ROUNDS = 15, 2
_LARGEST = (5_000, 5_000)


def main() -> int:
    """Run the command; returns its exit code."""
    parser = make_parser("inference.preprocessing", __doc__, quick="few images and repetitions")
    options = parser.parse_args()
    rounds = _QUICK_ROUNDS if options.quick else _ROUNDS
    names = [name for name in IMAGES if not options.quick or name[:2] not in {"12", "25"}]
    rows = []
    for name in tqdm(names, disable=None, leave=False):
        # A new process each, so that the peak belongs to this image.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(measured, (name, rounds)))
    print(format_table(rows))
    write_json(options.json, {"quick": options.quick, "preprocessing": rows})
    return 0


def measured(name: str, rounds: int) -> dict[str, Any]:
    """Measure an image of `IMAGES` in this process; returns its row with medians."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    data = IMAGES[name]()
    open_bytes(_file(Image.new("L", (64, 64)), "PNG"))  # warm-up
    grown, found = _growth(lambda: open_bytes(data))
    decode, after = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        with Image.open(io.BytesIO(data)) as image:
            width, height = (max(1, side * MAX_SIDE // max(image.size)) for side in image.size)
            image.draft(None, (width, height))
            image.load()
            decoded = time.perf_counter()
            open_image(image)
        after.append(time.perf_counter() - decoded)
        decode.append(decoded - started)
    return {
        "image": name,
        "file kB": len(data) / 1000,
        "decode ms": 1000 * statistics.median(decode),
        "after ms": 1000 * statistics.median(after),
        "peak growth MB": grown,
        "found": " ".join(found.reasons) or "a digit",
    }


def _growth(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the growth of the process in MB during the call, and the result."""
    before, peak, done = _resident_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            peak[0] = max(peak[0], _resident_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = call()
    done.set()
    watcher.join()
    return max(0.0, peak[0] - before), result


def _resident_mb() -> float:
    return float(psutil.Process().memory_info().rss / 2**20)


def _seven(size: tuple[int, int], mode: str = "L") -> Image.Image:
    image = Image.new("L", size, 235)
    points = [(x * size[0], y * size[1]) for x, y in ((0.3, 0.25), (0.7, 0.25), (0.45, 0.8))]
    ImageDraw.Draw(image).line(points, fill=30, width=max(1, min(size) // 14), joint="curve")
    return image.convert(mode)


def _shaded(size: tuple[int, int]) -> Image.Image:
    width, height = size
    light = np.linspace(1, 0.6, width, dtype=np.float32)[None] * np.ones((height, 1), np.float32)
    light[:, width // 2 :] *= 0.6
    grey = np.asarray(_seven(size), np.float32) * light
    grey += np.random.default_rng(0).normal(0, 5, (height, width)).astype(np.float32)
    colours = np.clip(grey, 0, 255)[..., None] * np.array([1, 0.97, 0.9], np.float32)
    return Image.fromarray(colours.astype(np.uint8))


def _lined(size: tuple[int, int]) -> Image.Image:
    image = _seven(size, "RGB")
    pen = ImageDraw.Draw(image)
    for y in range(0, size[1], size[1] // 9):
        pen.line((0, y, size[0], y), fill=(90, 120, 200), width=max(1, size[1] // 200))
    return image


def _noise(size: tuple[int, int]) -> Image.Image:
    shape = (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def _transparent(size: tuple[int, int]) -> Image.Image:
    foreground = Image.eval(_seven(size), lambda value: 255 - value)
    image = Image.new("RGBA", size, (20, 20, 20, 0))
    image.putalpha(foreground)
    return image


def _deep(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.asarray(_seven(size)).astype(np.uint16) * 257)


def _file(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _png(image: Image.Image) -> bytes:
    return _file(image, "PNG", compress_level=1)


_MP, _12MP = (1_000, 1_000), (4_000, 3_000)

IMAGES: dict[str, Callable[[], bytes]] = {
    "28 × 28, PNG grey": lambda: _png(_seven((28, 28))),
    "240 × 240, PNG grey": lambda: _png(_seven((240, 240))),
    "1 MP, PNG grey": lambda: _png(_seven(_MP)),
    "1 MP, PNG colour": lambda: _png(_seven(_MP, "RGB")),
    "1 MP, JPEG photo with a shadow": lambda: _file(_shaded(_MP), "JPEG"),
    "1 MP, PNG photo with a shadow": lambda: _png(_shaded(_MP)),
    "1 MP, PNG ruled paper": lambda: _png(_lined(_MP)),
    "1 MP, PNG noise": lambda: _png(_noise(_MP)),
    "12 MP, JPEG photo with a shadow": lambda: _file(_shaded(_12MP), "JPEG"),
    "12 MP, PNG grey": lambda: _png(_seven(_12MP)),
    "12 MP, PNG photo with a shadow": lambda: _png(_shaded(_12MP)),
    "12 MP, PNG transparent": lambda: _png(_transparent(_12MP)),
    "12 MP, PNG 16 bits": lambda: _png(_deep(_12MP)),
    "25 MP, PNG colour": lambda: _png(_seven(_LARGEST, "RGB")),
    "25 MP, PNG transparent": lambda: _png(_transparent(_LARGEST)),
    "25 MP, PNG 16 bits": lambda: _png(_deep(_LARGEST)),
    "25 MP, PNG noise": lambda: _png(_noise(_LARGEST)),
    "25 MP, JPEG, progressive": lambda: _file(
        _seven(_LARGEST, "RGB"), "JPEG", progressive=True, quality=60
    ),
    "25 MP, WebP": lambda: _file(_seven(_LARGEST, "RGB"), "WEBP", method=0),
    "25 MP, GIF": lambda: _file(_seven(_LARGEST), "GIF"),
    "25 MP, TIFF CMYK": lambda: _file(
        _seven(_LARGEST, "CMYK"), "TIFF", compression="tiff_lzw"
    ),
    "25 MP, TIFF float": lambda: _file(
        Image.fromarray(np.asarray(_seven(_LARGEST), np.float32) / 255), "TIFF",
        compression="tiff_adobe_deflate",
    ),
    "25 MP, TIFF LAB": lambda: _file(
        Image.merge("LAB", [_seven(_LARGEST)] * 3), "TIFF", compression="tiff_lzw"
    ),
    "25 MP, BMP 1 bit": lambda: _file(_seven(_LARGEST).convert("1"), "BMP"),
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

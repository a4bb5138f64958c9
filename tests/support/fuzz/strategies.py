"""Hypothesis strategies for valid image files, and the number of examples."""

import io
import os

import numpy as np
from hypothesis import strategies as st
from PIL import Image

__all__ = ["FORMATS", "fuzz_examples", "image_files", "image_files_of"]

FORMATS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("L", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "LAB"),
}
"""The accepted formats, each with modes that Pillow can write in it."""

_OPTIONS: dict[str, tuple[dict[str, object], ...]] = {
    "PNG": ({}, {"optimize": True}, {"compress_level": 0}),
    "JPEG": ({}, {"quality": 5}, {"progressive": True}),
    "WEBP": ({}, {"lossless": True}, {"quality": 5}),
    "BMP": ({},),
    "GIF": ({}, {"interlace": 0}),
    "TIFF": ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}),
}


def fuzz_examples(default: int) -> int:
    """Return how many examples to try: `MNN_FUZZ_EXAMPLES` if that is more than the default."""
    return max(default, int(os.environ.get("MNN_FUZZ_EXAMPLES") or 0))


@st.composite
def image_files_of(draw: st.DrawFn, form: str) -> bytes:
    """Return a whole file of one format: strokes, noise or a single colour, of any mode."""
    mode = draw(st.sampled_from(FORMATS[form]))
    width, height = draw(st.integers(1, 80)), draw(st.integers(1, 80))
    seed = draw(st.integers(0, 2**32 - 1))
    grey = _pixels(np.random.default_rng(seed), height, width)
    image = _in_mode(Image.fromarray(grey), mode)
    buffer = io.BytesIO()
    image.save(buffer, form, **draw(st.sampled_from(_OPTIONS[form])))
    return buffer.getvalue()


def image_files() -> st.SearchStrategy[bytes]:
    """Return a whole file of any of the formats."""
    return st.sampled_from(sorted(FORMATS)).flatmap(image_files_of)


def _pixels(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    paper, ink = rng.integers(0, 256, 2)
    pixels = np.full((height, width), paper, np.uint8)
    kind = rng.integers(0, 3)
    if kind == 0:
        return rng.integers(0, 256, (height, width), np.uint8)
    if kind == 1:
        for _ in range(rng.integers(1, 4)):
            top, left = rng.integers(0, height), rng.integers(0, width)
            pixels[top : top + rng.integers(1, 40), left : left + rng.integers(1, 12)] = ink
    return pixels


def _in_mode(grey: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(np.asarray(grey).astype(np.float32) / 255)
    if mode in ("LA", "RGBA"):
        ink = Image.new("L", grey.size, int(np.asarray(grey).flat[0]))
        return Image.merge(mode, [ink] * (len(mode) - 1) + [grey])
    return grey.convert("RGB").convert(mode) if mode in ("CMYK", "P") else _lab(grey, mode)


def _lab(grey: Image.Image, mode: str) -> Image.Image:
    return Image.merge("LAB", [grey] * 3) if mode == "LAB" else grey.convert(mode)

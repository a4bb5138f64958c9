"""Decode image files, Pillow images and arrays within limits, to upright grey or colour.

Only listed formats are accepted, and pixels are counted from the header before decoding. Damaged
files and other formats raise different errors. Large images are reduced in strips, so that memory
stays close to the size of their own pixels.
"""

import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from PIL import ExifTags, Image

from model.errors import CorruptImageError, ImageTooLargeError, UnsupportedFormatError

MAX_PIXELS = 25_000_000
"""Default limit on width × height, read from the header before decoding."""

MAX_SIDE = 1024
"""Larger images are reduced to at most this many pixels a side."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")
_MAX_SCANS = 100  # a progressive JPEG has about ten, a multi-image file some for each

Decoding: TypeAlias = Callable[[int], AbstractContextManager[None]]
"""Called with the number of pixels; the returned context is entered while they are decoded."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

_FLOAT_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))
_INTEGER_RANGES = ((0.0, 4095.0), (0.0, 65535.0))

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transpose that makes an image of that EXIF orientation upright."""

_STRIP_PIXELS = 2**18  # a strip fits a CPU cache


def read_bytes(
    data: bytes, *, max_pixels: int = MAX_PIXELS, decoding: Decoding | None = None
) -> Image.Image:
    """Decode an image file; arguments and errors are those of `open_bytes`.

    Returns:
        The upright image, at most `MAX_SIDE` pixels a side, in mode L, RGB or F (0 to 255).
        Transparent images are laid on white if they are dark, else on black.
    """
    if not data:
        raise CorruptImageError("the file is empty")
    _check_pixels(_png_size(data), max_pixels)
    if data.startswith(_PNG):
        data = essential_png(data)
    with _open_header(data) as image:
        _check_pixels(image.size, max_pixels)
        _check_scans(image, data)
        with _decoder_errors_translated():
            # JPEG can be decoded straight to a half, quarter or eighth of its size.
            width, height = (max(1, side * MAX_SIDE // max(image.size)) for side in image.size)
            image.draft(None, (width, height))
            n_pixels = image.width * image.height
            with decoding(n_pixels) if decoding else nullcontext():
                image.load()
                return _upright(image)


def read_image(image: Image.Image, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Load a Pillow image, as `read_bytes` does a file."""
    _check_pixels(image.size, max_pixels)
    with _decoder_errors_translated():
        image.load()
        return _upright(image)


def read_array(array: ArrayLike) -> Image.Image:
    """Convert an array of pixels that `open_array` takes, to the same form as `read_bytes`."""
    values = np.asarray(array)
    colour = values.ndim == 3 and values.shape[2] in (3, 4)
    if values.size == 0 or not (values.ndim == 2 or colour):
        raise ValueError(f"expected an array (H, W), (H, W, 3) or (H, W, 4), got {values.shape}")
    if values.dtype == bool:
        values = values.astype(np.float32)
    top = 1.0 if np.issubdtype(values.dtype, np.floating) else 255.0
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= top):  # also rejects NaN
        raise ValueError(
            f"expected values from 0 to {top:g} for {values.dtype}, got {low} to {high}"
        )
    if values.dtype == np.uint8:
        return _upright(Image.fromarray(values))
    if colour:
        return _upright(Image.fromarray(np.asarray(values * (255 / top), np.uint8)))
    grey = Image.fromarray(np.asarray(values, np.float32) * np.float32(255 / top))
    return grey.reduce(_factor(grey.size))


def _open_header(data: bytes) -> Image.Image:
    """Open an image without decoding it."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError("the picture has too many pixels to be decoded safely") from error
    except Exception as error:
        if _has_known_signature(data):
            raise CorruptImageError("the picture's header is truncated or damaged") from error
        raise UnsupportedFormatError(
            f"not a picture in one of the accepted formats ({', '.join(FORMATS)})"
        ) from error


def _has_known_signature(data: bytes) -> bool:
    """Whether the bytes start like one of the accepted formats."""
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    bitmap = data[:2] == b"BM" and data[6:10] == bytes(4)  # "BM" alone may start a text
    return webp or bitmap or data.startswith(_SIGNATURES)


def _png_size(data: bytes) -> tuple[int, int]:
    """Width and height from a PNG's first chunk, (0, 0) for anything else.

    Pillow does not tell the size of a file that ends after its header.
    """
    if data[:8] != _PNG or data[12:16] != b"IHDR" or len(data) < 24:
        return 0, 0
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def essential_png(data: bytes) -> bytes:
    """A PNG reduced to the chunks that decide its pixels, with the data in one chunk.

    Texts and colour profiles may inflate to any size, and a million empty chunks take seconds.

    Raises:
        CorruptImageError: If a checksum is wrong or the end is missing: Pillow decodes damaged
            pixels without an error.
    """
    chunks: dict[bytes, bytes] = {}
    pixels, at = [], len(_PNG)
    while True:
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if len(data) < end:
            raise CorruptImageError("the picture is truncated")
        if kind in _PNG_CHUNKS:
            if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
                raise CorruptImageError("the picture is damaged: a checksum is wrong")
            if kind == b"IDAT":
                pixels.append(data[at + 8 : end - 4])
            else:
                chunks.setdefault(kind, data[at:end])
        if kind == b"IEND":
            break
        at = end
    body = b"IDAT" + b"".join(pixels)
    chunks[b"IDAT"] = (
        (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    )
    return _PNG + b"".join(chunks[kind] for kind in _PNG_CHUNKS if kind in chunks)


def _check_scans(image: Image.Image, data: bytes) -> None:
    """Reject a JPEG with too many scans: each takes the time of a whole image.

    In compressed data a byte 255 is always followed by 0, so the two bytes counted are a marker. A
    TIFF may hold a JPEG in each of many strips, but no progressive one.
    """
    compression = str(image.info.get("compression", ""))
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > _MAX_SCANS:
        raise CorruptImageError(f"the picture has more than {_MAX_SCANS} scans")
    if image.format == "TIFF" and "jpeg" in compression and b"\xff\xc2" in data:
        raise CorruptImageError("the TIFF holds a progressive JPEG")


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"the picture has {width:,} × {height:,} pixels, more than {max_pixels:,} in all"
        )


@contextmanager
def _decoder_errors_translated() -> Iterator[None]:
    """Translate any exception of a decoder into `CorruptImageError`."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise CorruptImageError("the picture is truncated or damaged") from error


def _upright(image: Image.Image) -> Image.Image:
    """Any mode to upright L, RGB or F (0 to 255), reduced to at most `MAX_SIDE` a side."""
    factor = _factor(image.size)
    if image.mode.startswith(("I", "F")):
        deep = image
        if image.mode.startswith("I;16") and image.mode != "I;16":  # Pillow cannot crop these
            deep = Image.fromarray(np.asarray(image).astype(np.uint16))
        low, high = _range(deep)
        scale = np.float32(255 / (high - low))
        small = _in_strips(deep, "F", factor, lambda strip: _scaled(strip, low, high, scale))
    elif image.has_transparency_data and not _is_opaque(image):
        # Reduce with premultiplied alpha (mode RGBa), then lay on a background.
        small = _in_strips(image, "RGBa", factor, lambda s: s.convert("RGBA").convert("RGBa"))
        small = _opaque(small.convert("RGBA")).convert("RGB")
    elif image.mode == "LAB":  # lightness is enough, and converting colours is slow
        small = _in_strips(image, "L", factor, lambda strip: strip.getchannel("L"))
    else:
        mode = "L" if image.mode in ("1", "L") else "RGB"
        small = _in_strips(image, mode, factor, lambda strip: strip.convert(mode))
    orientation = _orientation(image)
    return small.transpose(_TRANSPOSES[orientation]) if orientation in _TRANSPOSES else small


def _is_opaque(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA") and image.getchannel("A").getextrema() == (255, 255)


def _factor(size: tuple[int, int]) -> int:
    """The integer by which both sides are divided to fit `MAX_SIDE`."""
    return -(-max(size) // MAX_SIDE)


def _in_strips(
    image: Image.Image, mode: str, factor: int, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """Convert and reduce by averaging, strip by strip: no second copy of a large image."""
    if factor == 1 and image.mode == mode != "F":
        return image
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // (width * factor)) * factor
    if height <= rows:
        return convert(image).reduce(factor)
    small = Image.new(mode, (-(-width // factor), -(-height // factor)))
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        small.paste(convert(strip).reduce(factor), (0, top // factor))
    return small


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) if there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - damaged metadata does not damage the pixels
        return 1


def _range(image: Image.Image) -> tuple[float, float]:
    """The values of black and white in 16-bit, 32-bit and floating point grey.

    Cameras and scanners store 12 bits in 16-bit files. Resampled floating point images overshoot
    their range a little.
    """
    low, high = (float(value) for value in np.ravel(image.getextrema()))
    floating = image.mode.startswith("F")
    ranges = _FLOAT_RANGES if floating else _INTEGER_RANGES
    slack = 0.25 if floating else 0.0
    for bottom, top in ranges:
        margin = slack * (top - bottom)
        if bottom - margin <= low and high <= top + margin:
            return bottom, top
    return low, max(high, low + 1)


def _scaled(strip: Image.Image, low: float, high: float, scale: np.float32) -> Image.Image:
    values = np.asarray(strip).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("not all grey values are numbers")
    return Image.fromarray((values.clip(low, high) - np.float32(low)) * scale)


def _opaque(image: Image.Image) -> Image.Image:
    """Lay an RGBA image on white if its opaque pixels are dark, on black if they are light."""
    alpha = np.asarray(image.getchannel("A"), np.float32)
    luma = np.asarray(image.convert("L"), np.float32)
    weight = alpha.sum()
    light_foreground = weight > 0 and (luma * alpha).sum() / weight > 127.5 and alpha.min() == 0
    background = Image.new("RGBA", image.size, "black" if light_foreground else "white")
    return Image.alpha_composite(background, image)

"""The one door for pictures: a file's bytes, or an array, to the network's 28×28 input.

Training, calibration, evaluation, service and notebooks all go through here, so the network is
never shown a picture prepared in another way than those it was fitted and calibrated on.

The output follows MNIST's own preparation: ink high on a background of 0, the ink scaled into a
20×20 box with its aspect kept, its centre of mass in the middle of 28×28 pixels.

Source: LeCun, Bottou, Bengio and Haffner (1998), "Gradient-Based Learning Applied to Document
Recognition", section III.A.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from model.decision import Reason
from model.errors import CorruptPictureError, PictureTooLargeError, UnsupportedFormatError

__all__ = [
    "INPUT_CONTRACT",
    "MAX_PIXELS",
    "DigitImage",
    "decode",
    "open_array",
    "open_bytes",
    "open_image",
]

SIDE = 28
BOX = 20
INPUT_CONTRACT = "uint8 28x28, ink high on 0, ink in a 20x20 box, centre of mass centred; door 1"
"""What the network is fed; part of the checkpoint, so weights and door cannot drift apart."""

MAX_PIXELS = 25_000_000
"""Default bound on width × height of a picture, read from its header before decoding."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_SIGNATURES = (
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"II*\x00",
    b"MM\x00*",
    b"II+\x00",
    b"MM\x00+",
)

_FLOATING_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))
_WHOLE_RANGES = ((0.0, 4095.0), (0.0, 65535.0))

_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of that EXIF orientation upright."""

_WORKING_SIDE = 512  # larger pictures are reduced first; the network sees 20 pixels of them
_LEAST_CONTRAST = 24.0  # grey levels between paper and ink below which there is no ink
_INK = 0.15  # share of the strongest ink from which a pixel belongs to the digit's box
_NOISE_MARGIN = 1.5  # how far above the border's own unevenness ink begins
_ALREADY_SIZED = 0.1  # relative distance from the 20×20 box within which nothing is resampled


@dataclass(frozen=True)
class DigitImage:
    """What the network sees of a picture.

    Attributes:
        pixels: uint8 (28, 28), ink high on a background of 0.
        reasons: Why a person should look at the picture whatever the network says; empty if none.
    """

    pixels: NDArray[np.uint8]
    reasons: tuple[Reason, ...] = ()


def open_bytes(data: bytes, *, max_pixels: int = MAX_PIXELS) -> DigitImage:
    """Read a picture file and prepare its digit.

    Args:
        data: The whole file: PNG, JPEG, WebP, BMP, GIF (first frame) or TIFF (first page).
        max_pixels: Bound on width × height, checked before decoding.

    Returns:
        The 28×28 input. A blank picture is not an error: its reasons hold `no_ink`.

    Raises:
        UnsupportedFormatError: If the bytes are none of these formats.
        PictureTooLargeError: If the header tells of more pixels than allowed.
        CorruptPictureError: If the file is empty, truncated or damaged.
    """
    return _prepare(decode(data, max_pixels=max_pixels))


def open_image(picture: Image.Image, *, max_pixels: int = MAX_PIXELS) -> DigitImage:
    """Prepare the digit in a Pillow image, as `open_bytes` does for the file it was read from.

    Raises:
        PictureTooLargeError: If it has more pixels than allowed.
        CorruptPictureError: If it cannot be decoded.
    """
    _check_pixels(picture.size, max_pixels)
    with _damage_reported():
        picture.load()
        grey = _grey(picture)
    return _prepare(grey)


def open_array(array: ArrayLike) -> DigitImage:
    """Prepare the digit in an array of pixels.

    Args:
        array: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA; integers from 0 to 255 or floating
            point numbers from 0 to 1.

    Returns:
        The 28×28 input, as from `open_bytes`.

    Raises:
        ValueError: If the array has another shape or values out of range.
    """
    values = np.asarray(array)
    colour = values.ndim == 3 and values.shape[2] in (3, 4)
    if values.size == 0 or not (values.ndim == 2 or colour):
        raise ValueError(f"expected an array (H, W), (H, W, 3) or (H, W, 4), got {values.shape}")
    if values.dtype == bool:
        values = values.astype(np.float32)
    top = 1.0 if np.issubdtype(values.dtype, np.floating) else 255.0
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= top):  # also refuses NaN
        raise ValueError(
            f"expected values from 0 to {top:g} for {values.dtype}, got {low} to {high}"
        )
    if colour:
        picture = Image.fromarray(np.asarray(values * (255 / top), np.uint8))
        return _prepare(_grey(picture))
    grey = Image.fromarray(np.asarray(values, np.float32) * np.float32(255 / top))
    return _prepare(np.asarray(_shrunk(grey), np.float32))


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Read a picture file as grey values, upright, reduced to at most 512 pixels a side.

    Args:
        data: The whole file.
        max_pixels: Bound on width × height, checked before decoding.

    Returns:
        Grey values (H, W), float32 from 0 to 255, with transparency laid on the paper or the board
        it was most likely drawn for.

    Raises:
        PictureError: As `open_bytes` says.
    """
    if not data:
        raise CorruptPictureError("the file is empty")
    _check_pixels(_png_size(data), max_pixels)
    with _open_header(data) as picture:
        _check_pixels(picture.size, max_pixels)
        with _damage_reported():
            if picture.format == "PNG":
                # Pillow decodes damaged pixels without a word; this compares every checksum.
                _open_header(data).verify()
            # JPEG can be decoded straight to a half, quarter or eighth of its size.
            picture.draft("L", (_WORKING_SIDE, _WORKING_SIDE))
            picture.load()
            return _grey(picture)


def _open_header(data: bytes) -> Image.Image:
    """Open a picture without decoding it."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureTooLargeError(
            "the picture has too many pixels to be decoded safely"
        ) from error
    except Exception as error:
        if _has_known_signature(data):
            raise CorruptPictureError("the picture's header is truncated or damaged") from error
        raise UnsupportedFormatError(
            f"not a picture in one of the accepted formats ({', '.join(FORMATS)})"
        ) from error


def _has_known_signature(data: bytes) -> bool:
    """Whether the bytes begin as one of the accepted formats does."""
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    bitmap = data[:2] == b"BM" and data[6:10] == bytes(4)  # two letters alone may be a text
    return webp or bitmap or data.startswith(_SIGNATURES)


def _png_size(data: bytes) -> tuple[int, int]:
    """Width and height from a PNG's first chunk, (0, 0) for anything else.

    Pillow says nothing of the size of a file that ends after its header.
    """
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 24:
        return 0, 0
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise PictureTooLargeError(
            f"the picture has {width:,} × {height:,} pixels, more than {max_pixels:,} in all"
        )


@contextmanager
def _damage_reported() -> Iterator[None]:
    """Turn whatever a decoder raises on a hostile file into one exception of ours."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise CorruptPictureError("the picture is truncated or damaged") from error


def _grey(picture: Image.Image) -> NDArray[np.float32]:
    """Any mode and depth to upright grey values from 0 to 255, reduced to the working size."""
    if picture.mode.startswith(("I", "F")):
        grey = _shrunk(Image.fromarray(_deep_grey(picture)))
    elif picture.has_transparency_data:
        # Reduced with colours weighted by their opacity (mode RGBa), then laid on paper.
        grey = _opaque(_shrunk(picture.convert("RGBA").convert("RGBa")).convert("RGBA")).convert(
            "L"
        )
    else:
        grey = _shrunk(picture.convert("L"))
    orientation = _orientation(picture)
    if orientation in _TURNS:
        grey = grey.transpose(_TURNS[orientation])
    return np.asarray(grey, np.float32)


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none or it cannot be read."""
    try:
        return int(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - damaged notes about a picture do not damage the picture
        return 1


def _deep_grey(picture: Image.Image) -> NDArray[np.float32]:
    """16-bit, 32-bit and floating point grey to 0 to 255, by the range that the values use.

    Cameras and scanners put 12 bits into files of 16; resampled floating point pictures overshoot
    their range a little.
    """
    values = np.asarray(picture).astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("not all grey values are numbers")
    floating = picture.mode.startswith("F")
    ranges = _FLOATING_RANGES if floating else _WHOLE_RANGES
    slack = 0.25 if floating else 0.0
    for bottom, top in (*ranges, (low, max(high, low + 1))):
        margin = slack * (top - bottom)
        if bottom - margin <= low and high <= top + margin:
            break
    grey: NDArray[np.float32] = (values.clip(bottom, top) - bottom) * np.float32(
        255 / (top - bottom)
    )
    return grey


def _opaque(picture: Image.Image) -> Image.Image:
    """Lay an RGBA picture's ink on white if it is dark, on black if it is light."""
    alpha = np.asarray(picture.getchannel("A"), np.float32)
    luma = np.asarray(picture.convert("L"), np.float32)
    weight = alpha.sum()
    light_ink = weight > 0 and (luma * alpha).sum() / weight > 127.5 and alpha.min() == 0
    paper = Image.new("RGBA", picture.size, "black" if light_ink else "white")
    return Image.alpha_composite(paper, picture)


def _shrunk(picture: Image.Image) -> Image.Image:
    """Reduce by a whole factor, averaging, until both sides fit the working size."""
    return picture.reduce(-(-max(picture.size) // _WORKING_SIDE))


def _prepare(grey: NDArray[np.float32]) -> DigitImage:
    """Grey values to the 28×28 input."""
    ink = _ink(grey)
    if ink is None:
        return DigitImage(np.zeros((SIDE, SIDE), np.uint8), ("no_ink",))
    return DigitImage(_centred(_boxed(ink)))


def _ink(grey: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """How much ink each pixel holds, from 0 to 1, or None where there is none.

    The background is the median of the border; ink is what departs from it, to the darker or the
    lighter side, whichever departs more. The unevenness of the border itself counts as background.
    """
    frame = np.sort(np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]]))
    paper = (frame[(len(frame) - 1) // 2] + frame[len(frame) // 2]) / 2  # the median
    darker, lighter = np.maximum(paper - grey, 0), np.maximum(grey - paper, 0)
    dark_ink = np.square(darker).sum() > np.square(lighter).sum()
    ink = darker if dark_ink else lighter
    strongest = ink.max()
    if strongest < _LEAST_CONTRAST:
        return None
    departure = np.maximum(paper - frame, 0) if dark_ink else np.maximum(frame - paper, 0)
    floor = _NOISE_MARGIN * _upper_quartile(departure)
    if floor >= strongest / 2:  # ink that touches the border is not unevenness
        floor = 0.0
    result: NDArray[np.float32] = np.maximum(ink - floor, 0) / (strongest - floor)
    return result


def _upper_quartile(values: NDArray[np.float32]) -> float:
    """`np.quantile(values, 0.75)`, which takes longer than all the rest for a small picture."""
    ordered = np.sort(values)
    whole, part = divmod(0.75 * (len(ordered) - 1), 1)
    below, above = ordered[int(whole)], ordered[min(int(whole) + 1, len(ordered) - 1)]
    return float(below + (above - below) * part)


def _boxed(ink: NDArray[np.float32]) -> NDArray[np.float32]:
    """Crop to the ink and scale its longer side to 20 pixels, keeping the aspect."""
    rows = np.flatnonzero((ink > _INK).any(axis=1))
    columns = np.flatnonzero((ink > _INK).any(axis=0))
    crop = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    longer = max(crop.shape)
    if abs(longer / BOX - 1) <= _ALREADY_SIZED:
        # The faint rim around the ink is kept where there is room: nothing is resampled.
        return ink[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
    height, width = (max(1, round(side * BOX / longer)) for side in crop.shape)
    scaled = np.asarray(
        Image.fromarray(crop).resize((width, height), Image.Resampling.BILINEAR), np.float32
    )
    result: NDArray[np.float32] = scaled / scaled.max()
    return result


def _centred(ink: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Place the ink so that its centre of mass is as near as possible to the middle."""
    canvas = np.zeros((SIDE, SIDE), np.float32)
    corner = []
    for axis, size in enumerate(ink.shape):
        profile = ink.sum(axis=1 - axis)
        mass_centre = float((profile * np.arange(size)).sum() / profile.sum())
        corner.append(min(max(round(SIDE / 2 - mass_centre), 0), SIDE - size))
    top, left = corner
    canvas[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return np.rint(canvas * 255).astype(np.uint8)

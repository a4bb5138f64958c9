"""The one door for pictures: a file's bytes, or an array, to the network's 28×28 input.

Training, calibration, evaluation, service and notebooks all go through here, so the network is
never shown a picture prepared in another way than those it was fitted and calibrated on.

The output follows MNIST's own preparation: ink high on a background of 0, the ink scaled into a
20×20 box with its aspect kept, its centre of mass in the middle of 28×28 pixels. Strokes much
thinner or thicker than MNIST's are brought near them.

Source: LeCun, Bottou, Bengio and Haffner (1998), "Gradient-Based Learning Applied to Document
Recognition", section III.A.
"""

from dataclasses import dataclass

import mahotas
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from model.preprocessing.contrast import colour_axis
from model.preprocessing.decode import MAX_PIXELS, Decoding, read_array, read_bytes, read_image
from model.preprocessing.morphology import running_extreme
from model.preprocessing.segment import Ink, find_ink
from model.types import Reason

__all__ = ["INPUT_CONTRACT", "MAX_PIXELS", "DigitImage", "open_array", "open_bytes", "open_image"]

SIDE = 28
BOX = 20
INPUT_CONTRACT = (
    "uint8 28x28, ink high on 0, ink in a 20x20 box, strokes of MNIST's width, centre of mass "
    "centred; door 2"
)
"""What the network is fed; part of the checkpoint, so weights and door cannot drift apart."""

_OVERVIEW = 128  # pixels of the longer side at which ink is looked for
_CLOSER = 40  # pixels of the digit's longer side below which it is looked at again, closer
_MARGIN = 0.3  # paper around the digit for the second look, relative to its longer side
_ALREADY_SIZED = 0.1  # relative distance from the 20×20 box within which nothing is resampled
_PEN = 5  # how far around, at that size, the depth of a stroke is looked for
_FAINTEST = 0.7  # depth below which nothing is a stroke of its own
_REDRAWN = 80  # least pixels of the longer side at which strokes are made thinner or thicker

# Width of strokes in a box of 20: 98 % of MNIST's lie between these ends (median 2.4) and stay as
# they are; others are brought to the nearer of the two targets.
_THINNEST, _THICKEST = 1.5, 4.2
_THICKENED, _THINNED = 2.2, 3.4


@dataclass(frozen=True)
class DigitImage:
    """What the network sees of a picture.

    Attributes:
        pixels: uint8 (28, 28), ink high on a background of 0.
        reasons: Why a person should look at the picture whatever the network says; empty if none.
    """

    pixels: NDArray[np.uint8]
    reasons: tuple[Reason, ...] = ()


def open_bytes(
    data: bytes, *, max_pixels: int = MAX_PIXELS, decoding: Decoding | None = None
) -> DigitImage:
    """Read a picture file and prepare its digit.

    Args:
        data: The whole file: PNG, JPEG, WebP, BMP, GIF (first frame) or TIFF (first page).
        max_pixels: Bound on width × height, checked before decoding.
        decoding: Entered around the decoding, with the number of pixels, so that a caller with
            several threads may bound what is decoded at once.

    Returns:
        The 28×28 input. A blank picture is not an error: its reasons hold `no_ink`.

    Raises:
        UnsupportedFormatError: If the bytes are none of these formats.
        ImageTooLargeError: If the header tells of more pixels than allowed.
        CorruptImageError: If the file is empty, truncated or damaged.
    """
    return _prepare(read_bytes(data, max_pixels=max_pixels, decoding=decoding))


def open_image(picture: Image.Image, *, max_pixels: int = MAX_PIXELS) -> DigitImage:
    """Prepare the digit in a Pillow image, as `open_bytes` does for the file it was read from.

    Raises:
        ImageTooLargeError: If it has more pixels than allowed.
        CorruptImageError: If it cannot be decoded.
    """
    return _prepare(read_image(picture, max_pixels=max_pixels))


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
    return _prepare(read_array(array))


def _prepare(picture: Image.Image) -> DigitImage:
    """An upright picture to the 28×28 input."""
    ink, factor = _look(picture)
    if ink is None:
        return DigitImage(np.zeros((SIDE, SIDE), np.uint8), ("no_ink",))
    top, bottom, left, right = ink.box
    reasons = ink.reasons
    if factor > 1 and max(bottom - top, right - left) < _CLOSER:
        margin = round(_MARGIN * max(bottom - top, right - left)) + 1
        edges = (left - margin, top - margin, right + margin, bottom + margin)
        part = picture.crop(
            (
                max(0, edges[0] * factor),
                max(0, edges[1] * factor),
                min(picture.width, edges[2] * factor),
                min(picture.height, edges[3] * factor),
            )
        )
        closer, _ = _look(part)
        if closer is not None:
            # Only the first look has seen all of the picture.
            apart = [reason for reason in reasons if reason == "several_shapes"]
            reasons = tuple(dict.fromkeys([*apart, *closer.reasons]))
            ink = closer
    return DigitImage(_centred(_boxed(ink)), reasons)


def _look(picture: Image.Image) -> tuple[Ink | None, int]:
    """The ink of a picture, and by what it was reduced to find it."""
    factor = -(-max(picture.size) // _OVERVIEW)
    if factor > 1:
        picture = picture.reduce(factor)
    if picture.mode == "RGB":
        colours = np.asarray(picture)
        axis = colour_axis(np.asarray(picture.reduce(-(-max(picture.size) // 64))))
        return find_ink(colours @ axis), factor
    return find_ink(np.asarray(picture, np.float32)), factor


def _boxed(ink: Ink) -> NDArray[np.float32]:
    """Crop to the ink, mend its strokes, and scale its longer side to 20 pixels."""
    top, bottom, left, right = ink.box
    longer = max(bottom - top, right - left)
    crop = ink.strength[top:bottom, left:right]
    stroke = _stroke_width(crop) * BOX / longer
    if not _THINNEST <= stroke <= _THICKEST:
        crop = _redrawn(crop, (_THICKENED if stroke < _THINNEST else _THINNED) - stroke)
    elif abs(longer / BOX - 1) <= _ALREADY_SIZED:
        # The faint rim around the ink is kept where there is room: nothing is resampled.
        return ink.strength[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1]
    height, width = (max(1, round(side * BOX / max(crop.shape))) for side in crop.shape)
    scaled = np.asarray(
        Image.fromarray(crop).resize((width, height), Image.Resampling.BILINEAR), np.float32
    )
    result: NDArray[np.float32] = scaled / max(float(scaled.max()), 1e-6)
    return result


def _stroke_width(ink: NDArray[np.float32]) -> float:
    """Mean width of the strokes in pixels: twice their area over the length of their outline.

    The length is the total variation, which for soft edges is the mean over all levels (the coarea
    formula), so it does not depend on how sharp the picture is.
    """
    padded = np.pad(ink, 1)
    down, right = padded[1:, :-1] - padded[:-1, :-1], padded[:-1, 1:] - padded[:-1, :-1]
    return float(2 * ink.sum() / max(float(np.hypot(down, right).sum()), 1e-6))


def _redrawn(ink: NDArray[np.float32], change: float) -> NDArray[np.float32]:
    """The ink with strokes thicker or thinner by `change` pixels of the final box of 20."""
    longer = max(ink.shape)
    zoom = max(1.0, _REDRAWN / longer)
    size = tuple(max(1, round(side * zoom)) for side in ink.shape[::-1])
    large = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC))
    radius = change / 2 * max(size) / BOX
    room = int(max(0.0, radius)) + 2
    # A stroke ends where it has half its own depth: a pen does not press equally everywhere.
    around = running_extreme((large.clip(0, 1) * 255).astype(np.uint8), _PEN, np.maximum) / 255
    drawn = np.pad(large > 0.5 * np.maximum(around, _FAINTEST), room)
    if radius > 0:
        result = np.clip(radius + 1 - np.sqrt(mahotas.distance(~drawn)), 0, 1).astype(np.float32)
    else:
        result = np.clip(radius + np.sqrt(mahotas.distance(drawn)), 0, 1).astype(np.float32)
    rows, columns = (
        np.flatnonzero(result.max(axis=1) > 0.5),
        np.flatnonzero(result.max(axis=0) > 0.5),
    )
    if not len(rows) or not len(columns):
        return ink
    drawn_ink: NDArray[np.float32] = result[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return drawn_ink


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

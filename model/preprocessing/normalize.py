"""Normalization: from a file's bytes, an image or an array to the network's 28×28 input.

Training, calibration, evaluation, service and notebooks all use this one path, so the network only
sees images that are preprocessed like those it was fitted and calibrated on.

The output follows MNIST: light strokes on a background of 0, scaled into a 20×20 box with their
aspect ratio, the centre of mass in the middle of 28×28 pixels. Strokes much thinner or thicker than
MNIST's are made about as wide.

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
from model.preprocessing.morphology import bounding_box, running_extreme
from model.preprocessing.segment import Foreground, find_foreground
from model.types import Reason

SIDE = 28
"""Side of the network's input in pixels."""

_BOX = 20  # side of the box that the digit is scaled into
INPUT_CONTRACT = (
    "uint8 28x28, ink high on 0, ink in a 20x20 box, strokes of MNIST's width, centre of mass "
    "centred; door 2"
)
"""How images are preprocessed; stored in checkpoints, so that weights and code cannot diverge."""

_SEGMENTATION_SIDE = 128  # longer side in pixels at which the foreground is segmented
_SMALL_DIGIT = 40  # longer side of the digit below which its crop is segmented again
_MARGIN = 0.3  # background around that crop, relative to the digit's longer side
_RESIZE_TOLERANCE = 0.1  # relative deviation from the 20×20 box within which nothing is resampled
_RESTROKE_SIDE = 80  # smallest longer side in pixels at which stroke widths are changed
_DEPTH_RADIUS = 5  # neighbourhood in pixels, at that size, of a stroke's maximum depth
_MIN_DEPTH = 0.7  # lower bound on that maximum

# Stroke widths in a box of 20: 98 % of MNIST's (median 2.4) are in [_THINNEST, _THICKEST] and are
# kept. Others are changed to the nearer target.
_THINNEST, _THICKEST = 1.5, 4.2
_THICKENED, _THINNED = 2.2, 3.4


@dataclass(frozen=True)
class DigitImage:
    """A preprocessed image.

    Attributes:
        pixels: The network's input, uint8 (28, 28): light strokes on a background of 0.
        reasons: Why a person should review the image whatever the network predicts.
    """

    pixels: NDArray[np.uint8]
    reasons: tuple[Reason, ...] = ()


def open_bytes(
    data: bytes, *, max_pixels: int = MAX_PIXELS, decoding: Decoding | None = None
) -> DigitImage:
    """Preprocess an image file.

    Args:
        data: The whole file: PNG, JPEG, WebP, BMP, GIF (first frame) or TIFF (first page).
        max_pixels: Limit on width × height, checked before decoding.
        decoding: Limits what several threads decode at once; see `Decoding`.

    Returns:
        The 28×28 input. A blank image is not an error: its reason is `no_ink`.

    Raises:
        UnsupportedFormatError: If the bytes are none of these formats.
        ImageTooLargeError: If the header declares more pixels than allowed.
        CorruptImageError: If the file is empty, truncated or damaged.
    """
    return _preprocessed(read_bytes(data, max_pixels=max_pixels, decoding=decoding))


def open_image(image: Image.Image, *, max_pixels: int = MAX_PIXELS) -> DigitImage:
    """Preprocess a Pillow image, as `open_bytes` does the file it was read from.

    Raises:
        ImageTooLargeError: If it has more pixels than allowed.
        CorruptImageError: If it cannot be decoded.
    """
    return _preprocessed(read_image(image, max_pixels=max_pixels))


def open_array(array: ArrayLike) -> DigitImage:
    """Preprocess an array of pixels.

    Args:
        array: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA; integers from 0 to 255 or floating
            point numbers from 0 to 1.

    Raises:
        ValueError: If the array has another shape or values out of range.
    """
    return _preprocessed(read_array(array))


def _preprocessed(image: Image.Image) -> DigitImage:
    """Segment an upright image and normalize its digit."""
    foreground, factor = _segmented(image)
    if foreground is None:
        return DigitImage(np.zeros((SIDE, SIDE), np.uint8), ("no_ink",))
    top, bottom, left, right = foreground.box
    longer = max(bottom - top, right - left)
    reasons = foreground.reasons
    if factor > 1 and longer < _SMALL_DIGIT:
        # Segment the digit's crop again, at a higher resolution.
        margin = round(_MARGIN * longer) + 1
        crop = image.crop(
            (
                max(0, (left - margin) * factor),
                max(0, (top - margin) * factor),
                min(image.width, (right + margin) * factor),
                min(image.height, (bottom + margin) * factor),
            )
        )
        closer, _ = _segmented(crop)
        if closer is not None:
            # Only the whole image shows other shapes.
            kept = [reason for reason in reasons if reason == "several_shapes"]
            reasons = tuple(dict.fromkeys([*kept, *closer.reasons]))
            foreground = closer
    return DigitImage(_centred(_scaled(foreground)), reasons)


def _segmented(image: Image.Image) -> tuple[Foreground | None, int]:
    """The foreground of an image, and the factor by which the image was reduced to find it."""
    factor = -(-max(image.size) // _SEGMENTATION_SIDE)
    if factor > 1:
        image = image.reduce(factor)
    if image.mode == "RGB":
        axis = colour_axis(np.asarray(image.reduce(-(-max(image.size) // 64))))
        return find_foreground(np.asarray(image) @ axis), factor
    return find_foreground(np.asarray(image, np.float32)), factor


def _scaled(foreground: Foreground) -> NDArray[np.float32]:
    """Crop to the digit, normalize its stroke width, and scale its longer side to 20 pixels."""
    top, bottom, left, right = foreground.box
    longer = max(bottom - top, right - left)
    crop = foreground.intensity[top:bottom, left:right]
    width = _stroke_width(crop) * _BOX / longer
    if not _THINNEST <= width <= _THICKEST:
        crop = _restroked(crop, (_THICKENED if width < _THINNEST else _THINNED) - width)
    elif abs(longer / _BOX - 1) <= _RESIZE_TOLERANCE:
        # Nothing is resampled, and the faint rim is kept if there is room.
        return foreground.intensity[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1]
    rows, columns = (max(1, round(side * _BOX / max(crop.shape))) for side in crop.shape)
    resized = Image.fromarray(crop).resize((columns, rows), Image.Resampling.BILINEAR)
    scaled = np.asarray(resized, np.float32)
    result: NDArray[np.float32] = scaled / max(float(scaled.max()), 1e-6)
    return result


def _stroke_width(intensity: NDArray[np.float32]) -> float:
    """Mean stroke width in pixels: twice the area over the perimeter.

    The perimeter is the total variation: for soft edges the mean over all levels (coarea formula),
    so it does not depend on how sharp the image is.
    """
    padded = np.pad(intensity, 1)
    down, right = padded[1:, :-1] - padded[:-1, :-1], padded[:-1, 1:] - padded[:-1, :-1]
    return float(2 * intensity.sum() / max(float(np.hypot(down, right).sum()), 1e-6))


def _restroked(intensity: NDArray[np.float32], change: float) -> NDArray[np.float32]:
    """The digit with strokes wider by `change` pixels of the final box of 20.

    By thresholding at half the local maximum and offsetting the Euclidean distance transform.
    """
    zoom = max(1.0, _RESTROKE_SIDE / max(intensity.shape))
    size = tuple(max(1, round(side * zoom)) for side in intensity.shape[::-1])
    large = np.asarray(Image.fromarray(intensity).resize(size, Image.Resampling.BICUBIC))
    radius = change / 2 * max(size) / _BOX
    pad = int(max(0.0, radius)) + 2
    # The threshold is local because a pen does not press equally everywhere.
    levels = (large.clip(0, 1) * 255).astype(np.uint8)
    depth = running_extreme(levels, _DEPTH_RADIUS, np.maximum) / 255
    mask = np.pad(large > 0.5 * np.maximum(depth, _MIN_DEPTH), pad)
    if radius > 0:
        offset = radius + 1 - np.sqrt(mahotas.distance(~mask))
    else:
        offset = radius + np.sqrt(mahotas.distance(mask))
    result: NDArray[np.float32] = np.clip(offset, 0, 1).astype(np.float32)
    if not (result > 0.5).any():
        return intensity
    top, bottom, left, right = bounding_box(result > 0.5)
    return result[top:bottom, left:right]


def _centred(intensity: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Place the digit with its centre of mass as near as possible to the middle."""
    canvas = np.zeros((SIDE, SIDE), np.float32)
    corner = []
    for axis, size in enumerate(intensity.shape):
        profile = intensity.sum(axis=1 - axis)
        centre = float((profile * np.arange(size)).sum() / profile.sum())
        corner.append(min(max(round(SIDE / 2 - centre), 0), SIDE - size))
    top, left = corner
    canvas[top : top + intensity.shape[0], left : left + intensity.shape[1]] = intensity
    return np.rint(canvas * 255).astype(np.uint8)

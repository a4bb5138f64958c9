"""Segmentation: find the digit's connected components among dust, ruled lines and frames.

All that it assumes of digits is their size and how long their strokes may be.
"""

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import mahotas
import numpy as np
from numpy.typing import NDArray

from model.preprocessing.contrast import FOREGROUND, find_contrast
from model.preprocessing.morphology import bounding_box, opened, running_extreme
from model.types import Reason

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Hysteresis thresholding.
_WEAK = 0.28  # low threshold: contrast of pixels that are foreground next to strong pixels
_REACH = 0.08  # largest distance to strong pixels, relative to the longer side

# Connected components; "area" is their number of foreground pixels.
_LABEL_SIDE = 64  # longer side at which they are labelled: gaps below one of its pixels are closed
_DUST = 0.015  # area relative to the digit's largest component below which one is dust
_FAINT = 0.7  # relative contrast below which one shows through the paper or is a shadow
_NEAR = 0.25  # gap relative to the digit's size within which one is a part of the digit
_OTHER_AREA, _OTHER_SIDE = 0.1, 0.3  # area and side, relative to the digit's, of another shape
_TALL, _APART = 0.5, 0.08  # extent and gap, relative to the digit's box, of two digits

# What a digit cannot look like.
_MIN_SIDE = 5  # longer side in pixels
_MAX_ASPECT = 2.6  # width over height
_MAX_LENGTH = 5.5  # length of its strokes over its longer side
_MAX_COMPONENTS = 12  # other components, if they have as much area
_MAX_BAND_FILL = 0.6  # filled share of the box of a vertical band from edge to edge
_MAX_FILL = 0.75  # filled share of its box, unless it is narrow


@dataclass(frozen=True)
class Foreground:
    """The digit's foreground."""

    intensity: Floats  # (H, W) from 0 (not the digit) to 1
    box: tuple[int, int, int, int]  # of the digit: top, bottom, left, right, ends exclusive
    reasons: tuple[Reason, ...]  # why it may not be one digit


def find_foreground(grey: Floats) -> Foreground | None:
    """The digit's foreground without ruled lines, dust and frames; None if nothing stands out.

    Args:
        grey: (H, W), from 0 (black) to 255 (white).
    """
    contrast = find_contrast(grey)
    if contrast is None:
        return None
    values = contrast.values
    weak = values > max(_WEAK, 2.5 * contrast.noise)
    strong = values > FOREGROUND
    lines = _ruled_lines(weak, values)
    if lines is not None:
        strong, weak = strong & ~lines, weak & ~lines
        rim = running_extreme(lines.view(np.uint8), 1, np.maximum).view(bool) & ~weak
        values = np.where(rim, 0, values)
    reach = max(1, round(_REACH * max(values.shape)))
    weak &= running_extreme(strong.view(np.uint8), reach, np.maximum).view(bool)
    components = _Components.of(weak, values)
    if not components.n:
        return None
    digit, others = _grouped(components)
    chosen = np.zeros(components.n + 1, bool)
    chosen[digit + others] = True
    cells = chosen[components.labels]
    box = bounding_box(_as_pixels(cells, components.factor, values.shape) & weak)
    reasons = (
        *_several_shapes(components, digit, others),
        *_not_digit_shaped(components, digit, box, strong, weak),
    )
    rim = running_extreme(cells.view(np.uint8), 1, np.maximum).view(bool)
    rim &= cells | (components.labels == 0)
    floor = np.float32(min(_WEAK, 2 * contrast.noise))
    intensity = np.clip((values - floor) / (1 - floor), 0, 1)
    return Foreground(intensity * _as_pixels(rim, components.factor, values.shape), box, reasons)


@dataclass(frozen=True)
class _Components:
    """Connected components of a mask, labelled at a reduced size of one cell per factor² pixels."""

    labels: NDArray[np.int32]  # (h, w) number of the component in each cell, 0 for background
    factor: int  # side of a cell in pixels
    area: NDArray[np.float64]  # foreground pixels of each component; 0 for the background
    depth: NDArray[np.float64]  # their mean contrast
    boxes: NDArray[np.int64]  # top, bottom, left, right in cells, ends exclusive

    @property
    def n(self) -> int:
        return len(self.area) - 1

    @classmethod
    def of(cls, mask: Mask, values: Floats) -> "_Components":
        factor = -(-max(mask.shape) // _LABEL_SIDE)
        pooled = _pooled(mask, factor)
        labels, n = mahotas.label(pooled > 0, np.ones((3, 3), bool))
        area = np.bincount(labels.ravel(), pooled.ravel(), n + 1).astype(np.float64)
        area[0] = 0.0
        total = np.bincount(labels.ravel(), _pooled(values * mask, factor).ravel(), n + 1)
        boxes = mahotas.labeled.bbox(labels).astype(np.int64) if n else np.zeros((1, 4), np.int64)
        return cls(labels, factor, area, total / np.maximum(area, 1), boxes)

    def longer_sides(self) -> NDArray[np.int64]:
        """Longer side of each component's box in cells, (n + 1,)."""
        sides: NDArray[np.int64] = np.diff(self.boxes, axis=1)[:, ::2].max(axis=1)
        return sides


def _pooled(values: Mask | Floats, factor: int) -> Floats:
    """The sum in each cell of factor × factor pixels."""
    height, width = (-(-side // factor) for side in values.shape)
    padded = np.zeros((height * factor, width * factor), np.float32)
    padded[: values.shape[0], : values.shape[1]] = values
    rows = reduce(np.add, [padded[i::factor] for i in range(factor)])
    return reduce(np.add, [rows[:, i::factor] for i in range(factor)])


def _as_pixels(cells: Mask, factor: int, shape: tuple[int, ...]) -> Mask:
    """The mask of the pixels in some cells; the inverse of `_pooled`."""
    return cells.repeat(factor, axis=0).repeat(factor, axis=1)[: shape[0], : shape[1]]


def _grouped(components: _Components) -> tuple[list[int], list[int]]:
    """Components of the digit, and those of other shapes; dust is in neither.

    The digit starts as the component with the largest area · depth². Near components join it until
    none is left.
    """
    sides, boxes = components.longer_sides(), components.boxes
    area, depth = components.area, components.depth
    candidates = [i for i in range(1, components.n + 1) if not _is_frame(components, i)]
    candidates = candidates or list(range(1, components.n + 1))
    candidates.sort(key=lambda i: -area[i] * depth[i] ** 2)
    first, *rest = candidates
    digit, box = [first], boxes[first].copy()
    rest = [i for i in rest if depth[i] >= _FAINT * depth[first]]
    grown = True
    while grown:
        grown = False
        for i in list(rest):
            if area[i] < _DUST * area[first]:
                continue
            starts, ends = boxes[i][::2], boxes[i][1::2]
            if max(*(starts - box[1::2]), *(box[::2] - ends)) <= _NEAR * max(box[1::2] - box[::2]):
                rest.remove(i)
                digit.append(i)
                box[::2], box[1::2] = np.minimum(box[::2], starts), np.maximum(box[1::2], ends)
                grown = True
    largest = max(sides[i] for i in digit)
    large = (area >= _OTHER_AREA * area[first]) & (sides >= _OTHER_SIDE * largest)
    return digit, [i for i in rest if large[i]]


def _is_frame(components: _Components, i: int) -> bool:
    """Whether a component is a frame around others, or an object along the image's border."""
    if components.n == 1:
        return False
    labels = components.labels
    top, bottom, left, right = components.boxes[i]
    height, width = bottom - top, right - left
    cells = labels[top:bottom, left:right] == i
    rows, columns = labels.shape
    if min(top, left, rows - bottom, columns - right) <= 0:
        inner = labels[rows // 5 : rows - rows // 5, columns // 5 : columns - columns // 5]
        others = np.bincount(inner.ravel(), minlength=components.n + 1)
        if others[i] < 0.05 * cells.sum() and others[1:].max() > 0.02 * inner.size:
            return True
    if min(height, width) < 8:
        return False
    band = max(1, round(0.12 * min(height, width)))
    inside = cells[band:-band, band:-band].sum()
    if inside > 0.1 * cells.sum():
        return False
    within = labels[top + band : bottom - band, left + band : right - band]
    return bool(np.count_nonzero((within != 0) & (within != i)) > 0.1 * cells.sum())


def _several_shapes(components: _Components, digit: list[int], others: list[int]) -> list[Reason]:
    """`several_shapes` if the components are not the parts of one digit."""
    if others:
        return ["several_shapes"]
    boxes = components.boxes[digit]
    top, bottom = boxes[:, 0].min(), boxes[:, 1].max()
    left, right = boxes[:, 2].min(), boxes[:, 3].max()
    extents = ((0, 1, bottom - top), (2, 3, right - left))
    total = components.area[digit].sum()
    for (low, high, extent), (first, last, along) in (extents, extents[::-1]):
        # Two parts that are both long in one direction and apart in the other.
        large = [
            b
            for b, i in zip(boxes, digit, strict=True)
            if b[high] - b[low] >= _TALL * extent and components.area[i] >= 0.15 * total
        ]
        large.sort(key=lambda b: b[first])
        for one, two in pairwise(large):
            if two[first] - one[last] >= max(1, _APART * along):
                return ["several_shapes"]
    return []


def _not_digit_shaped(
    components: _Components,
    digit: list[int],
    box: tuple[int, int, int, int],
    strong: Mask,
    weak: Mask,
) -> list[Reason]:
    """`not_digit_shaped` if size, fill, stroke length or surroundings cannot be a digit's."""
    height, width = box[1] - box[0], box[3] - box[2]
    within = (slice(box[0], box[1]), slice(box[2], box[3]))
    fill = strong[within].mean()
    length = weak[within].sum() / max(_stroke_width(weak[within]), 1e-6)
    area = components.area
    scattered = components.n > _MAX_COMPONENTS + len(digit) and area.sum() > 2 * area[digit].sum()
    rows, columns = strong.shape
    # A shadow from edge to edge; a 1 is narrower, or its image is.
    band = (
        height >= 0.97 * rows and 0.16 * columns < width < 0.5 * columns and fill > _MAX_BAND_FILL
    )
    if (
        max(height, width) < _MIN_SIDE
        or band
        or width > _MAX_ASPECT * height
        or (fill > _MAX_FILL and width > 0.5 * height)
        or length > _MAX_LENGTH * max(height, width)
        or scattered
    ):
        return ["not_digit_shaped"]
    return []


def _ruled_lines(mask: Mask, values: Floats) -> Mask | None:
    """Ruled lines from edge to edge, or None if there are none or they may be strokes."""
    (across, n_across), (down, n_down) = _horizontal_lines(mask), _horizontal_lines(mask.T)
    most = max(n_across, n_down)
    if not most:
        return None
    # A stroke that crosses a line is longer across it than the line is thick, and is kept; where
    # two lines cross, they are removed.
    limit = max(2, mask.shape[0] // 48)
    lines = (across & ~opened(mask, limit, axis=0)) | (down.T & ~opened(mask, limit, axis=1))
    wide = running_extreme(mask.view(np.uint8), limit, np.minimum)
    lines |= across & down.T & ~running_extreme(wide, limit, np.maximum).view(bool)
    rest = mask & ~lines
    components = _Components.of(rest, values)
    if not lines.any() or not components.n or rest.sum() < 0.1 * lines.sum():
        return None
    cells = components.labels == components.area.argmax()
    largest = rest & _as_pixels(cells, components.factor, rest.shape)
    # A single line may be the top of a 7 that fills its image; three lines are no digit.
    strong = values > FOREGROUND
    ratio = 0.6 if most == 1 else 0.8
    thinner = _stroke_width(lines & strong) < ratio * _stroke_width(largest & strong)
    fainter = values[lines].mean() < 0.7 * values[largest].mean()
    return lines if thinner or fainter or most > 2 else None


def _horizontal_lines(mask: Mask) -> tuple[Mask, int]:
    """Foreground in lines from the left to the right border, and the number of such lines."""
    width = mask.shape[1]
    none = np.zeros_like(mask)
    margin = int(0.03 * width) + 1
    if width < 40 or not (mask[:, :margin].any() and mask[:, -margin:].any()):
        return none, 0
    thick = mask.view(np.uint8).copy()
    thick[1:] |= mask[:-1]
    thick[:-1] |= mask[1:]
    if thick.sum(axis=1, dtype=np.uint16).max() < 0.3 * width:
        return none, 0
    gap = max(1, width // 50)
    dilated = running_extreme(thick, gap, np.maximum, axis=1)
    closed = running_extreme(dilated, gap, np.minimum, axis=1)
    labels, n = mahotas.label(opened(closed.view(bool), width // 8, axis=1))
    if not n:
        return none, 0
    boxes = mahotas.labeled.bbox(labels)
    through = (boxes[:, 2] < margin) & (boxes[:, 3] > width - margin)
    through[0] = False
    return mask & through[labels], int(through.sum())


def _stroke_width(mask: Mask) -> float:
    """Mean stroke width in pixels: twice the area over the perimeter."""
    perimeter = (mask[1:] ^ mask[:-1]).sum() + (mask[:, 1:] ^ mask[:, :-1]).sum()
    return float(2 * mask.sum() / max(1, perimeter))

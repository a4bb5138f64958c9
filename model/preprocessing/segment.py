"""The ink of a digit among dust, lines and frames; and what is odd about it.

Nothing here knows of digits but their size and how much stroke they may have.
"""

from dataclasses import dataclass
from itertools import pairwise

import mahotas
import numpy as np
from numpy.typing import NDArray

from model.preprocessing.contrast import FOREGROUND, Contrast, find_contrast
from model.preprocessing.morphology import opened, running_extreme
from model.types import Reason

__all__ = ["Ink", "find_ink"]

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

_WEAK = 0.28  # contrast of what belongs to ink beside it
_REACH = 0.08  # how far from strong ink weak ink may lie, relative to the longer side
_LABEL_SIDE = 64  # shapes are told apart at this size: gaps narrower than a pixel of it are closed
_SPECK = 0.015  # ink relative to the largest shape's below which a shape is dust
_FAINT = 0.7  # depth, relative to that one's, below which a shape shows through or is a shadow's
_NEAR = 0.25  # gap relative to the digit's size within which a shape is a part of it
_OTHER, _OTHER_SIDE = 0.1, 0.3  # ink and side, relative to the digit's, that make another shape
_TALL, _APART = 0.5, 0.08  # extent and gap, relative to the digit's box, of two digits
_LEAST_SIDE = 5  # pixels of the longer side below which no digit can be made out
_WIDEST = 2.6  # width over height above which ink is a line, not a digit
_LONGEST = 5.5  # length of its strokes over its size that a digit may have
_MANY = 12  # shapes beside the digit that, with as much ink, make it one speck of many
_BAND = 0.6  # the same of what runs from edge to edge
_FULLEST = 0.75  # share of its box that a digit's ink may fill, unless it is narrow


@dataclass(frozen=True)
class Ink:
    """The ink found in a picture.

    Attributes:
        strength: (H, W) float32 from 0 to 1, 0 wherever there is no ink of the digit.
        box: Rows and columns of the digit: top, bottom, left, right, ends exclusive.
        reasons: What is odd about it.
    """

    strength: Floats
    box: tuple[int, int, int, int]
    reasons: tuple[Reason, ...]


def find_ink(grey: Floats) -> Ink | None:
    """Find a digit's ink, or None where there is no ink at all.

    Args:
        grey: (H, W), 255 levels between black and white.
    """
    contrast = find_contrast(grey)
    return None if contrast is None else _parts(contrast)


def _parts(contrast: Contrast) -> Ink | None:
    """The ink of the digit alone, and what is odd about it."""
    values = contrast.values
    weak = values > max(_WEAK, 2.5 * contrast.noise)
    strong = values > FOREGROUND
    lines = _ruled_lines(weak, values)
    if lines is not None:
        strong, weak = strong & ~lines, weak & ~lines
        soft = running_extreme(lines.view(np.uint8), 1, np.maximum).view(bool) & ~weak
        values = np.where(soft, 0, values)
    reach = max(1, round(_REACH * max(values.shape)))
    weak &= running_extreme(strong.view(np.uint8), reach, np.maximum).view(bool)
    shapes = _Shapes.of(weak, values)
    if not shapes.n:
        return None
    digit, others = _grouped(shapes)
    chosen = np.zeros(shapes.n + 1, bool)
    chosen[digit + others] = True
    cells = chosen[shapes.labels]
    box = _box(_spread(cells, shapes.factor, values.shape) & weak)
    reasons = tuple(_several(shapes, digit, others)) + tuple(_odd(shapes, digit, box, strong, weak))
    rim = running_extreme(cells.view(np.uint8), 1, np.maximum).view(bool)
    rim &= cells | (shapes.labels == 0)
    floor = np.float32(min(_WEAK, 2 * contrast.noise))
    ink = np.clip((values - floor) / (1 - floor), 0, 1)
    return Ink(ink * _spread(rim, shapes.factor, values.shape), box, reasons)


@dataclass(frozen=True)
class _Shapes:
    """Connected shapes of ink, told apart at a reduced size.

    Attributes:
        labels: (h, w) number of the shape in each cell, 0 for none.
        factor: Side of a cell in pixels.
        size: Ink pixels of each shape; entry 0 is of no shape.
        depth: Their mean contrast.
        boxes: Top, bottom, left, right of each shape in cells, ends exclusive.
    """

    labels: NDArray[np.int32]
    factor: int
    size: NDArray[np.float64]
    depth: NDArray[np.float64]
    boxes: NDArray[np.int64]

    @property
    def n(self) -> int:
        return len(self.size) - 1

    @classmethod
    def of(cls, ink: Mask, values: Floats) -> "_Shapes":
        factor = -(-max(ink.shape) // _LABEL_SIDE)
        pooled = _pooled(ink, factor)
        labels, n = mahotas.label(pooled > 0, np.ones((3, 3), bool))
        size = np.bincount(labels.ravel(), pooled.ravel(), n + 1).astype(np.float64)
        size[0] = 0.0
        total = np.bincount(labels.ravel(), _pooled(values * ink, factor).ravel(), n + 1)
        boxes = mahotas.labeled.bbox(labels).astype(np.int64) if n else np.zeros((1, 4), np.int64)
        return cls(labels, factor, size, total / np.maximum(size, 1), boxes)

    def sides(self) -> NDArray[np.int64]:
        """Height and width of each shape in cells, (n + 1, 2)."""
        return np.stack(
            [self.boxes[:, 1] - self.boxes[:, 0], self.boxes[:, 3] - self.boxes[:, 2]], axis=1
        )


def _pooled(values: Mask | Floats, factor: int) -> Floats:
    """The sum in each cell of factor × factor pixels."""
    height, width = (-(-side // factor) for side in values.shape)
    padded = np.zeros((height * factor, width * factor), np.float32)
    padded[: values.shape[0], : values.shape[1]] = values
    rows = padded[::factor].copy()
    for i in range(1, factor):
        rows += padded[i::factor]
    cells = rows[:, ::factor].copy()
    for i in range(1, factor):
        cells += rows[:, i::factor]
    return cells


def _spread(cells: Mask, factor: int, shape: tuple[int, ...]) -> Mask:
    """Cells as pixels again."""
    return cells.repeat(factor, axis=0).repeat(factor, axis=1)[: shape[0], : shape[1]]


def _box(mask: Mask) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _grouped(shapes: _Shapes) -> tuple[list[int], list[int]]:
    """The shapes of the digit, and those that are something else but no dust."""
    sides = shapes.sides().max(axis=1)
    candidates = [i for i in range(1, shapes.n + 1) if not _is_frame(shapes, i)]
    candidates = candidates or list(range(1, shapes.n + 1))
    candidates.sort(key=lambda i: -shapes.size[i] * shapes.depth[i] ** 2)
    digit, boxes = candidates[:1], shapes.boxes
    box = boxes[digit[0]].copy()
    rest = [i for i in candidates[1:] if shapes.depth[i] >= _FAINT * shapes.depth[digit[0]]]
    grown = True
    while grown:
        grown = False
        for i in list(rest):
            if shapes.size[i] < _SPECK * shapes.size[digit[0]]:
                continue
            gap = max(
                boxes[i][0] - box[1],
                box[0] - boxes[i][1],
                boxes[i][2] - box[3],
                box[2] - boxes[i][3],
            )
            if gap <= _NEAR * max(box[1] - box[0], box[3] - box[2]):
                rest.remove(i)
                digit.append(i)
                box[[0, 2]] = np.minimum(box[[0, 2]], boxes[i][[0, 2]])
                box[[1, 3]] = np.maximum(box[[1, 3]], boxes[i][[1, 3]])
                grown = True
    largest = max(sides[i] for i in digit)
    others = [
        i
        for i in rest
        if shapes.size[i] >= _OTHER * shapes.size[digit[0]] and sides[i] >= _OTHER_SIDE * largest
    ]
    return digit, others


def _is_frame(shapes: _Shapes, i: int) -> bool:
    """Whether a shape is a frame around others, or something along the picture's edge."""
    if shapes.n == 1:
        return False
    top, bottom, left, right = shapes.boxes[i]
    height, width = bottom - top, right - left
    cells = shapes.labels[top:bottom, left:right] == i
    picture = shapes.labels.shape
    if min(top, left, picture[0] - bottom, picture[1] - right) <= 0:
        inner = shapes.labels[
            picture[0] // 5 : picture[0] - picture[0] // 5,
            picture[1] // 5 : picture[1] - picture[1] // 5,
        ]
        others = np.bincount(inner.ravel(), minlength=shapes.n + 1)
        if others[i] < 0.05 * cells.sum() and others[1:].max() > 0.02 * inner.size:
            return True
    if min(height, width) < 8:
        return False
    band = max(1, round(0.12 * min(height, width)))
    inside = cells[band:-band, band:-band].sum()
    if inside > 0.1 * cells.sum():
        return False
    within = shapes.labels[top + band : bottom - band, left + band : right - band]
    return bool(np.count_nonzero((within != 0) & (within != i)) > 0.1 * cells.sum())


def _several(shapes: _Shapes, digit: list[int], others: list[int]) -> list[Reason]:
    """Whether there are shapes beside each other that are no parts of one digit."""
    if others:
        return ["several_shapes"]
    boxes = shapes.boxes[digit]
    top, bottom = boxes[:, 0].min(), boxes[:, 1].max()
    left, right = boxes[:, 2].min(), boxes[:, 3].max()
    extents = ((0, 1, bottom - top), (2, 3, right - left))
    total = shapes.size[digit].sum()
    for (low, high, extent), (first, last, along) in (extents, extents[::-1]):
        # Parts that both take up much of one direction and are apart in the other.
        large = [
            b
            for b, i in zip(boxes, digit, strict=True)
            if b[high] - b[low] >= _TALL * extent and shapes.size[i] >= 0.15 * total
        ]
        large.sort(key=lambda b: b[first])
        for one, two in pairwise(large):
            if two[first] - one[last] >= max(1, _APART * along):
                return ["several_shapes"]
    return []


def _odd(
    shapes: _Shapes, digit: list[int], box: tuple[int, int, int, int], strong: Mask, weak: Mask
) -> list[Reason]:
    """Whether the ink fills no box that a digit could fill."""
    height, width = box[1] - box[0], box[3] - box[2]
    within = (slice(box[0], box[1]), slice(box[2], box[3]))
    fill = strong[within].mean()
    length = weak[within].sum() / max(_stroke(weak[within]), 1e-6)
    scattered = shapes.n > _MANY + len(digit) and shapes.size.sum() > 2 * shapes.size[digit].sum()
    rows, columns = strong.shape
    # A band of shadow from edge to edge; a 1 is narrower, or its picture is.
    band = height >= 0.97 * rows and 0.16 * columns < width < 0.5 * columns and fill > _BAND
    if (
        max(height, width) < _LEAST_SIDE
        or band
        or width > _WIDEST * height
        or (fill > _FULLEST and width > 0.5 * height)
        or length > _LONGEST * max(height, width)
        or scattered
    ):
        return ["not_digit_shaped"]
    return []


def _ruled_lines(ink: Mask, values: Floats) -> Mask | None:
    """Ruled lines from edge to edge, or None if there are none or they may be strokes."""
    (across, n_across), (down, n_down) = _horizontal_lines(ink), _horizontal_lines(ink.T)
    most = max(n_across, n_down)
    if not most:
        return None
    # Where ink crosses a line it is higher than the line is thick; where lines cross it is not.
    limit = max(2, ink.shape[0] // 48)
    lines = (across & ~opened(ink, limit, axes=0)) | (down.T & ~opened(ink, limit, axes=1))
    wide = running_extreme(ink.view(np.uint8), limit, np.minimum)
    lines |= across & down.T & ~running_extreme(wide, limit, np.maximum).view(bool)
    rest = ink & ~lines
    shapes = _Shapes.of(rest, values)
    if not lines.any() or not shapes.n or rest.sum() < 0.1 * lines.sum():
        return None
    largest = rest & _spread(shapes.labels == shapes.size.argmax(), shapes.factor, rest.shape)
    # A single line may be the top of a 7 that fills its picture; three are no digit's.
    dark = values > FOREGROUND
    thinner = _stroke(lines & dark) < (0.6, 0.8)[min(most, 2) - 1] * _stroke(largest & dark)
    fainter = values[lines].mean() < 0.7 * values[largest].mean()
    return lines if thinner or fainter or most > 2 else None


def _horizontal_lines(mask: Mask) -> tuple[Mask, int]:
    """Ink within lines from the left to the right edge, and how many such lines there are."""
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
    thick = running_extreme(
        running_extreme(thick, gap, np.maximum, axes=1), gap, np.minimum, axes=1
    )
    run = opened(thick.view(bool), width // 8, axes=1)
    labels, n = mahotas.label(run)
    if not n:
        return none, 0
    boxes = mahotas.labeled.bbox(labels)
    through = (boxes[:, 2] < margin) & (boxes[:, 3] > width - margin)
    through[0] = False
    return mask & through[labels], int(through.sum())


def _stroke(mask: Mask) -> float:
    """Mean width of the strokes in pixels: twice their area over their outline."""
    outline = (mask[1:] ^ mask[:-1]).sum() + (mask[:, 1:] ^ mask[:, :-1]).sum()
    return float(2 * mask.sum() / max(1, outline))

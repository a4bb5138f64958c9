"""Telling ink from paper in a picture of any kind: photograph, scan, drawing, export.

Three questions in turn. *Colour*: along which axis of the colours does the ink stand out? *Light*:
how bright would the paper be at each pixel if nothing were written there? *Ink*: is it darker or
lighter than the paper, and by how much?
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, reduce

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from model.preprocessing.morphology import mean_around, running_extreme

__all__ = ["INK", "Contrast", "colour_axis", "find_contrast"]

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

INK = 0.5
"""Contrast from which a pixel is ink: halfway between paper and ink."""

_LEAST_CONTRAST = 20.0  # grey levels between paper and ink below which there is no ink
_LEAST_SHARE = 0.12  # and relative to the range of the whole picture
_LEAST_SIGNAL = 4.0  # and in standard deviations of the paper's noise
_CLEAN = 0.12  # noise relative to the ink above which the picture is smoothed
_STROKES = (1 / 6, 1 / 14, 1 / 30)  # half of the widest stroke looked for, of the longer side
_SHARP = 0.7  # steepness of the ink's edges above which nothing narrower is looked for
_SHARP_DRAWING = 0.15  # the same on a ground of one colour
_BETTER = 1.2  # and by how much a score must be better to prefer narrower strokes or fainter ink
_MUCH = 1.4  # how much more ink there must be at half the depth to look for fainter ink
_REDUCTION = 48  # pixels of the longer side up to which a picture is taken for a reduction
_UNEVEN = 10.0  # median distance in grey levels from a surface that is no light on paper
_ROOM = 0.2  # paper that is added where ink touches the edge, of the longer side
_CROWDED = 0.3  # share of the picture that ink may cover without more paper around it
_EVEN = 6.0  # grey levels by which most of the paper of a drawing or an even scan may vary


@dataclass(frozen=True)
class Contrast:
    """How much ink each pixel holds: (H, W), 0 for paper, about 1 for ink.

    Attributes:
        values: The contrast of each pixel.
        noise: Standard deviation of the paper's.
        sharpness: How steep the picture is along the outline of the ink.
        score: How much steep outline there is.
    """

    values: Floats
    noise: float
    sharpness: float
    score: float


def colour_axis(picture: NDArray[np.uint8]) -> Floats:
    """The combination of red, green and blue along which fine detail varies most.

    Black ink on white paper gives about the mean of the three, yellow ink on white paper blue.

    Args:
        picture: (H, W, 3), small: some thousand pixels are enough.

    Returns:
        Three weights whose magnitudes sum to 1.
    """
    smooth = Image.fromarray(picture).filter(ImageFilter.BoxBlur(max(picture.shape) // 6))
    detail = (picture.astype(np.float32) - np.asarray(smooth, np.float32)).reshape(-1, 3)
    _, vectors = np.linalg.eigh(detail.T @ detail)
    axis: Floats = vectors[:, -1].astype(np.float32)
    axis = axis / np.abs(axis).sum()
    return axis if axis.sum() >= 0 else -axis


def find_contrast(grey: Floats) -> Contrast | None:
    """Tell ink from paper; None where nothing stands out from the paper.

    Args:
        grey: (H, W), 255 levels between black and white, of at most some hundred pixels a side.
    """
    height, width = grey.shape
    paper = _paper_at_border(grey)
    room = 0
    if paper is not None and paper.crowded:
        # Ink that fills the picture gets paper around it, as if the picture were larger.
        room = max(1, round(_ROOM * max(height, width)))
        grey = np.pad(grey, room, constant_values=paper.level)
    best: Contrast | None = None
    for last in (False, False, True):
        best = _best(grey, paper)
        if best is None or last or best.noise < _CLEAN:
            break
        grey = mean_around(grey, 1)
    if best is None or not room:
        return best
    return replace(best, values=best.values[room : room + height, room : room + width])


def _best(grey: Floats, paper: "_Paper | None") -> Contrast | None:
    """The widest strokes, and the darkest ink, that explain the picture about as well as any."""
    surface = _surface(grey)
    dark = _is_dark(grey, surface, paper)
    # A drawing or a reduction has no shadows, and its strokes may be of any width.
    even = max(grey.shape) <= _REDUCTION or paper is not None
    best: Contrast | None = None
    for stroke in (None, *_STROKES) if even else _STROKES:
        for found in _at_scale(grey, surface, stroke, dark=dark):
            if best is None or found.score > _BETTER * best.score:
                best = found
        if best is not None and best.sharpness > (_SHARP if stroke else _SHARP_DRAWING):
            break
    return best


@dataclass(frozen=True)
class _Paper:
    """What most of the border shows, if that is one sheet of paper.

    Attributes:
        level: Its grey.
        tolerance: What departs further is ink.
        crowded: Whether ink touches the border, or leaves little else.
    """

    level: float
    tolerance: float
    crowded: bool


def _paper_at_border(grey: Floats) -> _Paper | None:
    """The even paper along the picture's edge; None where light, shadow or other things are on it.

    Ink touches an edge in short runs. What covers nearly a side, or much of two sides around a
    corner, is no ink.
    """
    height, width = grey.shape
    ring = np.concatenate(
        [grey[0], grey[1:-1, -1], grey[-1, ::-1] if height > 1 else [], grey[-2:0:-1, 0]]
    ).astype(np.float32)
    tolerance = max(10.0, 0.2 * float(grey.max() - grey.min()))
    bins = ((ring - ring.min()) / 16).astype(np.intp)
    level = _median(ring[bins == np.bincount(bins).argmax()])
    off = np.abs(ring - level) > tolerance
    on = ring[~off]
    if on.size < 0.5 * ring.size:
        return None
    if off.any():
        around = np.roll(off, -int(np.flatnonzero(~off)[0]))
        edges = np.flatnonzero(np.diff(around.astype(np.int8), prepend=0, append=0))
        if (edges[1::2] - edges[::2]).max() > 0.9 * max(height, width):
            return None
        for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
            row, column = (grey[y], grey[:, x])
            arms = (
                _run(np.abs(line if start == 0 else line[::-1]) > tolerance) / line.size
                for line, start in ((row - level, x), (column - level, y))
            )
            if min(arms) > 0.22:
                return None
    if np.count_nonzero(np.abs(on - level) <= _EVEN) < 0.7 * on.size:
        return None  # light falls unevenly on it
    inked = np.count_nonzero(np.abs(grey - level) > tolerance)
    crowded = bool(off.any()) or bool(inked > _CROWDED * grey.size)
    return _Paper(level, tolerance, crowded)


def _run(mask: Mask) -> int:
    """How many of the first values are true in a row."""
    return int(mask.size if mask.all() else mask.argmin())


def _at_scale(
    grey: Floats, surface: Floats, stroke: float | None, *, dark: bool
) -> Iterator[Contrast]:
    """The contrast if no stroke is wider than twice `stroke` of the longer side, or any may be.

    First as if the darkest were the ink, then, if there is much that is half as dark, as if that
    were, and the darkest were dust or lines.
    """
    paper = (
        surface if stroke is None else _paper_under_ink(grey - surface, stroke, dark=dark) + surface
    )
    # What dark ink takes away is a share of the light that falls on it.
    share = 255 / np.maximum(paper, 64) if dark else np.ones((1, 1), np.float32)
    depth, light = ((paper - grey) * share, grey * share) if dark else (grey - paper, grey)
    n = depth.size
    places = (int(0.16 * n), n // 2, n - 1 - min(n - 1, max(3, n // 3000)))
    low, middle, top = (float(value) for value in np.partition(depth, places, axis=None)[[*places]])
    deep = depth >= (middle + top) / 2
    inked = depth[deep]
    level = float(np.partition(inked, int(0.6 * inked.size))[int(0.6 * inked.size)]) - middle
    noise = middle - low
    # Beside the edge of a shadow, what is much fainter than the shadow is left of it.
    least = 0.0
    if stroke:
        shares = np.broadcast_to(share, depth.shape)[deep]
        least = _LEAST_SHARE * float((grey.max() - grey.min()) * shares.mean())
    half, quarter = (np.count_nonzero(depth > middle + level / f) for f in (2, 4))
    for part in (1.0, 0.5) if quarter > _MUCH * half else (1.0,):
        if part * level >= max(_LEAST_CONTRAST, _LEAST_SIGNAL * noise, least):
            values = (depth - np.float32(middle)) / np.float32(part * level)
            sharpness, score = _edges(values > INK, light, part * level)
            yield Contrast(values, noise / (part * level), sharpness, score)


def _edges(ink: Mask, light: Floats, level: float) -> tuple[float, float]:
    """How steep the picture is where ink ends, relative to the ink's contrast; and a score.

    The steepness is near 1 for ink with paper around it, near 0 where a shadow was taken for ink or
    the inside of a wide stroke for paper. The score is larger the more steep outline is found.
    """
    steps = []
    for mask, values in ((ink, light), (ink.T, light.T)):
        row, column = np.nonzero(mask[3:-2] ^ mask[2:-3])
        reaches = (
            np.abs(values[row + 3 + i, column] - values[row + 2 - i, column]) for i in range(3)
        )
        step = reduce(np.maximum, reaches)
        steps.append(np.minimum(step / np.float32(level), 1))
    every = np.concatenate(steps)
    sharpness = float(every.mean()) if every.size else 0.0
    return sharpness, sharpness * float(every.sum()) * level


def _surface(grey: Floats) -> Floats:
    """The light on the paper as a quadratic surface, fitted to what most of the picture follows."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if border.min() == border.max():
        return np.full((1, 1), border[0], np.float32)
    height, width = grey.shape
    small = _resized(grey, 16)
    basis, values = _basis(*small.shape), small.ravel()
    # The border is mostly paper; a plane through its middle is where the fit begins.
    residual = values - np.float32(_median(border))
    coefficients = np.zeros(6, np.float32)
    for n_terms in (3, 6, 6):
        scale = max(2.0, 2 * _median(np.abs(residual)))
        weight = 1 / (1 + (residual / scale) ** 2) ** 2
        used = basis[:, :n_terms]
        weighted = used.T * weight
        normal = weighted @ used + 1e-3 * np.eye(n_terms, dtype=np.float32)
        coefficients = np.linalg.solve(normal, weighted @ values)
        residual = values - used @ coefficients
    if _median(np.abs(residual)) > _UNEVEN:  # no smooth light: the edge of a shadow
        return np.full((1, 1), _median(border), np.float32)
    y, x = _axes(height, width)
    c = coefficients.astype(np.float32)
    result: Floats = (c[0] + c[1] * y + c[3] * y * y)[:, None] + (c[2] * x + c[4] * x * x)[None]
    result += c[5] * y[:, None] * x[None]
    return result


def _median(values: Floats) -> float:
    """The upper median; NumPy's own takes several times as long for some hundred values."""
    middle = values.size // 2
    return float(np.partition(values, middle)[middle])


def _resized(grey: Floats, side: int) -> Floats:
    """Reduced by averaging to at most `side` pixels either way."""
    height, width = grey.shape
    size = (min(side, width), min(side, height))
    if size == (width, height):
        return grey
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX))


def _axes(height: int, width: int) -> tuple[Floats, Floats]:
    return (
        np.linspace(-1, 1, height, dtype=np.float32) if height > 1 else np.zeros(1, np.float32),
        np.linspace(-1, 1, width, dtype=np.float32) if width > 1 else np.zeros(1, np.float32),
    )


@lru_cache(maxsize=64)
def _basis(height: int, width: int) -> Floats:
    y, x = _axes(height, width)
    yy, xx = (part.ravel() for part in np.meshgrid(y, x, indexing="ij"))
    return np.stack([np.ones_like(yy), yy, xx, yy * yy, xx * xx, yy * xx], axis=1)


def _is_dark(grey: Floats, surface: Floats, paper: _Paper | None) -> bool:
    """Whether the ink is darker than the paper.

    Where the border is one sheet of paper, by what departs from that. Elsewhere by the skewness of
    the picture's detail: strokes take up little of their surroundings and differ much from their
    mean; paper takes up most and differs little. In a photograph that is so within a shadow, too,
    if grey values are compared by their ratios.
    """
    small = _resized(grey, 48)
    if paper is not None:
        beyond = small - np.float32(paper.level)
        beyond[np.abs(beyond) <= paper.tolerance] = 0
        if beyond.any():
            return float((beyond * np.abs(beyond)).sum()) <= 0
    flat = small - (surface if surface.size == 1 else _resized(surface, 48))
    beyond = (flat * np.abs(flat)).sum() / max(float((flat * flat).sum()), 1e-6)
    if max(grey.shape) <= _REDUCTION:
        return _skew(small, 0.2) + 0.3 * float(beyond) <= 0
    ratios = np.log(np.maximum(small, 0) + 40)
    return _skew(ratios, 0.2) + _skew(ratios, 0.12) + 0.15 * float(beyond) <= 0


def _skew(values: Floats, reach: float) -> float:
    """How one-sidedly values differ from their surroundings, from -1 (lower) to 1 (higher)."""
    detail = values - mean_around(values, max(2, int(max(values.shape) * reach)))
    weight = detail * detail
    return float((weight * detail).sum() / max(float((weight * np.abs(detail)).sum()), 1e-6))


def _paper_under_ink(flat: Floats, stroke: float, *, dark: bool) -> Floats:
    """The paper under the ink: what strokes of twice `stroke` of the longer side cannot hide.

    A morphological closing (opening for light ink), which follows the edge of a shadow exactly.
    """
    radius = max(2, round(max(flat.shape) * stroke))
    low, high = float(flat.min()), float(flat.max())
    step = max(high - low, 1e-3) / 255
    levels = ((flat - low) / step + 0.5).astype(np.uint8)
    first, second = (np.maximum, np.minimum) if dark else (np.minimum, np.maximum)
    # Squares may stand half outside of the picture, or its corners would be taken for ink.
    padded = np.pad(levels, radius, mode="edge")
    closed = running_extreme(running_extreme(padded, radius, first), radius, second)
    if min(levels.shape) > 48:
        # Smoothed, or noise would lift the paper; but never off what is there without.
        smooth = np.asarray(Image.fromarray(padded).filter(ImageFilter.BoxBlur(1)))
        smooth = running_extreme(running_extreme(smooth, radius, first), radius, second)
        closed = second(closed, smooth)
    closed = closed[radius:-radius, radius:-radius]
    result: Floats = closed.astype(np.float32) * np.float32(step) + np.float32(low)
    return result

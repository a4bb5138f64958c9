"""Foreground contrast: separate strokes from the background in photographs, scans and drawings.

Three steps. *Colour*: project RGB on the axis of largest local variance. *Background illumination*:
estimate how bright each pixel would be without a stroke, by a quadratic surface and a morphological
closing. *Polarity and scale*: decide whether strokes are darker or lighter than the background, and
divide their difference from it by its typical value.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, reduce

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from model.preprocessing.morphology import mean_around, running_extreme

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

FOREGROUND = 0.5
"""Contrast threshold of foreground pixels: halfway between background and stroke."""

# Smallest contrast of a foreground: in grey levels, of the image's range, and in noise levels.
_MIN_CONTRAST = 20.0
_MIN_RANGE_SHARE = 0.12
_MIN_SIGNAL_TO_NOISE = 4.0
_MAX_NOISE = 0.12  # noise relative to the contrast above which the image is smoothed
_HALF_WIDTHS = (1 / 6, 1 / 14, 1 / 30)  # largest half stroke widths tried, of the longer side
_SHARP = 0.7  # edge sharpness above which no narrower strokes are tried
_SHARP_UNIFORM = 0.15  # the same on a uniform background
_BETTER = 1.2  # factor by which a score must be better to prefer narrower or fainter strokes
_FAINTER = 1.4  # factor of pixels at a quarter of the depth from which fainter strokes are tried
_THUMBNAIL = 48  # longer side in pixels up to which an image is treated as a thumbnail
_UNEVEN = 10.0  # median residual in grey levels above which the surface is rejected
_PADDING = 0.2  # background added if the foreground touches the border, of the longer side
_CROWDED = 0.3  # share of foreground pixels above which background is added
_UNIFORM = 6.0  # deviation in grey levels of most pixels of a uniform border


@dataclass(frozen=True)
class Contrast:
    """Foreground contrast of an image."""

    values: Floats  # (H, W), 0 for background, about 1 for strokes
    noise: float  # standard deviation of the background's values
    sharpness: float  # mean edge steepness along the foreground's outline, from 0 to 1
    score: float  # sharpness times total edge steepness in grey levels; larger is better


def colour_axis(image: NDArray[np.uint8]) -> Floats:
    """First principal axis of the image's local detail in RGB.

    Black on white gives about the mean of the channels, yellow on white gives blue.

    Args:
        image: (H, W, 3); some thousand pixels are enough.

    Returns:
        Three weights whose magnitudes sum to 1.
    """
    smooth = Image.fromarray(image).filter(ImageFilter.BoxBlur(max(image.shape) // 6))
    detail = (image.astype(np.float32) - np.asarray(smooth, np.float32)).reshape(-1, 3)
    _, vectors = np.linalg.eigh(detail.T @ detail)
    axis: Floats = vectors[:, -1].astype(np.float32)
    axis = axis / np.abs(axis).sum()
    return axis if axis.sum() >= 0 else -axis


def find_contrast(grey: Floats) -> Contrast | None:
    """Foreground contrast, or None if nothing stands out from the background.

    Args:
        grey: (H, W), from 0 (black) to 255 (white), at most some hundred pixels a side.
    """
    height, width = grey.shape
    border = _uniform_border(grey)
    pad = 0
    if border is not None and border.crowded:
        pad = max(1, round(_PADDING * max(height, width)))
        grey = np.pad(grey, pad, constant_values=border.level)
    best = _best(grey, border)
    for _ in range(2):
        if best is not None and best.noise >= _MAX_NOISE:
            grey = mean_around(grey, 1)
            best = _best(grey, border)
    if best is None or not pad:
        return best
    return replace(best, values=best.values[pad : pad + height, pad : pad + width])


def _best(grey: Floats, border: "_Border | None") -> Contrast | None:
    """The contrast with the best score; wide and dark strokes are preferred."""
    surface = _surface(grey)
    dark = _is_dark(grey, surface, border)
    # A uniform background or a thumbnail has no shadows: strokes may have any width.
    any_width = max(grey.shape) <= _THUMBNAIL or border is not None
    best: Contrast | None = None
    for half_width in (None, *_HALF_WIDTHS) if any_width else _HALF_WIDTHS:
        for found in _at_scale(grey, surface, half_width, dark=dark):
            if best is None or found.score > _BETTER * best.score:
                best = found
        if best is not None and best.sharpness > (_SHARP if half_width else _SHARP_UNIFORM):
            break
    return best


@dataclass(frozen=True)
class _Border:
    """The uniform background along the image's border."""

    level: float  # its grey level
    tolerance: float  # deviation in grey levels above which a pixel is foreground
    crowded: bool  # whether the foreground touches the border or covers much of the image


def _uniform_border(grey: Floats) -> _Border | None:
    """The uniform background along the border; None with uneven light, shadows or other objects.

    Strokes touch the border in short runs. An object covers nearly a side, or much of two sides
    around a corner.
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
        for corner in (grey, grey[:, ::-1], grey[::-1], grey[::-1, ::-1]):
            lines = (corner[0], corner[:, 0])
            arms = (_run(np.abs(line - level) > tolerance) / line.size for line in lines)
            if min(arms) > 0.22:
                return None
    if np.count_nonzero(np.abs(on - level) <= _UNIFORM) < 0.7 * on.size:
        return None  # uneven light
    foreground = np.count_nonzero(np.abs(grey - level) > tolerance)
    crowded = bool(off.any()) or bool(foreground > _CROWDED * grey.size)
    return _Border(level, tolerance, crowded)


def _run(mask: Mask) -> int:
    """Length of the run of true values at the start."""
    return int(mask.size if mask.all() else mask.argmin())


def _at_scale(
    grey: Floats, surface: Floats, half_width: float | None, *, dark: bool
) -> Iterator[Contrast]:
    """The contrast for strokes of at most twice `half_width` of the longer side; any if None.

    First for the darkest pixels as strokes. If many more pixels are a quarter as dark, then also
    for half the depth: the darkest may be dust or lines.
    """
    background = surface
    if half_width is not None:
        background = _closed(grey - surface, half_width, dark=dark) + surface
    # Dark strokes absorb a share of the light that falls on them.
    share = 255 / np.maximum(background, 64) if dark else np.ones((1, 1), np.float32)
    depth = (background - grey) * share if dark else grey - background
    light = np.asarray(grey * share, np.float32)
    n = depth.size
    places = (int(0.16 * n), n // 2, n - 1 - min(n - 1, max(3, n // 3000)))
    low, middle, top = (float(value) for value in np.partition(depth, places, axis=None)[[*places]])
    deep = depth >= (middle + top) / 2
    strokes = depth[deep]
    level = float(np.partition(strokes, int(0.6 * strokes.size))[int(0.6 * strokes.size)]) - middle
    noise = middle - low
    # Beside the edge of a shadow, anything much fainter than the shadow is a remainder of it.
    least = 0.0
    if half_width:
        shares = np.broadcast_to(share, depth.shape)[deep]
        least = _MIN_RANGE_SHARE * float((grey.max() - grey.min()) * shares.mean())
    half, quarter = (np.count_nonzero(depth > middle + level / f) for f in (2, 4))
    for part in (1.0, 0.5) if quarter > _FAINTER * half else (1.0,):
        if part * level >= max(_MIN_CONTRAST, _MIN_SIGNAL_TO_NOISE * noise, least):
            values = (depth - np.float32(middle)) / np.float32(part * level)
            sharpness, score = _edges(values > FOREGROUND, light, part * level)
            yield Contrast(values, noise / (part * level), sharpness, score)


def _edges(foreground: Mask, light: Floats, level: float) -> tuple[float, float]:
    """Mean edge steepness along the foreground's outline, and the score of `Contrast`.

    Steepness is relative to the foreground's contrast `level`. It is near 1 for strokes, and near 0
    if a shadow was taken for a stroke or the inside of a wide stroke for background.
    """
    steps = []
    for mask, values in ((foreground, light), (foreground.T, light.T)):
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
    """Background illumination: a quadratic surface, fitted by iteratively reweighted least squares.

    Returns:
        (H, W), or (1, 1) if the background is uniform or no smooth surface fits.
    """
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if border.min() == border.max():
        return np.full((1, 1), border[0], np.float32)
    height, width = grey.shape
    small = _resized(grey, 16)
    basis, values = _basis(*small.shape), small.ravel()
    # Start from the border's median, fit a plane, then the quadratic surface twice.
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
    if _median(np.abs(residual)) > _UNEVEN:  # the edge of a shadow
        return np.full((1, 1), _median(border), np.float32)
    y, x = _axis(height), _axis(width)
    c = coefficients.astype(np.float32)
    result: Floats = (c[0] + c[1] * y + c[3] * y * y)[:, None] + (c[2] * x + c[4] * x * x)[None]
    result += c[5] * y[:, None] * x[None]
    return result


def _median(values: Floats) -> float:
    """The upper median; several times faster than NumPy's for some hundred values."""
    middle = values.size // 2
    return float(np.partition(values, middle)[middle])


def _resized(grey: Floats, side: int) -> Floats:
    """Reduced by averaging to at most `side` pixels a side."""
    height, width = grey.shape
    size = (min(side, width), min(side, height))
    if size == (width, height):
        return grey
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX))


def _axis(n: int) -> Floats:
    """Coordinates of `n` pixels from -1 to 1."""
    return np.linspace(-1, 1, n, dtype=np.float32) if n > 1 else np.zeros(1, np.float32)


@lru_cache(maxsize=64)
def _basis(height: int, width: int) -> Floats:
    """Monomials up to degree 2 at each pixel: 1, y, x, y², x², yx; (H · W, 6)."""
    yy, xx = (a.ravel() for a in np.meshgrid(_axis(height), _axis(width), indexing="ij"))
    return np.stack([np.ones_like(yy), yy, xx, yy * yy, xx * xx, yy * xx], axis=1)


def _is_dark(grey: Floats, surface: Floats, border: _Border | None) -> bool:
    """Whether strokes are darker than the background.

    With a uniform border, decided by the sign of the deviations from it. Otherwise by the skewness
    of local detail: strokes cover little of their surroundings and differ much from the local mean.
    In a photograph, logarithms make this hold within shadows, too.
    """
    small = _resized(grey, 48)
    if border is not None:
        beyond = small - np.float32(border.level)
        beyond[np.abs(beyond) <= border.tolerance] = 0
        if beyond.any():
            return float((beyond * np.abs(beyond)).sum()) <= 0
    flat = small - (surface if surface.size == 1 else _resized(surface, 48))
    beyond = (flat * np.abs(flat)).sum() / max(float((flat * flat).sum()), 1e-6)
    if max(grey.shape) <= _THUMBNAIL:
        return _skew(small, 0.2) + 0.3 * float(beyond) <= 0
    ratios = np.log(np.maximum(small, 0) + 40)
    return _skew(ratios, 0.2) + _skew(ratios, 0.12) + 0.15 * float(beyond) <= 0


def _skew(values: Floats, reach: float) -> float:
    """Skewness of the deviations from the local mean, from -1 (dark strokes) to 1 (light)."""
    detail = values - mean_around(values, max(2, int(max(values.shape) * reach)))
    weight = detail * detail
    return float((weight * detail).sum() / max(float((weight * np.abs(detail)).sum()), 1e-6))


def _closed(flat: Floats, half_width: float, *, dark: bool) -> Floats:
    """The background under the strokes: a morphological closing (opening for light strokes).

    It removes strokes of up to twice `half_width` of the longer side, and follows the edges of
    shadows exactly.
    """
    radius = max(2, round(max(flat.shape) * half_width))
    low, high = float(flat.min()), float(flat.max())
    step = max(high - low, 1e-3) / 255
    levels = ((flat - low) / step + 0.5).astype(np.uint8)
    first, second = (np.maximum, np.minimum) if dark else (np.minimum, np.maximum)
    # Padded, or the corners of the image would be taken for strokes.
    padded = np.pad(levels, radius, mode="edge")
    closed = running_extreme(running_extreme(padded, radius, first), radius, second)
    if min(levels.shape) > 48:
        # Smoothed, or noise would bias the background; limited by the unsmoothed closing.
        smooth = np.asarray(Image.fromarray(padded).filter(ImageFilter.BoxBlur(1)))
        smooth = running_extreme(running_extreme(smooth, radius, first), radius, second)
        closed = second(closed, smooth)
    closed = closed[radius:-radius, radius:-radius]
    result: Floats = closed.astype(np.float32) * np.float32(step) + np.float32(low)
    return result

"""Synthetic outliers: images that are not digits, for outlier exposure.

A network with the outcome "not a digit" (`ModelConfig.not_a_digit`) is fitted to tell them from
digits. They are random strokes, scribbles, shapes and textures, and digits that are mirrored,
rotated, cut, mixed or crossed out. They contain no letters, no fonts and no existing images.

Source: Hendrycks, Mazeika and Dietterich (2019), "Deep Anomaly Detection with Outlier Exposure".
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter

from model.preprocessing.normalize import DigitImage, open_array
from training.data.parallel import parallel_map, stream
from training.data.preprocess import Inputs
from training.distributed import SINGLE_PROCESS, World

_Pixels = NDArray[np.uint8]
_Labels = NDArray[np.int64]
_Points = NDArray[np.float64]

_CHUNK = 250  # outliers that take their pieces from the same digits
_MAX_CORRELATION = 0.89  # an outlier that correlates more with a digit may be one
_N_COMPARED = 20_000  # digits that each outlier is compared with
_SERIF = 0.6  # probability of a serif at a stroke's end
_SIDE = 96  # side in pixels of the sheet for strokes and shapes
_MIDDLE = _SIDE / 2


def outlier_inputs(
    digits: _Pixels,
    labels: _Labels,
    n: int,
    *,
    seed: int,
    processes: int = 1,
    name: str = "images",
    world: World = SINGLE_PROCESS,
) -> Inputs:
    """Draw `n` outliers, of all families in turn, preprocess them, and drop the unusable ones.

    About three in ten are dropped: blank ones, and those that happen to resemble one of the digits,
    as a single bar resembles a 1.

    Args:
        digits: Digits (N, 28, 28) to take pieces from and to compare with.
        labels: Their classes (N,).
        n: How many to draw.
        seed: Seed of everything; nothing else decides the result.
        processes: How many worker processes to use.
        name: Name of the digits on the progress bar.
        world: The processes that share the work; each gets all results.
    """
    tasks = []
    for start in range(0, n, _CHUNK):
        pieces = stream(seed, n + start).integers(len(digits), size=2 * _CHUNK)
        chosen = (digits[pieces], labels[pieces])
        tasks += [(*chosen, seed, i) for i in range(start, min(start + _CHUNK, n))]
    title = f"drawing outliers for {name}"
    inputs = Inputs.of(parallel_map(_draw_one, tasks, title, processes=processes, world=world))
    kept = _max_correlation(inputs.pixels, digits[:_N_COMPARED]) < _MAX_CORRELATION
    kept &= inputs.pixels.any(axis=(1, 2))
    return Inputs(inputs.pixels[kept], inputs.flagged[kept])


def draw_outlier(
    family: str, digits: _Pixels, labels: _Labels, rng: np.random.Generator
) -> _Pixels:
    """Draw one image that is not a digit.

    Args:
        family: One of `FAMILIES`.
        digits: Digits (N, 28, 28) to take pieces from, their background 0.
        labels: Their classes (N,), 0 to 9.
        rng: Source of all randomness.

    Returns:
        uint8 (H, W), its background 0, with sides of 28 to 96 pixels.

    Raises:
        ValueError: If the family is unknown.
    """
    if family in _DRAWN:
        return _DRAWN[family](rng)
    if family in _MIXED:
        return _MIXED[family](digits, labels, rng)
    raise ValueError(f"unknown family {family!r}; known are {', '.join(FAMILIES)}")


def _draw_one(task: tuple[_Pixels, _Labels, int, int]) -> DigitImage:
    digits, labels, seed, i = task
    family = FAMILIES[i % len(FAMILIES)]
    return open_array(draw_outlier(family, digits, labels, stream(seed, i)))


def _max_correlation(images: _Pixels, digits: _Pixels) -> NDArray[np.float32]:
    """Correlation of each blurred image with the digit that it resembles most (N,)."""
    known = _blurred(digits).T
    parts = [
        (_blurred(images[start : start + _CHUNK]) @ known).max(axis=1)
        for start in range(0, len(images), _CHUNK)
    ]
    return np.concatenate(parts)


def _blurred(images: _Pixels) -> NDArray[np.float32]:
    """Images at half their size as vectors (N, 196) of mean 0 and length 1."""
    soft = gaussian_filter(images.astype(np.float32), (0, 1, 1))
    small = soft.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(len(images), -1)
    small -= small.mean(axis=1, keepdims=True)
    length = np.linalg.norm(small, axis=1, keepdims=True)
    result: NDArray[np.float32] = small / np.maximum(length, 1e-6)
    return result


def _glyph(rng: np.random.Generator) -> _Pixels:
    """A letter of an invented alphabet: bars and arcs between the points of a grid."""
    columns, rows = int(rng.integers(2, 4)), int(rng.integers(2, 5))
    width, height = rng.uniform(26, 70), rng.uniform(50, 76)
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, columns), np.linspace(-0.5, 0.5, rows))
    nodes = np.stack([x * width, y * height], axis=-1).reshape(-1, 2)
    nodes += rng.normal(0, rng.choice([0.5, 3.0]), nodes.shape)
    pen = float(rng.uniform(3, 17))
    serif = rng.random() < 0.35
    strokes, here = [], int(rng.integers(len(nodes)))
    for _ in range(int(rng.integers(3, 8))):
        distance = np.linalg.norm(nodes - nodes[here], axis=1) + rng.exponential(15, len(nodes))
        near = np.argsort(distance)
        there = int(near[near != here][0])
        start, end = nodes[here], nodes[there]
        if rng.random() < 0.35:
            bulge = rng.choice([-1, 1]) * rng.uniform(0.3, 0.7)
            strokes.append(_bow(start, end, bulge))
        else:
            strokes.append(np.stack([start, end]))
        here = there if rng.random() < 0.75 else int(rng.integers(len(nodes)))
    if serif:
        bar = np.array([[-1, 0], [1, 0]]) * (rng.uniform(0.8, 1.8) * pen)
        tips = [tip for stroke in strokes for tip in (stroke[0], stroke[-1])]
        strokes += [tip + bar for tip in tips if rng.random() < _SERIF]
    contrast, round_pen = rng.choice([0.0, 0.5]), rng.random() < 0.5
    return _draw_strokes(strokes, pen, rng, contrast=contrast, round_pen=round_pen)


def _script(rng: np.random.Generator) -> _Pixels:
    """Several curved strokes of a pen or a brush, side by side or crossing."""
    pen = float(rng.uniform(2.5, 12))
    strokes = []
    for _ in range(int(rng.integers(2, 7))):
        centre = rng.uniform(-26, 26, 2)
        direction = rng.uniform(0, 2 * math.pi)
        length = rng.uniform(14, 70)
        along = np.array([math.cos(direction), math.sin(direction)])
        knots = [centre + along * length * (t - 0.5) for t in (0, 1 / 3, 2 / 3, 1)]
        strokes.append(_spline(np.array(knots) + rng.normal(0, rng.uniform(1, 16), (4, 2))))
    return _draw_strokes(strokes, pen, rng, contrast=float(rng.uniform(0, 0.7)))


def _stroke(rng: np.random.Generator) -> _Pixels:
    """One or two long smooth strokes with bends and loops."""
    strokes = []
    for _ in range(int(rng.integers(1, 3))):
        knots = np.cumsum(rng.normal(0, 26, (int(rng.integers(3, 7)), 2)), axis=0)
        knots -= (knots.max(axis=0) + knots.min(axis=0)) / 2
        knots *= rng.uniform(24, 38) / max(float(np.abs(knots).max()), 1.0)
        strokes.append(_spline(knots + rng.uniform(-8, 8, 2)))
    return _draw_strokes(strokes, rng.uniform(3, 13), rng, contrast=rng.uniform(0, 0.6))


def _scribble(rng: np.random.Generator) -> _Pixels:
    """One long line: random, a zigzag or a spiral."""
    n = int(rng.integers(6, 16))
    which = rng.random()
    if which < 0.5:
        knots = rng.uniform(-36, 36, (n, 2))
    elif which < 0.75:
        across = np.where(np.arange(n) % 2, 1, -1) * rng.uniform(12, 36)
        knots = np.stack([across, np.linspace(-34, 34, n)], axis=1) + rng.normal(0, 4, (n, 2))
        knots = knots @ _rotation(rng.uniform(0, 2 * math.pi))
    else:
        turns = rng.uniform(1.6, 4) * 2 * math.pi
        t = np.linspace(0, 1, 8 * n)
        radius = 6 + 30 * t
        knots = np.stack([radius * np.cos(turns * t), radius * np.sin(turns * t)], axis=1)
    line = _spline(knots) if rng.random() < 0.6 else knots
    return _draw_strokes([line], float(rng.uniform(2, 8)), rng)


def _polygon(rng: np.random.Generator) -> _Pixels:
    """One to four polygons, filled or outlined."""
    sheet = Image.new("L", (_SIDE, _SIDE), 0)
    pen = ImageDraw.Draw(sheet)
    symmetric = rng.random() < 0.4
    for _ in range(int(rng.integers(1, 5))):
        n = int(rng.integers(3, 11))
        angle = np.sort(rng.uniform(0, 2 * math.pi, n))
        radius = rng.uniform(10, 44, n) if rng.random() < 0.6 else np.full(n, rng.uniform(12, 42))
        size = np.exp(rng.normal(0, 0.35, 2))
        points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None] * size
        points = points @ _rotation(rng.uniform(0, 2 * math.pi)) + rng.uniform(-16, 16, 2) + _MIDDLE
        corners = [tuple(point) for point in points]
        light = int(rng.integers(70, 256))
        if rng.random() < 0.3:
            pen.line([*corners, corners[0]], fill=light, width=int(rng.integers(2, 9)))
        else:
            pen.polygon(corners, fill=light)
    pixels = np.asarray(sheet)
    if symmetric:
        pixels = np.maximum(pixels, pixels[:, ::-1])
    if rng.random() < 0.4:
        pixels = (pixels * (1 - rng.uniform(0.2, 0.9) * _field(rng))).astype(np.uint8)
    return pixels if pixels.any() else _glyph(rng)


def _texture(rng: np.random.Generator) -> _Pixels:
    """Noise, clouds, blots, stripes, checks or a gradient."""
    which = rng.integers(5)
    y, x = np.mgrid[0:_SIDE, 0:_SIDE] - _MIDDLE
    angle, period = rng.uniform(0, math.pi), rng.uniform(6, 40)
    across = (math.cos(angle) * x + math.sin(angle) * y) / period
    if which == 0:
        field = _field(rng)
    elif which == 1:
        field = (_field(rng) > rng.uniform(0.4, 0.7)).astype(np.float64)
    elif which == 2:
        field = 0.5 + 0.5 * np.sin(2 * math.pi * across + rng.uniform(0, 6))
        if rng.random() < 0.5:
            along = math.sin(angle) * x - math.cos(angle) * y
            field = field * (0.5 + 0.5 * np.sin(2 * math.pi * along / period))
        field = np.where(field > 0.5, 1.0, 0.0) if rng.random() < 0.5 else field
    elif which == 3:
        grain = int(rng.choice([1, 2, 4, 8]))
        noise = rng.random((_SIDE // grain, _SIDE // grain)) ** rng.uniform(0.5, 6)
        field = noise.repeat(grain, axis=0).repeat(grain, axis=1)
    else:
        field = np.clip(0.5 + across * rng.uniform(0.1, 1), 0, 1)
    if rng.random() < 0.6:  # inside a polygon only
        field = field * (_polygon(rng) > 0)
    pixels = (np.asarray(field, np.float64) * rng.uniform(120, 255)).astype(np.uint8)
    return pixels if pixels.any() else _glyph(rng)


def _turned(digits: _Pixels, labels: _Labels, rng: np.random.Generator) -> _Pixels:
    """A digit, mirrored or rotated so that it is no longer a digit."""
    while True:
        which = int(rng.integers(len(digits)))
        names = _SAFE_TRANSFORMS[int(labels[which])]
        if names:
            transform = _TRANSFORMS[names[int(rng.integers(len(names)))]]
            return np.ascontiguousarray(transform(digits[which]))


def _collage(digits: _Pixels, _labels: _Labels, rng: np.random.Generator) -> _Pixels:
    """Halves or quarters of different digits, joined."""
    parts: _Pixels = digits[rng.integers(len(digits), size=4)]
    row, column = (int(rng.integers(11, 18)) for _ in range(2))
    result: _Pixels = parts[0].copy()
    which = rng.integers(3)
    if which == 0:  # quarters of four
        result[:row, column:] = parts[1][:row, column:]
        result[row:, :column] = parts[2][row:, :column]
        result[row:, column:] = parts[3][row:, column:]
    elif which == 1:  # a rotated or flipped lower half
        other = parts[1][::-1, ::-1] if rng.random() < 0.5 else parts[1][::-1]
        result[row:] = other[row:]
    else:  # a flipped right half
        other = parts[1][::-1]
        result[:, column:] = other[:, column:]
    return result


def _overlaid(digits: _Pixels, labels: _Labels, rng: np.random.Generator) -> _Pixels:
    """Two or three overlapping digits."""
    first, second = rng.integers(len(digits), size=2)
    while labels[first] == labels[second]:
        second = rng.integers(len(digits))
    sheet = np.zeros((40, 52), np.uint8)
    # A 1 is hidden by most other digits unless it stands beside them.
    least = 9 if 1 in labels[[first, second]] else 5
    dx, dy = int(rng.integers(least, 17)), int(rng.integers(-5, 6))
    sheet[6:34, 4:32] = digits[first]
    part = sheet[6 + dy : 34 + dy, 4 + dx : 32 + dx]
    np.maximum(part, digits[second], out=part)
    if rng.random() < 0.3:
        part = sheet[6:34, 12:40]
        np.maximum(part, digits[rng.integers(len(digits))], out=part)
    return sheet


def _crossed(digits: _Pixels, _labels: _Labels, rng: np.random.Generator) -> _Pixels:
    """A crossed-out digit."""
    digit = Image.fromarray(digits[rng.integers(len(digits))])
    sheet = Image.new("L", (_SIDE, _SIDE), 0)
    sheet.paste(digit.resize((84, 84), Image.Resampling.BICUBIC), (6, 6))
    strokes = []
    for _ in range(int(rng.integers(2, 6))):
        angle = rng.uniform(0, math.pi)
        along = np.array([math.cos(angle), math.sin(angle)]) * rng.uniform(26, 44)
        centre = rng.uniform(-16, 16, 2)
        knots = np.stack([centre - along, centre + rng.normal(0, 4, 2), centre + along])
        strokes.append(_spline(knots))
    crossing = _draw_strokes(strokes, rng.uniform(4, 10), rng)
    result: _Pixels = np.maximum(np.asarray(sheet), crossing)
    return result


_DRAWN: Mapping[str, Callable[[np.random.Generator], _Pixels]] = {
    "glyph": _glyph,
    "script": _script,
    "stroke": _stroke,
    "scribble": _scribble,
    "polygon": _polygon,
    "texture": _texture,
}
_MIXED: Mapping[str, Callable[[_Pixels, _Labels, np.random.Generator], _Pixels]] = {
    "turned": _turned,
    "collage": _collage,
    "overlaid": _overlaid,
    "crossed": _crossed,
}
FAMILIES = (*_DRAWN, *_MIXED)
"""Families of outliers: six drawn at random, four made from digits."""

_TRANSFORMS: Mapping[str, Callable[[_Pixels], _Pixels]] = {
    "mirror": lambda pixels: pixels[:, ::-1],
    "flip": lambda pixels: pixels[::-1],
    "half": lambda pixels: pixels[::-1, ::-1],
    "left": lambda pixels: pixels.T[::-1],
    "right": lambda pixels: pixels.T[:, ::-1],
    "transpose": lambda pixels: pixels.T,
}
# Transforms whose result is not a digit. A mirrored 0, 1 or 8 stays one, 2 and 5 are each other's
# mirror image, 6 and 9 each other's rotation, and a 7 on its side may be a 1.
_SAFE_TRANSFORMS: Mapping[int, tuple[str, ...]] = {
    0: (),
    1: (),
    2: ("left", "right", "transpose"),
    3: ("mirror", "half", "left", "right", "transpose"),
    4: ("mirror", "flip", "half", "left", "right", "transpose"),
    5: ("left", "right", "transpose"),
    6: ("mirror", "left", "right", "transpose"),
    7: ("mirror", "flip", "half", "left"),
    8: ("left",),
    9: ("mirror", "left", "right", "transpose"),
}


def _rotation(angle: float) -> NDArray[np.float64]:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _bow(start: _Points, end: _Points, bulge: float) -> _Points:
    """Half an ellipse between two points."""
    chord = end - start
    normal = np.array([-chord[1], chord[0]]) * bulge
    t = np.linspace(0, math.pi, 16)[:, None]
    result: _Points = start + chord * (1 - np.cos(t)) / 2 + normal * np.sin(t)
    return result


def _spline(knots: _Points) -> _Points:
    """A Catmull–Rom spline through points."""
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = np.linspace(0, 1, 8, endpoint=False)[:, None, None]
    a, b, c, d = (padded[i : len(padded) - 3 + i] for i in range(4))
    cubic = b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    result: _Points = np.concatenate([cubic.swapaxes(0, 1).reshape(-1, 2), knots[-1:]])
    return result


def _draw_strokes(
    strokes: list[_Points],
    pen: float,
    rng: np.random.Generator,
    *,
    contrast: float = 0.0,
    round_pen: bool = True,
) -> _Pixels:
    """Draw strokes, each of points (n, 2), around the centre of the sheet.

    With `contrast`, from 0 to 1, strokes along the nib's direction are thinner than the pen.
    """
    sheet = Image.new("L", (_SIDE, _SIDE), 0)
    draw = ImageDraw.Draw(sheet)
    nib = rng.uniform(0, math.pi)
    turn = _rotation(rng.normal(0, 0.12))
    for stroke in strokes:
        points = stroke @ turn + _MIDDLE
        steps = np.diff(points, axis=0)
        across = np.abs(np.sin(np.arctan2(steps[:, 1], steps[:, 0]) - nib))
        widths = np.maximum(pen * (1 - contrast * (1 - across)), 1.5)
        for start, end, width in zip(points[:-1], points[1:], widths, strict=True):
            draw.line((*start, *end), fill=255, width=max(1, round(width)))
            if round_pen or len(points) > 2:
                r = width / 2 - 0.5
                for x, y in (start, end):
                    draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
    return np.asarray(sheet.filter(ImageFilter.GaussianBlur(1)))


def _field(rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth noise over the sheet, from 0 to 1."""
    cells = int(rng.integers(3, 14))
    coarse = Image.fromarray(rng.random((cells, cells), np.float32))
    fine = np.asarray(coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), np.float64)
    result: NDArray[np.float64] = (fine - fine.min()) / max(float(np.ptp(fine)), 1e-6)
    return result

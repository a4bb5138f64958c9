"""Synthetic uploads, rendered from MNIST-like digits.

Clients send photographs, scans, drawings and thumbnails, so the network is fitted to such images
too. Each digit of 28×28 pixels is traced and redrawn with another pen. It is placed on paper, a
form or a canvas, and photographed, scanned or exported. The result is preprocessed like any upload.

The renderer draws everything itself and needs no other images.
"""

import io
import math
from dataclasses import dataclass

import mahotas
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from model.preprocessing.morphology import bounding_box
from model.preprocessing.normalize import DigitImage, open_image
from training.data.parallel import parallel_map, stream
from training.data.preprocess import Inputs
from training.distributed import SINGLE_PROCESS, World

KINDS = ("photo", "scan", "canvas", "paint", "prep28")
"""Photographed ink, scanned ink, a mouse on a canvas, a brush in a paint program, and images that
a client has already reduced to 28×28 pixels."""

_Floats = NDArray[np.float32]

_TRACE = 84  # side in pixels of the square for tracing strokes; the digit's is 28
_SCALE = _TRACE / 28


@dataclass(frozen=True)
class _Style:
    """Random style of a kind of image; ranges are uniform.

    Attributes:
        traced: Probability of redrawing the digit's centre line with a round pen.
        pen: Width of that pen, relative to the digit's height.
        thicker: Otherwise, change of the stroke width, relative to the digit's height.
        side: Longer side of the image in pixels.
        fill: Height of the digit relative to the image.
        light_foreground: Probability of a light foreground on a dark background.
        jagged: Probability of strokes without antialiasing.
    """

    traced: float
    pen: tuple[float, float]
    thicker: tuple[float, float]
    side: tuple[int, int]
    fill: tuple[float, float]
    light_foreground: float
    jagged: float


_STYLES = {
    "photo": _Style(0.3, (0.04, 0.14), (-0.03, 0.06), (70, 220), (0.3, 0.85), 0.05, 0.0),
    "scan": _Style(0.3, (0.03, 0.10), (-0.03, 0.04), (50, 220), (0.4, 0.95), 0.02, 0.1),
    "canvas": _Style(0.5, (0.015, 0.16), (-0.03, 0.10), (40, 240), (0.35, 0.9), 0.6, 0.4),
    "paint": _Style(0.4, (0.02, 0.22), (-0.03, 0.12), (40, 240), (0.35, 0.9), 0.3, 0.6),
    "prep28": _Style(0.4, (0.03, 0.20), (-0.03, 0.08), (28, 28), (0.55, 0.98), 0.5, 0.3),
}


def render(
    digit: NDArray[np.uint8], rng: np.random.Generator, kind: str | None = None
) -> Image.Image:
    """Render a digit as a client would send it.

    Args:
        digit: A centred MNIST-like digit (28, 28), uint8, its background 0.
        rng: Source of all randomness.
        kind: One of `KINDS`; a random one if None.

    Returns:
        An image of mode L or RGB with sides of 28 to 240 pixels.

    Raises:
        ValueError: If the digit is blank or has another shape, or the kind is unknown.
    """
    if digit.shape != (28, 28) or not digit.any():
        raise ValueError("expected a digit of 28×28 pixels that is not blank")
    kind = kind or KINDS[rng.integers(len(KINDS))]
    if kind not in _STYLES:
        raise ValueError(f"unknown kind {kind!r}; known are {', '.join(KINDS)}")
    style = _STYLES[kind]
    ink = _place(_redraw(_warp(digit, rng), style, rng), style, rng)
    if kind == "photo":
        return _photograph(ink, rng)
    if kind == "scan":
        return _scan(ink, style, rng)
    return _export(ink, style, kind, rng)


def render_inputs(
    digits: NDArray[np.uint8],
    *,
    seed: int,
    processes: int = 1,
    name: str = "images",
    world: World = SINGLE_PROCESS,
) -> Inputs:
    """Render each digit once and preprocess the result.

    Args:
        digits: Preprocessed digits (N, 28, 28), N at least 1.
        seed: With a digit's index, the seed of its rendering; nothing else decides the result.
        processes: How many worker processes to use.
        name: Their name on the progress bar.
        world: The processes that share the work; each gets all results.
    """
    tasks = [(digit, seed, i) for i, digit in enumerate(digits)]
    title = f"rendering {name}"
    return Inputs.of(parallel_map(_render_one, tasks, title, processes=processes, world=world))


def correlation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Correlation of the pixels of each pair of images (N, 28, 28), in [-1, 1]; 0 for a blank."""
    one, two = (
        part.reshape(len(part), -1) - part.mean(axis=(1, 2), dtype=np.float64)[:, None]
        for part in (first, second)
    )
    norm = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    result: NDArray[np.float64] = (one * two).sum(axis=1) / np.maximum(norm, 1e-9)
    return result


def _render_one(task: tuple[NDArray[np.uint8], int, int]) -> DigitImage:
    digit, seed, i = task
    if not digit.any():
        return DigitImage(digit, ("no_ink",))
    return open_image(render(digit, stream(seed, i)))


def _warp(digit: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.bool_]:
    """The digit's strokes, three times as large, with a random slant, rotation, size and warp."""
    angle, shear = rng.normal(0, math.radians(5)), rng.normal(0, 0.1)
    width, height = np.exp(rng.normal(0, 0.1)), np.exp(rng.normal(0, 0.05))
    cos, sin = math.cos(angle), math.sin(angle)
    # Maps output to input coordinates, around the centres.
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]])
    matrix = matrix @ np.diag([1 / width, 1 / height]) / _SCALE
    knots = np.linspace(0, _TRACE, 4)
    grid = np.stack(np.meshgrid(knots, knots), axis=-1) - _TRACE / 2  # (row, column, xy)
    source = grid @ matrix.T + 14 + rng.normal(0, 0.3, grid.shape)
    quads = []
    for row, column in np.ndindex(3, 3):
        corners = source[[row, row + 1, row + 1, row], [column, column, column + 1, column + 1]]
        box = (knots[column], knots[row], knots[column + 1], knots[row + 1])
        quads.append((tuple(int(edge) for edge in box), tuple(corners.ravel())))
    drawn = Image.fromarray(digit).transform(
        (_TRACE, _TRACE), Image.Transform.MESH, quads, Image.Resampling.BICUBIC
    )
    shape = np.asarray(drawn.filter(ImageFilter.GaussianBlur(1))) > 110
    return shape if shape.any() else np.asarray(drawn) > 0


def _redraw(shape: NDArray[np.bool_], style: _Style, rng: np.random.Generator) -> _Floats:
    """The strokes as another pen draws them: (h, w) from 0 to 1, cropped."""
    top, bottom, *_ = bounding_box(shape)
    height = bottom - top
    padded = np.pad(shape, _TRACE // 3)
    if rng.random() < style.traced:
        # Without smoothing, thinning grows a branch at each corner of a stroke's end.
        line = mahotas.thin(np.asarray(_blurred(padded, 1.7)) > 120)
        if not line.any():
            line = mahotas.thin(padded)
        radius = max(0.5, height * rng.uniform(*style.pen) / 2)
        distance = np.sqrt(mahotas.distance(~line))
        ink = np.clip(radius + 0.5 - distance, 0, 1)
    else:
        change = height * rng.uniform(*style.thicker) / 2
        outside, inside = mahotas.distance(~padded), mahotas.distance(padded)
        ink = np.clip(change + 0.5 - np.sqrt(outside) + np.sqrt(inside), 0, 1)
        if ink.max() < 0.9:  # nothing is left
            ink = padded.astype(np.float32)
    top, bottom, left, right = bounding_box(ink > 0)
    result: _Floats = ink[top:bottom, left:right].astype(np.float32)
    return result


def _blurred(shape: NDArray[np.bool_], radius: float) -> Image.Image:
    return Image.fromarray(shape.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(radius))


def _place(ink: _Floats, style: _Style, rng: np.random.Generator) -> _Floats:
    """The strokes at a random place of a sheet (H, W), sometimes slightly over its edge."""
    side = int(rng.integers(style.side[0], style.side[1] + 1))
    aspect = 1.0 if style.side[0] == style.side[1] else float(np.exp(rng.normal(0, 0.15)))
    width, height = (max(28, round(side * min(1.0, a))) for a in (aspect, 1 / aspect))
    scale = min(height / ink.shape[0], width / ink.shape[1]) * rng.uniform(*style.fill)
    size = tuple(max(3, round(n * scale)) for n in ink.shape[::-1])
    method = Image.Resampling.NEAREST if rng.random() < style.jagged else Image.Resampling.BILINEAR
    drawn = np.asarray(Image.fromarray(ink).resize(size, method))
    if method == Image.Resampling.NEAREST:
        drawn = (drawn > 0.4).astype(np.float32)
    over = 0.06 * max(size) if rng.random() < 0.08 else 0.0
    sheet = np.zeros((height, width), np.float32)
    top, left = (
        int(rng.uniform(min(-over, free + over), max(-over, free + over)))
        for free in (height - size[1], width - size[0])
    )
    rows = slice(max(top, 0), min(top + size[1], height))
    columns = slice(max(left, 0), min(left + size[0], width))
    sheet[rows, columns] = drawn[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
    return sheet


def _photograph(ink: _Floats, rng: np.random.Generator) -> Image.Image:
    """A photograph of ink on paper: uneven light, shadow, ruled lines, blur, noise, JPEG."""
    height, width = ink.shape
    paper = _paper_colour(rng)
    paint = _ink_colour(rng) * rng.uniform(0.6, 1.0)
    strength = rng.uniform(0.6, 1.0)
    if rng.random() < 0.4:  # a pencil or a dry pen
        ink = ink * _grain(ink.shape, rng, rng.uniform(0.1, 0.5))
    rgb = paper - strength * ink[..., None] * (paper - paint)
    if rng.random() < 0.35:
        lines = _ruled(ink.shape, rng)[..., None]
        rgb = rgb - lines * rng.uniform(0.1, 0.5) * (rgb - paper * [0.45, 0.6, 0.9])
    rgb = rgb * _light(height, width, rng)[..., None] * 255
    image = Image.fromarray(rgb.clip(0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.008) * max(image.size)))
    noise = rng.normal(0, rng.uniform(0, 9), (height, width, 1)).astype(np.float32)
    noise = noise + rng.normal(0, rng.uniform(0, 4), (height, width, 3)).astype(np.float32)
    image = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    return _jpeg(image, rng)


def _scan(ink: _Floats, style: _Style, rng: np.random.Generator) -> Image.Image:
    """A grey or black-and-white scan under even light: ruled lines, dust, blur, noise."""
    height, width = ink.shape
    if rng.random() < 0.3:
        ink = ink * _grain(ink.shape, rng, rng.uniform(0.05, 0.4))
    grey = rng.uniform(0.85, 1.0) - ink * rng.uniform(0.35, 0.9)
    if rng.random() < 0.3:
        grey = np.minimum(grey, 1 - _ruled(ink.shape, rng) * rng.uniform(0.2, 0.6))
    image = Image.fromarray((grey.clip(0, 1) * 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.poisson(2)):  # dust
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, 0.006) * width
        pen.ellipse((x - r, y - r, x + r, y + r), fill=int(rng.integers(0, 160)))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.004) * max(image.size)))
    noise = rng.normal(0, rng.uniform(0, 5), (height, width)).astype(np.float32)
    pixels = (np.asarray(image) + noise).clip(0, 255)
    if rng.random() < 0.2:  # one bit
        between = rng.uniform(0.35, 0.65)
        level = between * pixels[ink > 0.7 * ink.max()].mean() + (1 - between) * np.median(pixels)
        pixels = np.where(pixels < level, 0, 255)
    if rng.random() < style.light_foreground:
        pixels = 255 - pixels
    image = Image.fromarray(pixels.astype(np.uint8))
    return _jpeg(image, rng) if rng.random() < 0.5 else image


def _export(ink: _Floats, style: _Style, kind: str, rng: np.random.Generator) -> Image.Image:
    """A drawing exported by a program: flat colours, sharp or smooth edges, rarely JPEG."""
    ground = np.ones(3) if rng.random() < 0.8 else rng.uniform(0.6, 1.0, 3)
    paint = np.zeros(3)
    while rng.random() < 0.3:
        colour = _ink_colour(rng)
        if np.abs(ground - colour).max() > 0.35:
            paint = colour
            break
    if rng.random() < style.light_foreground:
        ground, paint = 1 - ground, 1 - paint
    if kind == "prep28" and rng.random() < 0.5:  # resampled twice
        side = int(rng.integers(14, 28))
        small = Image.fromarray(ink).resize((side, side), Image.Resampling.BILINEAR)
        ink = np.asarray(small.resize(ink.shape[::-1], Image.Resampling.BILINEAR))
        ink = ink / max(float(ink.max()), 1e-3)
    rgb = ground + ink[..., None] * (paint - ground)
    image = Image.fromarray((rgb.clip(0, 1) * 255).astype(np.uint8))
    if kind == "prep28" and rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(0, 20), (*ink.shape, 1))
        image = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    return _jpeg(image, rng) if rng.random() < 0.3 else image


def _paper_colour(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.uniform(0.72, 1.0) * (1 - rng.uniform(0, 0.18, 3) * (rng.random() < 0.5))


def _ink_colour(rng: np.random.Generator) -> NDArray[np.float64]:
    """Mostly black or blue, sometimes a dark or saturated colour."""
    which = rng.random()
    if which < 0.5:
        return rng.uniform(0, 0.25, 3)
    if which < 0.8:
        return np.array([rng.uniform(0, 0.3), rng.uniform(0, 0.4), rng.uniform(0.4, 0.9)])
    colour = rng.uniform(0, 0.5, 3)
    colour[rng.integers(3)] = rng.uniform(0.4, 1.0)
    return colour


def _grain(shape: tuple[int, int], rng: np.random.Generator, depth: float) -> _Floats:
    """A random factor (H, W) from 1 - 2 × depth to 1 with a grain of a few pixels."""
    coarse = rng.random((max(2, shape[0] // 2), max(2, shape[1] // 2)), np.float32)
    grain = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BILINEAR)
    return np.asarray(1 - np.float32(2 * depth) * np.asarray(grain), np.float32)


def _ruled(shape: tuple[int, int], rng: np.random.Generator) -> _Floats:
    """A mask (H, W) of ruled or squared paper, from 0 to 1."""
    height, width = shape
    lines = Image.new("L", (width, height))
    pen = ImageDraw.Draw(lines)
    step = rng.uniform(0.12, 0.7) * height
    tilt = rng.normal(0, 0.02)
    thick = max(1, round(rng.uniform(0.003, 0.012) * height))
    for y in np.arange(rng.uniform(0, step), height + step, step):
        pen.line((0, y, width, y + tilt * width), fill=255, width=thick)
    if rng.random() < 0.4:
        for x in np.arange(rng.uniform(0, step), width + step, step):
            pen.line((x, 0, x - tilt * height, height), fill=255, width=thick)
    return np.asarray(lines, np.float32) / np.float32(255)


def _light(height: int, width: int, rng: np.random.Generator) -> _Floats:
    """Illumination of each pixel (H, W): a gradient, vignetting, the edge of a shadow."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    across = math.cos(angle) * x + math.sin(angle) * y
    light = 1 + rng.uniform(0, 0.3) * across - rng.uniform(0, 0.2) * (x**2 + y**2)
    if rng.random() < 0.35:
        angle = rng.uniform(0, 2 * math.pi)
        edge = math.cos(angle) * x + math.sin(angle) * y + rng.uniform(-0.8, 0.8)
        edge = edge + rng.uniform(0, 0.3) * (x * math.sin(angle) - y * math.cos(angle)) ** 2
        softness = rng.uniform(0.03, 0.4)
        light = light * (1 - rng.uniform(0.2, 0.6) * np.clip(edge / softness + 0.5, 0, 1))
    result: _Floats = (light * rng.uniform(0.6, 1.1)).astype(np.float32)
    return result


def _jpeg(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(35, 96)))
    with Image.open(buffer) as compressed:
        compressed.load()
        return compressed

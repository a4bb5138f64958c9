"""The 15 corruptions of MNIST-C, for the evaluation of robustness.

Each kind has the severity of the published data set. The random numbers differ, so the images
resemble the published ones but are not the same.

Source: Mu and Gilmer (2019), "MNIST-C: A Robustness Benchmark for Computer Vision", and the
severities in its repository, google-research/mnist-c.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import canny
from skimage.transform import AffineTransform, warp
from skimage.util import random_noise

_Floats = NDArray[np.float64]
_Corruption = Callable[[_Floats, np.random.Generator], _Floats]

_SIDE = 28
_MIDDLE = (_SIDE - 1) / 2


def corrupt(image: NDArray[np.uint8], kind: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Corrupt an image in one of the 15 ways.

    Args:
        image: uint8 (28, 28), the digit bright on 0; it is not changed.
        kind: One of `KINDS`.
        rng: Source of all randomness.

    Returns:
        uint8 (28, 28), the digit bright on a background that may differ from 0.

    Raises:
        ValueError: If the kind is unknown or the image has another shape or type.
    """
    if image.shape != (_SIDE, _SIDE) or image.dtype != np.uint8:
        raise ValueError(
            f"expected an image of uint8 and shape (28, 28), got {image.dtype} and {image.shape}"
        )
    if kind not in _CORRUPTIONS:
        raise ValueError(f"unknown kind {kind!r}; known are {', '.join(KINDS)}")
    corrupted = _CORRUPTIONS[kind](image / 255, rng).clip(0, 1)
    result: NDArray[np.uint8] = np.rint(corrupted * 255).astype(np.uint8)
    return result


# The functions below take and return float64 (28, 28); `corrupt` clips to [0, 1] at the end.


def _shot_noise(image: _Floats, rng: np.random.Generator) -> _Floats:
    """Poisson noise with three photons per pixel of full intensity."""
    return rng.poisson(image * 3) / 3


def _impulse_noise(image: _Floats, rng: np.random.Generator) -> _Floats:
    """Salt and pepper on 17 % of the pixels."""
    return np.asarray(random_noise(image, "s&p", rng=rng, amount=0.17), np.float64)


def _glass_blur(image: _Floats, rng: np.random.Generator) -> _Floats:
    """Swap neighbouring pixels between two blurs."""
    # Only columns are blurred: the published code takes each row's pixels for channels.
    sigma = (0.7, 0)
    pixels = ndimage.gaussian_filter(image, sigma, mode="nearest").ravel().tolist()
    rows, columns = np.divmod(np.arange(26 * 26), 26)
    here = np.tile(_SIDE * (27 - rows) + 27 - columns, 2)  # twice, from the last pixel to the first
    up, left = rng.integers(0, 2, (2, len(here)))
    there = here - _SIDE * up - left
    chosen = rng.random(len(here)) < 0.5
    for i, j in zip(here[chosen].tolist(), there[chosen].tolist(), strict=True):
        pixels[i], pixels[j] = pixels[j], pixels[i]
    shuffled = np.array(pixels).reshape(image.shape)
    return np.asarray(ndimage.gaussian_filter(shuffled, sigma, mode="nearest"), np.float64)


def _motion_blur(image: _Floats, rng: np.random.Generator) -> _Floats:
    """Blur along a line within 45° of the horizontal, by half a Gaussian of 3 pixels.

    It is ImageMagick's `-motion-blur 10x3`, as in the published data set.
    """
    angle = np.deg2rad(rng.uniform(-45, 45))
    steps = np.arange(21)
    down, right = (np.ceil(steps * way - 0.5).astype(int) for way in (np.sin(angle), np.cos(angle)))
    room = np.pad(image, 20, mode="edge")
    moved = np.lib.stride_tricks.sliding_window_view(room, image.shape)[20 + down, 20 + right]
    return np.asarray(np.average(moved, axis=0, weights=np.exp(-(steps**2) / 18)), np.float64)


def _shear(image: _Floats, rng: np.random.Generator) -> _Floats:
    """Shear by 0.4 rad to either side."""
    angle = 0.4 * rng.choice([-1, 1])
    # The cosine enlarges the digit by a twelfth, as scikit-image's shear did then.
    return _warped(image, np.array([[1, -np.sin(angle)], [0, np.cos(angle)]]))


def _scale(image: _Floats, _rng: np.random.Generator) -> _Floats:
    """Scale to 0.7 times the size."""
    return _warped(image, np.eye(2) / 0.7)


def _rotate(image: _Floats, rng: np.random.Generator) -> _Floats:
    """Rotate by 0.4 rad either way."""
    angle = 0.4 * rng.choice([-1, 1])
    cos, sin = np.cos(angle), np.sin(angle)
    return _warped(image, np.array([[cos, -sin], [sin, cos]]))


def _brightness(image: _Floats, _rng: np.random.Generator) -> _Floats:
    """Add half of the full intensity everywhere."""
    return image + 0.5


def _translate(image: _Floats, rng: np.random.Generator) -> _Floats:
    """Move by 3 pixels towards one of the four corners."""
    return _warped(image, np.eye(2), 3 * rng.choice([-1, 1], 2))


def _stripe(image: _Floats, _rng: np.random.Generator) -> _Floats:
    """Invert the left and the right quarter."""
    striped = 1 - image
    striped[:, 7:21] = image[:, 7:21]
    return striped


def _fog(image: _Floats, rng: np.random.Generator) -> _Floats:
    """Add a fractal cloud of three times the full intensity; restore the maximum brightness."""
    thickness, brightest = 3, image.max()
    fogged = image + thickness * _cloud(rng)
    return np.asarray(fogged * brightest / (brightest + thickness), np.float64)


def _spatter(image: _Floats, rng: np.random.Generator) -> _Floats:
    """Cover the image with blots of a quarter of the full intensity."""
    liquid = ndimage.gaussian_filter(rng.normal(0.65, 0.3, image.shape), 1, mode="nearest")
    cover = ndimage.gaussian_filter((liquid > 0.65).astype(np.float64), 1.5, mode="nearest")
    cover[cover < 0.8] = 0
    return np.asarray(image * (1 - cover) + 63 / 255 * cover, np.float64)


def _dotted_line(image: _Floats, rng: np.random.Generator) -> _Floats:
    """Draw a line across the image, dashed by two columns."""
    start, end = rng.integers(0, 27, 2)
    line = _line(0, start, 27, end)
    line[:, np.arange(_SIDE) % 4 < 2] = 0
    return image + line


def _zigzag(image: _Floats, rng: np.random.Generator) -> _Floats:
    """Draw a zigzag from left to right with teeth 4 pixels high, rising or falling by up to 5."""
    start = rng.integers(0, 27)
    angle = np.arctan2(rng.integers(-5, 5), 23)
    length = 23 / np.cos(angle)
    along = np.array([0, 2, 6, 10, 14, 18, 22, length])
    across = np.array([0, 2, -2, 2, -2, 2, -2, -1 / (length - 20)])
    columns = 2 + along * np.cos(angle) - across * np.sin(angle)
    rows = start + along * np.sin(angle) + across * np.cos(angle)
    ends = np.stack([columns, rows], axis=1)
    for begin, end in pairwise(ends):
        image = image + _line(*begin, *end)
    return image


def _canny_edges(image: _Floats, _rng: np.random.Generator) -> _Floats:
    """Keep only the edges that Canny's detector finds."""
    return np.asarray(canny(image), np.float64)


def _warped(
    image: _Floats, matrix: _Floats, shift: NDArray[np.int64] | tuple[int, int] = (0, 0)
) -> _Floats:
    """The image at matrix @ (x, y) + shift, relative to the middle; 0 beyond its borders."""
    to_source = np.eye(3)
    to_source[:2, :2] = matrix
    to_source[:2, 2] = _MIDDLE - matrix @ [_MIDDLE, _MIDDLE] + shift
    return np.asarray(warp(image, AffineTransform(matrix=to_source)), np.float64)


def _cloud(rng: np.random.Generator) -> _Floats:
    """A corner (28, 28) of a fractal cloud of 256×256 with values from 0 to 1.

    Source: Fournier, Fussell and Carpenter (1982), "Computer Rendering of Stochastic Models"; the
    diamond-square algorithm on a torus.
    """
    cloud, roughness = np.zeros((1, 1), np.float32), 1.0
    while len(cloud) < 256:
        n = len(cloud)
        noise = [roughness * (2 * rng.random((n, n), np.float32) - 1) for _ in range(3)]
        pairs = cloud + np.roll(cloud, -1, axis=0)
        middles = (pairs + np.roll(pairs, -1, axis=1)) / 4 + noise[0]
        level = cloud + np.roll(cloud, -1, axis=1) + middles + np.roll(middles, 1, axis=0)
        upright = pairs + middles + np.roll(middles, 1, axis=1)
        finer = np.empty((2 * n, 2 * n), np.float32)
        finer[::2, ::2] = cloud
        finer[1::2, 1::2] = middles
        finer[::2, 1::2] = level / 4 + noise[1]
        finer[1::2, ::2] = upright / 4 + noise[2]
        cloud, roughness = finer, roughness / 1.4**2
    return np.asarray((cloud[:_SIDE, :_SIDE] - cloud.min()) / np.ptp(cloud), np.float64)


def _line(column: float, row: float, end_column: float, end_row: float) -> _Floats:
    """A line (28, 28) from left to right with values from 0 to 1, antialiased vertically."""
    columns, rows = np.arange(_SIDE), np.arange(_SIDE)[:, None]
    middle = row + (end_row - row) / (end_column - column) * (columns - column)
    distance = np.abs(rows - middle)
    line = 1 + np.log1p(-np.minimum(distance, 2) / 2.3)  # below 0 from 1.45 pixels on
    drawn = (columns >= np.floor(column)) & (columns < np.ceil(end_column))
    return np.asarray(np.where(drawn, line.clip(0), 0), np.float64)


_CORRUPTIONS: Mapping[str, _Corruption] = MappingProxyType(
    {
        "shot_noise": _shot_noise,
        "impulse_noise": _impulse_noise,
        "glass_blur": _glass_blur,
        "motion_blur": _motion_blur,
        "shear": _shear,
        "scale": _scale,
        "rotate": _rotate,
        "brightness": _brightness,
        "translate": _translate,
        "stripe": _stripe,
        "fog": _fog,
        "spatter": _spatter,
        "dotted_line": _dotted_line,
        "zigzag": _zigzag,
        "canny_edges": _canny_edges,
    }
)

KINDS: tuple[str, ...] = tuple(_CORRUPTIONS)
"""The kinds of corruption, in the order of the publication."""

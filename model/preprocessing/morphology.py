"""Dilation, erosion, opening, box mean and bounding box, at a cost independent of their size."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def running_extreme(
    values: NDArray[np.uint8],
    radius: int,
    choose: Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.uint8]],
    axis: int | None = None,
) -> NDArray[np.uint8]:
    """Running maximum (dilation) or minimum (erosion), by repeated doubling of the window.

    Args:
        values: (H, W).
        radius: The window has 2 × radius + 1 pixels a side; the border is replicated.
        choose: `np.maximum` or `np.minimum`.
        axis: Along one axis only; both if None.
    """
    window = 2 * radius + 1
    for current in (0, 1):
        if axis in (current, None):
            n = len(values)
            run = np.empty((n + 2 * radius, values.shape[1]), np.uint8)
            run[:radius], run[radius + n :] = values[0], values[-1]
            run[radius : radius + n] = values
            length = 1
            while 2 * length <= window:
                run = choose(run[:-length], run[length:])
                length *= 2
            values = choose(run[:n], run[window - length :][:n])
        values = np.ascontiguousarray(values.T)
    return values


def opened(mask: NDArray[np.bool_], radius: int, axis: int) -> NDArray[np.bool_]:
    """Morphological opening along an axis: keeps runs of more than 2 × radius pixels."""
    eroded = running_extreme(mask.view(np.uint8), radius, np.minimum, axis)
    return running_extreme(eroded, radius, np.maximum, axis).view(bool)


def bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Bounding box of a mask: top, bottom, left, right, ends exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def mean_around(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Mean over squares of 2 × radius + 1 pixels a side, clipped at the border."""
    for _ in range(2):
        n = len(values)
        total = np.zeros((n + 1, values.shape[1]))
        values.cumsum(axis=0, out=total[1:])
        first = np.arange(n) - radius
        low, high = first.clip(0), (first + 2 * radius + 1).clip(max=n)
        values = ((total[high] - total[low]) / (high - low)[:, None]).T
    return values.astype(np.float32)

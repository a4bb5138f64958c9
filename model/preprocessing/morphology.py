"""Running maxima, minima and means over squares, at a cost that does not grow with the square."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["mean_around", "opened", "running_extreme"]


def running_extreme(
    values: NDArray[np.uint8],
    radius: int,
    choose: Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.uint8]],
    axes: int | None = None,
) -> NDArray[np.uint8]:
    """Running maximum or minimum over 2 × radius + 1 pixels along one axis or both, by doubling."""
    window = 2 * radius + 1
    for axis in (0, 1):
        if axes in (axis, None):
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


def opened(mask: NDArray[np.bool_], radius: int, axes: int) -> NDArray[np.bool_]:
    """Runs of more than 2 × radius pixels along an axis."""
    eroded = running_extreme(mask.view(np.uint8), radius, np.minimum, axes)
    return running_extreme(eroded, radius, np.maximum, axes).view(bool)


def mean_around(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Mean over squares of 2 × radius + 1 pixels, clipped at the picture's edge."""
    for _ in range(2):
        n = len(values)
        total = np.zeros((n + 1, values.shape[1]))
        values.cumsum(axis=0, out=total[1:])
        first = np.arange(n) - radius
        low, high = first.clip(0), (first + 2 * radius + 1).clip(max=n)
        values = ((total[high] - total[low]) / (high - low)[:, None]).T
    return values.astype(np.float32)

"""A bound on the pixels that are decoded at the same time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class DecodeBudget:
    """Pixels being decoded; threads wait for their turn.

    Args:
        limit: The most pixels at once.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._changed = threading.Condition()

    @contextmanager
    def __call__(self, n_pixels: int) -> Iterator[None]:
        """Wait until so many pixels may be decoded; a single image is always allowed."""
        n_pixels = min(n_pixels, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._used + n_pixels <= self._limit)
            self._used += n_pixels
        try:
            yield
        finally:
            with self._changed:
                self._used -= n_pixels
                self._changed.notify_all()

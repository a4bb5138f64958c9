"""What may be held at once, however many ask: bytes of bodies, and pixels being decoded."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ByteBudget", "PixelBudget"]


class ByteBudget:
    """Bytes of bodies that are held, in memory or on disk. To be used from one event loop.

    Args:
        limit: Most bytes.
    """

    def __init__(self, limit: int) -> None:
        """Nothing is held; see the class."""
        self._limit, self._held = limit, 0

    def take(self, n_bytes: int) -> bool:
        """Hold so many bytes more, if there is room for them; says whether there was."""
        if self._held + n_bytes > self._limit:
            return False
        self._held += n_bytes
        return True

    def give_back(self, n_bytes: int) -> None:
        """Hold so many bytes less."""
        self._held -= n_bytes


class PixelBudget:
    """Pixels that are being decoded, by threads that wait their turn.

    Args:
        limit: Most pixels.
    """

    def __init__(self, limit: int) -> None:
        """Nothing is being decoded; see the class."""
        self._limit, self._taken = limit, 0
        self._change = threading.Condition()

    @contextmanager
    def __call__(self, n_pixels: int) -> Iterator[None]:
        """Wait until so many pixels may be decoded; one picture alone always may."""
        n_pixels = min(n_pixels, self._limit)
        with self._change:
            self._change.wait_for(lambda: self._taken + n_pixels <= self._limit)
            self._taken += n_pixels
        try:
            yield
        finally:
            with self._change:
                self._taken -= n_pixels
                self._change.notify_all()

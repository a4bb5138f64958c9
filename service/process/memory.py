"""Memory of a process that lives long and answers quickly: the collector, and the allocator.

A full collection looks at every object there is while nothing else runs. By default one comes
whenever the objects that survive have grown by a quarter: with a thousand requests waiting, each
of them two hundred objects, that is every second, for a tenth of a second and more. Nearly all
garbage here is no circle, and needs no collector.
"""

import ctypes
import gc
from collections.abc import Callable

__all__ = ["give_back", "settle"]

# Objects until the youngest are looked at; rounds of these until those are that survived one, and
# of those until all are. Python's own are 700, 10 and 10.
_THRESHOLDS = (5_000, 10, 1_000)


def settle() -> None:
    """Leave out what is there for good, from now on, and look at the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


def give_back() -> None:
    """Collect circles, and have the C library give back to the system what it holds free.

    What was tried and refused leaves arrays in circles, by the tracebacks of its exceptions; after
    `settle`, nothing else would look at these for hours. The library keeps much by itself.
    """
    gc.collect()
    trim = _find_trim()
    if trim is not None:
        trim(0)


def _find_trim() -> Callable[[int], int] | None:
    """Glibc's `malloc_trim`; other libraries have none."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):
        return None
    return trim

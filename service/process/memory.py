"""Memory of a long-running process: the allocator's free blocks go back to the system."""

import ctypes
import gc
from collections.abc import Callable


def trim_memory() -> None:
    """Collect reference cycles and return free memory to the operating system.

    A rejected checkpoint leaves arrays in cycles, through its exceptions' tracebacks. After
    `tune_gc`, no automatic collection would find them for hours.
    """
    gc.collect()
    trim = _find_malloc_trim()
    if trim is not None:
        trim(0)


def _find_malloc_trim() -> Callable[[int], int] | None:
    """Find glibc's `malloc_trim`; other C libraries have none."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):
        return None
    return trim

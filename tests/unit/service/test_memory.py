"""Memory: what the garbage collector visits, and what returns to the system."""

import gc
import os
import weakref

from service.process.memory import trim_memory
from service.process.tuning import tune_gc
from tests.support.process import rss_kb


def test_the_loaded_model_is_exempt_from_garbage_collection() -> None:
    before = gc.get_threshold()
    gc.unfreeze()
    try:
        tune_gc()
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold()[0] > before[0]
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_free_memory_returns_to_the_system() -> None:
    before = rss_kb(os.getpid())
    # Too small for a mapping of their own; the last one keeps the heap from shrinking by itself.
    blocks = [bytearray(60_000) for _ in range(2000)]
    for block in blocks:
        block[::4096] = b"x" * len(block[::4096])
    last = bytearray(60_000)
    del block, blocks
    held = rss_kb(os.getpid())
    trim_memory()
    after = rss_kb(os.getpid())
    assert len(last) == 60_000
    assert (
        held - before < 20_000 or held - after > 60_000
    )  # unless the C library returned it by itself
    assert after - before < 60_000


def test_trimming_collects_reference_cycles() -> None:
    class Link:
        other: "Link"

    one, two = Link(), Link()
    one.other, two.other = two, one
    gone = weakref.ref(one)
    gc.disable()
    try:
        del one, two
        assert gone() is not None
        trim_memory()
        assert gone() is None
    finally:
        gc.enable()

"""Python's collector of circular garbage, set for a process that lives long and answers quickly.

A full collection looks at every object there is while nothing else runs. By default one comes
whenever the objects that survive have grown by a quarter: with a thousand requests waiting, each
of them two hundred objects, that is every second, for a tenth of a second and more. Nearly all
garbage here is no circle, and needs no collector.
"""

import gc

__all__ = ["settle"]

# Objects until the youngest are looked at; rounds of these until those are that survived one, and
# of those until all are. Python's own are 700, 10 and 10.
_THRESHOLDS = (5_000, 10, 1_000)


def settle() -> None:
    """Leave out what is there for good, from now on, and look at the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)

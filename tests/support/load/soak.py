"""The short and the long form of the soak tests.

`MNN_SOAK=long` chooses the long form, which also enforces bars of time and memory.
"""

import os
from typing import Any, TypeVar

from tqdm import tqdm

from tests.support.load.generator import Address
from tests.support.service.server import Server

__all__ = ["LONG", "address", "choose", "progress"]

LONG = os.environ.get("MNN_SOAK") == "long"

T = TypeVar("T")


def choose(short: T, long: T) -> T:
    """Return the value for the form that runs."""
    return long if LONG else short


def progress(total: float, what: str) -> "tqdm[Any]":
    """Make a progress bar, which the long form shows."""
    return tqdm(total=total, desc=what, disable=not LONG, leave=False)


def address(server: Server) -> Address:
    """Return where a service listens."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return host, int(port)

"""Hypothesis strategies for invalid input: false headers, truncated and spliced files, odd JSON."""

import zlib
from collections.abc import Callable

from hypothesis import strategies as st

from tests.support.fuzz.strategies import FORMATS, image_files, image_files_of

__all__ = ["edited", "hostile_images", "hostile_json"]

_NUMBERS = (0, 1, 2, 3, 4, 8, 16, 255, 256, 2**15 - 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31)
_PNG_HEADER = slice(12, 29)  # IHDR and its fields; their checksum follows


@st.composite
def hostile_images(draw: st.DrawFn) -> bytes:
    """Return an image file with a false header, damaged content or rough edits."""
    form = draw(st.sampled_from(sorted(FORMATS)))
    data = draw(image_files_of(form))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from(_places(form, data)))
        data = draw(_with_number(data, place))
    if form == "PNG" and draw(st.booleans()):
        data = _summed(data)
    return draw(edited(data, others=image_files()))


@st.composite
def edited(draw: st.DrawFn, data: bytes, *, others: st.SearchStrategy[bytes]) -> bytes:
    """Edit bytes roughly, up to three times.

    Args:
        draw: Hypothesis's own.
        data: The bytes.
        others: Where spliced pieces come from.
    """
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 64)))
        kind = draw(st.sampled_from(["cut", "noise", "number", "remove", "repeat", "splice"]))
        if kind == "cut":
            data = data[:start]
        elif kind == "noise":
            data = data[:start] + draw(st.binary(max_size=16)) + data[end:]
        elif kind == "number":
            data = draw(_with_number(data, start))
        elif kind == "remove":
            data = data[:start] + data[end:]
        elif kind == "repeat":
            data = data[:end] + data[start:end] * draw(st.integers(1, 200)) + data[end:]
        else:
            other = draw(others)
            data = data[:start] + other[draw(st.integers(0, len(other))) :]
    return data


def hostile_json() -> st.SearchStrategy[object]:
    """Return values that JSON can hold and hardly anybody expects."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from([-1, 0, 1, 2, 2**31, 2**63, 2**64, 10**30, -(10**30), 10**400]),
        st.sampled_from([float("nan"), float("inf"), -float("inf"), -0.0, 1e308, 5e-324, 0.5]),
        st.integers(-10, 300),
        st.floats(),
        st.text(max_size=8),
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=6,
    )


@st.composite
def _with_number(draw: st.DrawFn, data: bytes, place: int) -> bytes:
    """Write a number over the bytes at a place, if it fits."""
    size = draw(st.sampled_from([1, 2, 4]))
    if place + size > len(data):
        return data
    number = draw(st.sampled_from(_NUMBERS) | st.integers(0, 2**32 - 1)) % 256**size
    written = number.to_bytes(size, draw(st.sampled_from(["little", "big"])))
    return data[:place] + written + data[place + size :]


def _summed(data: bytes) -> bytes:
    """Correct the checksum of a PNG's header, whatever the header says."""
    if len(data) < 33:
        return data
    return data[:29] + zlib.crc32(data[_PNG_HEADER]).to_bytes(4, "big") + data[33:]


def _places(form: str, data: bytes) -> list[int]:
    """Return the places where a file of this format states sizes and types."""
    found: dict[str, Callable[[bytes], list[int]]] = {
        "PNG": lambda _: [8, 16, 18, 20, 22, 24, 25, 26, 27, 28, 33],
        "BMP": lambda _: [2, 10, 14, 18, 22, 26, 28, 30, 34, 46, 50],
        "WEBP": lambda _: [4, 12, 15, 16, 20, 21, 24, 26, 28, 30],
        "GIF": lambda data: [6, 8, 10, 11, 13, *_after(data, b",", (1, 3, 5, 7, 9, 10, 11))],
        "JPEG": lambda data: [
            4,
            *_after(data, b"\xff\xc0", (1, 2, 4, 5, 7, 9, 10, 11, 12)),
            *_after(data, b"\xff\xc2", (1, 2, 4, 5, 7, 9, 10, 11, 12)),
            *_after(data, b"\xff\xc4", (2, 4, 5, 20)),
            *_after(data, b"\xff\xda", (2, 4, 5, 6, 7)),
        ],
        "TIFF": _tiff_places,
    }
    return found[form](data)


def _after(data: bytes, mark: bytes, steps: tuple[int, ...]) -> list[int]:
    at = data.find(mark)
    return [at + step for step in steps] if at >= 0 else []


def _tiff_places(data: bytes) -> list[int]:
    """Return the places of the first directory: its length, and each tag, type, count and value."""
    start = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[start : start + 2], "little")
    at = [start + 2 + 12 * i for i in range(min(entries, 40))]
    return [2, 4, start, *(place + step for place in at for step in (0, 2, 4, 8))]

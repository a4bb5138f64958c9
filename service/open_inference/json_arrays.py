"""Arrays of numbers in a JSON text, cut out of it and read without a Python object for each number.

That is what bounds the memory that a large body can take, and what lets other threads go on: the
usual reader holds Python's lock from the first character to the last.
"""

import math
import re
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayError", "cut_out_arrays", "read_bytes"]

_DATA = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*(?=\[)')
_STRING_OR_OBJECT = re.compile(rb'["{}]')
_BETWEEN = re.compile(rb"[ \t\r\n,\[\]]")
_MOST_LOOKED_AT = 16  # each costs time; nobody has a use for as many
_ZERO, _NINE = ord("0"), ord("9")
_IS_MARK = np.zeros(256, bool)
_IS_MARK[list(b"[],")] = True


class ArrayError(ValueError):
    """A text is not the array that is expected; the message says why of "it"."""


class _Numbers(NamedTuple):
    """Where the numbers of an array's text are."""

    codes: NDArray[np.uint8]  # of the text's characters
    first: NDArray[np.intp]  # where each begins
    length: NDArray[np.intp]  # how many digits it has
    marks: NDArray[np.int32]  # how many brackets and commas stand before it


def cut_out_arrays(text: bytes) -> tuple[bytes, list[bytes]]:
    """The text with `NaN` for the arrays of numbers that are members `data`, and these arrays.

    In JSON, a quote, the word, a quote and a colon are nothing but that member's name, and an
    array of numbers ends before the next quote or brace. Where the text is not JSON, what is left
    of it is not, or something that was cut out is not: whoever has no use for an array must look
    at it all the same.
    """
    kept, arrays, at = [], [], 0
    for _ in range(_MOST_LOOKED_AT):
        found = _DATA.search(text, at)
        if found is None:
            break
        end = _STRING_OR_OBJECT.search(text, found.end())
        array = text[found.end() : end.start() if end else None].rstrip(b" \t\r\n,")
        kept.append(text[at : found.end()])
        at = found.end()
        if array.endswith(b"]") and array.count(b"[") == array.count(b"]"):
            kept.append(b"NaN")
            arrays.append(array)
            at += len(array)
    return b"".join([*kept, text[at:]]), arrays


def read_bytes(text: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The array of numbers from 0 to 255 in a JSON text, flat or nested like its shape.

    It is one if its brackets and commas are those of such an array of zeros, and each number stands
    between the same two of them as each zero.

    Args:
        text: An array that was cut out: it begins and ends with a bracket.
        shape: The shape that it must have.

    Raises:
        ArrayError: If it is something else.
    """
    bare = text.translate(None, b"0123456789 \t\r\n")
    if strange := bare.translate(None, b"[],"):
        at = text.index(strange[:1])
        before = _BETWEEN.split(text[max(0, at - 20) : at])[-1]
        _refuse_number(before + _BETWEEN.split(text[at : at + 20])[0])
    zeros = _zeros(shape if bare.startswith(b"[[") else (math.prod(shape),))
    if bare != zeros.translate(None, b"0"):
        _refuse_form(shape)
    numbers, model = _find_numbers(text, shape), _find_numbers(zeros, shape)
    if not np.array_equal(numbers.marks, model.marks):
        _refuse_form(shape)
    values = _values(numbers)
    if values.max() > 255:
        _refuse_number(b"%d" % values.max())
    return values.astype(np.uint8).reshape(shape)


def _find_numbers(text: bytes, shape: tuple[int, ...]) -> _Numbers:
    codes = np.frombuffer(text, np.uint8)
    digit = (codes >= _ZERO) & (codes <= _NINE)
    # The first and the last character are brackets.
    begins, ends = digit[1:] & ~digit[:-1], ~digit[1:] & digit[:-1]
    if np.count_nonzero(begins) != math.prod(shape):
        _refuse_form(shape)
    first = np.flatnonzero(begins) + 1
    marks = np.cumsum(_IS_MARK[codes], dtype=np.int32)[first]
    return _Numbers(codes, first, np.flatnonzero(ends) + 1 - first, marks)


def _values(numbers: _Numbers) -> NDArray[np.int16]:
    codes, first, length, _ = numbers
    wrong = np.flatnonzero((length > 3) | ((length > 1) & (codes[first] == _ZERO)))
    if len(wrong):
        begin = int(first[wrong[0]])
        _refuse_number(codes[begin : begin + min(int(length[wrong[0]]), 20)].tobytes())
    values = np.zeros(len(first), np.int16)
    for place in range(3):
        # What lies beyond the text is not looked at, since no number has its digits there.
        digit = codes[np.minimum(first + place, len(codes) - 1)].astype(np.int16) - _ZERO
        values = np.where(place < length, 10 * values + digit, values)
    return values


def _refuse_number(found: bytes) -> NoReturn:
    raise ArrayError(
        "must be whole numbers from 0 to 255, written without sign, point, exponent or leading "
        f"zeros; there is {found.decode(errors='replace')!a}."
    )


def _refuse_form(shape: tuple[int, ...]) -> NoReturn:
    raise ArrayError(
        f"is neither one array of {math.prod(shape):,} numbers nor arrays nested like the shape "
        f"{list(shape)}."
    )


def _zeros(shape: tuple[int, ...]) -> bytes:
    text = b"0"
    for size in reversed(shape):
        text = b"[" + b",".join([text] * size) + b"]"
    return text

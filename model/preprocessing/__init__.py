"""Preprocessing: from an image file or an array to the 28×28 input of the network."""

from model.preprocessing.decode import MAX_PIXELS, Decoding
from model.preprocessing.normalize import (
    INPUT_CONTRACT,
    SIDE,
    DigitImage,
    open_array,
    open_bytes,
    open_image,
)

__all__ = [
    "INPUT_CONTRACT",
    "MAX_PIXELS",
    "SIDE",
    "Decoding",
    "DigitImage",
    "open_array",
    "open_bytes",
    "open_image",
]

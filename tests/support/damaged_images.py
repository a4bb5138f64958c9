"""Image files with one defect each."""

import struct
import zlib

from PIL import Image

from tests.support.images import drawn_seven, encoded

__all__ = [
    "bmp_header",
    "damaged_chunk_sum",
    "damaged_header",
    "damaged_png",
    "png_chunk",
    "png_header",
    "text_bomb",
    "truncated",
]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file with its checksum."""
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png_header(side: int) -> bytes:
    """Return a PNG file of a signature and a header alone."""
    fields = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", fields)


def bmp_header(side: int) -> bytes:
    """Return a BMP file whose header states this size."""
    header = bytearray(encoded(Image.new("L", (8, 8)), "BMP"))
    header[18:26] = struct.pack("<ii", side, side)
    return bytes(header)


def truncated(form: str, share: float) -> bytes:
    """Return the first part of a file."""
    data = encoded(drawn_seven(), form)
    return data[: max(12, int(share * len(data)))]


def damaged_png(place: float) -> bytes:
    """Return a PNG with one byte of its pixel data changed and the checksum left as it was."""
    data = bytearray(encoded(drawn_seven()))
    start = data.index(b"IDAT")
    length = int.from_bytes(data[start - 4 : start], "big")
    data[start + 4 + int(place * (length - 1))] ^= 0x55
    return bytes(data)


def damaged_chunk_sum() -> bytes:
    """Return a PNG whose pixel data does not fit the checksum of its chunk."""
    data = bytearray(encoded(drawn_seven()))
    data[data.index(b"IEND") - 5] ^= 0x55
    return bytes(data)


def damaged_header() -> bytes:
    """Return a PNG whose header does not fit its checksum."""
    data = bytearray(encoded(drawn_seven()))
    data[19] ^= 0xFF  # the width
    return bytes(data)


def text_bomb() -> bytes:
    """Return a PNG whose compressed comment expands to 50 MB."""
    comment = b"Comment\0\0" + zlib.compress(bytes(50 * 2**20))
    return png_header(10) + png_chunk(b"zTXt", comment) + png_chunk(b"IEND", b"")

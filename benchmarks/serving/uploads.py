"""Requests that the benchmarks send: uploads of the documents' example of a seven."""

import io
from dataclasses import dataclass
from pathlib import Path

import httpx
from PIL import Image

from model import open_bytes

EXAMPLE = (Path(__file__).parents[2] / "docs" / "examples" / "seven.png").read_bytes()
"""An image file of 240×240 pixels."""


@dataclass(frozen=True)
class Upload:
    """A request to the service that is sent many times."""

    path: str
    content_type: str
    body: bytes


def example_digit() -> bytes:
    """The example as the network sees it: a PNG of 28×28 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(open_bytes(EXAMPLE).pixels).save(buffer, "PNG")
    return buffer.getvalue()


def upload(path: str, field: str, *images: bytes) -> Upload:
    """Build the multipart form with image files in a field."""
    files = [(field, ("seven.png", image, "image/png")) for image in images]
    form = httpx.Request("POST", "http://localhost", files=files)
    return Upload(path, form.headers["content-type"], form.read())

"""Whole requests as bytes, valid and invalid, with the status that each expects."""

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from tests.support.images import drawn_seven, encoded, oriented

__all__ = ["Asked", "form", "get", "images", "mixed", "post"]

_BOUNDARY = "a-form-of-the-load"


@dataclass(frozen=True)
class Asked:
    """A request, and the expected status."""

    request: bytes
    status: int


def get(path: str, *fields: str) -> bytes:
    """Return a GET request."""
    return _request("GET", path, b"", fields)


def post(path: str, *fields: str) -> bytes:
    """Return a POST request without a body."""
    return _request("POST", path, b"", fields)


def form(path: str, *files: bytes, fields: tuple[str, ...] = ()) -> bytes:
    """Return a POST request with files in the parts that the path expects."""
    name = "files" if path.partition("?")[0].endswith("/batch") else "file"
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode()
    body = b"".join(head + data + b"\r\n" for data in files) + f"--{_BOUNDARY}--\r\n".encode()
    kind = f"Content-Type: multipart/form-data; boundary={_BOUNDARY}"
    return _request("POST", path, body, (kind, *fields))


def images() -> list[bytes]:
    """Return files that are answered 200: digits of several sizes and formats, and no digits."""
    seven = drawn_seven()
    blank = Image.new("L", (120, 120), 250)
    eight = Image.new("L", (300, 200), 235)
    pen = ImageDraw.Draw(eight)
    pen.ellipse((110, 20, 180, 95), outline=30, width=14)
    pen.ellipse((105, 90, 185, 180), outline=30, width=14)
    noise = Image.frombytes("L", (90, 90), random.Random(1).randbytes(8100))
    return [
        *(encoded(drawn_seven(size)) for size in (28, 64, 200, 700)),
        encoded(drawn_seven(200, ink=240, paper=15)),
        *(encoded(seven, kind) for kind in ("JPEG", "WEBP", "BMP", "GIF", "TIFF")),
        encoded(seven.convert("RGBA")),
        oriented(6),
        encoded(eight),
        encoded(eight, "JPEG", quality=40),
        encoded(blank),
        encoded(noise),
    ]


def mixed(*, numbered: bool = False, seed: int = 0) -> list[Asked]:
    """Return mixed requests in a shuffled order: mostly images, some of them invalid.

    Args:
        numbered: Whether each has an `X-Request-ID`, so that problems also repeat their bytes.
        seed: Seed of the order.
    """
    files = images()
    seven = files[2]
    queries = (
        "", "?samples=40", "?level=0.5", "?samples=60&level=0.9", "?preview=true",
        "?draws=true", "?samples=4&level=0.5&draws=true&preview=true",
    )  # fmt: skip
    made = [(form(f"/predict{query}", file), 200) for file in files for query in queries]
    made += [
        (form("/predict/batch", *files), 200),
        (
            form("/predict/batch?samples=50&preview=true", *files[:3], b"no image", seven[:90]),
            200,
        ),
        (form("/predict/batch?draws=true", seven), 200),
        *((form("/predict/batch", *files[i : i + 4]), 200) for i in range(8)),
        (form("/predict", b"This is a seven."), 415),
        (form("/predict", seven[: len(seven) // 2]), 422),
        (form("/predict", b""), 422),
        (form("/predict"), 422),
        (form("/predict?samples=1", seven), 422),
        (form("/predict?level=2", seven), 422),
        (form("/predict/batch?samples=ten", seven), 422),
        (form("/predict", encoded(Image.new("1", (9000, 9000)))), 413),
        (form("/predict/nothing", seven), 404),
        (get("/predict"), 405),
        (get("/nothing"), 404),
        (post("/model/reload"), 403),
        *((get(path), 200) for path in ("/health/live", "/health/ready", "/openapi.json", "/")),
    ]
    random.Random(seed).shuffle(made)
    if numbered:
        made = [
            (_named(request, f"request-{i}"), status) for i, (request, status) in enumerate(made)
        ]
    return [Asked(request, status) for request, status in made]


def _request(method: str, path: str, body: bytes, fields: tuple[str, ...]) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Length: {len(body)}",
        *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _named(request: bytes, name: str) -> bytes:
    return request.replace(b"\r\n", f"\r\nX-Request-ID: {name}\r\n".encode(), 1)

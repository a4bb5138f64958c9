"""Every format and mode of a digit's image gives the same digit."""

import base64
import io
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support.images import drawn_seven, encoded, oriented

WIDE = (4000, 1)


def grey() -> np.ndarray:
    return np.asarray(drawn_seven())


def mask() -> Image.Image:
    """Opaque where the seven is."""
    return drawn_seven(ink=255, paper=0)


def one_bit() -> Image.Image:
    return drawn_seven().convert("1", dither=Image.Dither.NONE)


def low_bits_set() -> np.ndarray:
    """16-bit grey whose low 12 bits are noise: only the high 4 bits hold the seven."""
    noise = np.random.default_rng(0).integers(0, 4096, (200, 200))
    return ((grey() & 0xF0).astype(np.uint16) << 8 | noise).astype(np.uint16)


def transparent(mode: str, ink: int) -> Image.Image:
    """One colour everywhere, and an alpha channel that alone holds the seven."""
    plain = Image.new("L", (200, 200), ink)
    return Image.merge(mode, [plain] * (len(mode) - 1) + [mask()])


def palette(ink: int) -> Image.Image:
    """Two palette entries of the same colour; the second is for the transparent paper."""
    image = Image.fromarray((grey() > 128).astype(np.uint8))
    image.putpalette([ink] * 6)
    return image


def blue_on_yellow() -> Image.Image:
    paper, ink = Image.new("RGB", (200, 200), "#f5e6a0"), Image.new("RGB", (200, 200), "#1a2a80")
    return Image.composite(ink, paper, mask())


def several(form: str, *images: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    images[0].save(buffer, form, save_all=True, append_images=list(images[1:]), **options)
    return buffer.getvalue()


def ask(client: httpx.Client, image: bytes) -> dict[str, Any]:
    """Ask for an answer; its preview is decoded to an array."""
    answer = client.post("/predict?preview=true", files={"file": image})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    data = base64.b64decode(body["preview"].split(",")[1])
    with Image.open(io.BytesIO(data)) as preview:
        body["preview"] = np.asarray(preview)
    return body


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.fixture(scope="module")
def plain(client: httpx.Client, seven_png: bytes) -> np.ndarray:
    """The network's input for the plain grey PNG."""
    preview: np.ndarray = ask(client, seven_png)["preview"]
    return preview


RENDERINGS: dict[str, Callable[[], bytes]] = {
    "PNG RGB": lambda: encoded(drawn_seven().convert("RGB")),
    "PNG coloured": lambda: encoded(blue_on_yellow()),
    "PNG light on dark": lambda: encoded(drawn_seven(ink=240, paper=20)),
    "PNG 1 bit": lambda: encoded(one_bit()),
    "PNG 1 bit, light on dark": lambda: encoded(drawn_seven(ink=255, paper=0).convert("1")),
    "PNG 16 bits": lambda: encoded(Image.fromarray(grey().astype(np.uint16) * 257)),
    "PNG 16 bits, low bits set": lambda: encoded(Image.fromarray(low_bits_set())),
    "PNG 12 of 16 bits": lambda: encoded(Image.fromarray(grey().astype(np.uint16) * 16 + 7)),
    "PNG palette": lambda: encoded(blue_on_yellow().quantize(8)),
    "PNG palette, black on transparent": lambda: encoded(palette(0), transparency=1),
    "PNG palette, white on transparent": lambda: encoded(palette(255), transparency=1),
    "PNG transparent grey": lambda: encoded(drawn_seven(), transparency=240),
    "PNG transparent RGB": lambda: encoded(
        drawn_seven().convert("RGB"), transparency=(240, 240, 240)
    ),
    "PNG LA, black on transparent": lambda: encoded(transparent("LA", 0)),
    "PNG LA, white on transparent": lambda: encoded(transparent("LA", 255)),
    "PNG RGBA, black on transparent": lambda: encoded(transparent("RGBA", 0)),
    "PNG RGBA, white on transparent": lambda: encoded(transparent("RGBA", 255)),
    "PNG RGBA, opaque": lambda: encoded(drawn_seven().convert("RGBA")),
    "PNG with bytes after its end": lambda: encoded(drawn_seven()) + b"more",
    "PNG 28 × 28": lambda: encoded(drawn_seven().resize((28, 28))),
    "PNG of 4000 pixels a side": lambda: encoded(drawn_seven(4000)),
    "PNG animated": lambda: several("PNG", drawn_seven(), Image.new("L", (200, 200), 240)),
    "JPEG grey": lambda: encoded(drawn_seven(), "JPEG"),
    "JPEG RGB, progressive": lambda: encoded(
        drawn_seven().convert("RGB"), "JPEG", progressive=True
    ),
    "JPEG CMYK": lambda: encoded(drawn_seven().convert("CMYK"), "JPEG"),
    "JPEG of 4000 pixels a side": lambda: encoded(drawn_seven(4000), "JPEG"),
    "JPEG of two images (MPO)": lambda: several(
        "MPO", drawn_seven(), Image.new("L", (200, 200), 240)
    ),
    "JPEG with damaged EXIF": lambda: encoded(drawn_seven(), "JPEG", exif=b"Exif\0\0II*\0noise"),
    "WebP": lambda: encoded(drawn_seven(), "WEBP"),
    "WebP lossless, black on transparent": lambda: encoded(
        transparent("RGBA", 0), "WEBP", lossless=True
    ),
    "WebP animated": lambda: several(
        "WEBP", drawn_seven().convert("RGB"), Image.new("RGB", (200, 200), "white")
    ),
    "BMP": lambda: encoded(drawn_seven(), "BMP"),
    "BMP RGB": lambda: encoded(drawn_seven().convert("RGB"), "BMP"),
    "BMP 1 bit": lambda: encoded(one_bit(), "BMP"),
    "GIF": lambda: encoded(drawn_seven(), "GIF"),
    "GIF, white on transparent": lambda: encoded(palette(255), "GIF", transparency=1),
    "TIFF": lambda: encoded(drawn_seven(), "TIFF"),
    "TIFF LZW": lambda: encoded(drawn_seven(), "TIFF", compression="tiff_lzw"),
    "TIFF JPEG": lambda: encoded(drawn_seven(), "TIFF", compression="jpeg"),
    "TIFF fax": lambda: encoded(one_bit(), "TIFF", compression="group4"),
    "TIFF CMYK": lambda: encoded(drawn_seven().convert("CMYK"), "TIFF"),
    "TIFF 16 bits": lambda: encoded(Image.fromarray(grey().astype(np.uint16) * 257), "TIFF"),
    "TIFF 16 bits, big-endian": lambda: encoded(
        Image.fromarray((grey().astype(np.uint16) * 257).astype(">u2")), "TIFF"
    ),
    "TIFF 32 bits": lambda: encoded(Image.fromarray(grey().astype(np.int32) * 65_793), "TIFF"),
    "TIFF float from 0 to 1": lambda: encoded(
        Image.fromarray((grey() / 255).astype(np.float32)), "TIFF"
    ),
    "TIFF float from 0 to 255": lambda: encoded(Image.fromarray(grey().astype(np.float32)), "TIFF"),
    "TIFF float around 0": lambda: encoded(
        Image.fromarray((grey() / 127.5 - 1).astype(np.float32)), "TIFF"
    ),
    "TIFF float from 0 to 1, resampled": lambda: encoded(
        Image.fromarray((grey() / 240).astype(np.float32)).resize(
            (300, 300), Image.Resampling.LANCZOS
        ),
        "TIFF",
    ),
    "TIFF of two pages": lambda: several("TIFF", drawn_seven(), Image.new("L", (200, 200), 240)),
}


@pytest.mark.parametrize("kind", RENDERINGS)
def test_the_seven_is_read_from_every_rendering(
    client: httpx.Client, plain: np.ndarray, kind: str
) -> None:
    body = ask(client, RENDERINGS[kind]())
    assert body["prediction"] == "7"
    assert body["reasons"] in ([], ["uncertain"])
    assert likeness(body["preview"], plain) > 0.9


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(
    client: httpx.Client, plain: np.ndarray, orientation: int
) -> None:
    body = ask(client, oriented(orientation))
    assert body["prediction"] == "7"
    assert likeness(body["preview"], plain) > 0.98  # turned or mirrored it would be below 0.5


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG"])
@pytest.mark.parametrize("seven_first", [True, False], ids=["seven first", "blank first"])
def test_only_the_first_frame_or_page_counts(
    client: httpx.Client, form: str, seven_first: bool
) -> None:
    frames = [drawn_seven().convert("RGB"), Image.new("RGB", (200, 200), (240, 240, 240))]
    body = ask(client, several(form, *(frames if seven_first else frames[::-1])))
    if seven_first:
        assert body["prediction"] == "7"
    assert ("no_ink" in body["reasons"]) is not seven_first


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 4000), (4000, 1)])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_blank_images_of_odd_sizes_have_no_ink(
    client: httpx.Client, size: tuple[int, int], form: str
) -> None:
    for paper in (0, 255):
        body = ask(client, encoded(Image.new("L", size, paper), form))
        assert "no_ink" in body["reasons"]
        assert not body["preview"].any()


@pytest.mark.parametrize("tall", [True, False], ids=["1 × 4000", "4000 × 1"])
@pytest.mark.parametrize("inked", [1, 40, 2000])
def test_lines_of_one_pixel_are_answered(client: httpx.Client, tall: bool, inked: int) -> None:
    line = np.full(WIDE[0], 255, np.uint8)
    line[100 : 100 + inked] = 0
    body = ask(client, encoded(Image.fromarray(line[:, None] if tall else line[None])))
    assert body["preview"].shape == (28, 28)


def test_a_dithered_scan_is_read(client: httpx.Client) -> None:
    assert ask(client, encoded(drawn_seven().convert("1")))["prediction"] == "7"


@pytest.mark.parametrize(("ink", "paper"), [(150, 200), (110, 60), (0, 40)])
def test_faint_ink_is_read(client: httpx.Client, ink: int, paper: int) -> None:
    assert ask(client, encoded(drawn_seven(ink=ink, paper=paper)))["prediction"] == "7"

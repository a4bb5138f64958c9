"""Normalization: any image of a digit to the same 28×28 input, within limits."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from model import (
    CorruptImageError,
    ImageTooLargeError,
    UnsupportedFormatError,
    open_array,
    open_bytes,
)
from model.preprocessing.decode import essential_png, read_image
from model.preprocessing.normalize import open_image
from tests.support.fuzz.strategies import fuzz_examples
from tests.support.images import drawn_seven, encoded, oriented


def seen(image: Image.Image, form: str = "PNG", **options: object) -> np.ndarray:
    found = open_bytes(encoded(image, form, **options))
    assert found.reasons == ()
    return found.pixels.astype(float)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


PLAIN = open_bytes(encoded(drawn_seven())).pixels.astype(float)


def test_the_input_is_as_the_contract_says() -> None:
    rows, columns = np.flatnonzero(PLAIN.max(1) > 38), np.flatnonzero(PLAIN.max(0) > 38)
    longer = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    assert PLAIN.max() == 255
    assert 18 <= longer <= 20
    for axis in (0, 1):
        profile = PLAIN.sum(axis)
        centre = (profile * np.arange(28)).sum() / profile.sum()
        assert abs(centre - 14) <= 0.5


def test_polarity_size_place_and_format_do_not_matter() -> None:
    variants = {
        "light on dark": seen(drawn_seven(ink=250, paper=5)),
        "small": seen(drawn_seven().resize((40, 40))),
        "large": seen(drawn_seven(1500)),
        "faint": seen(drawn_seven(ink=150, paper=200)),
        "jpeg": seen(drawn_seven(), "JPEG", quality=70),
        "webp": seen(drawn_seven(), "WEBP"),
        "off centre": seen(on_larger_paper(drawn_seven())),
        "coloured": seen(
            Image.merge("RGB", [drawn_seven()] * 2 + [Image.new("L", (200, 200), 90)])
        ),
    }
    for name, pixels in variants.items():
        assert likeness(pixels, PLAIN) > 0.9, name


def on_larger_paper(image: Image.Image) -> Image.Image:
    paper = Image.new("L", (500, 300), 240)
    paper.paste(image, (10, 90))
    return paper


def test_the_aspect_is_kept() -> None:
    bar = np.zeros((100, 100), np.uint8)
    bar[10:90, 46:54] = 255
    pixels = open_array(bar).pixels
    height = np.flatnonzero(pixels.max(1) > 38).size
    width = np.flatnonzero(pixels.max(0) > 38).size
    assert (height, width) == (20, 2)


@pytest.mark.parametrize("paper", [0, 128, 255])
def test_a_blank_image_has_the_reason_no_ink(paper: int) -> None:
    found = open_array(np.full((40, 30), paper, np.uint8))
    assert found.reasons == ("no_ink",)
    assert found.pixels.max() == 0


def test_faint_noise_is_no_foreground() -> None:
    noise = np.random.default_rng(0).integers(245, 256, (60, 60), dtype=np.uint8)
    assert open_array(noise).reasons == ("no_ink",)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    pixels = open_bytes(oriented(orientation)).pixels.astype(float)
    assert likeness(pixels, PLAIN) > 0.98


@pytest.mark.parametrize(("ink", "hidden_paper"), [(0, 0), (255, 255), (0, 255)])
def test_a_transparent_background_contrasts_with_the_digit(ink: int, hidden_paper: int) -> None:
    alpha = drawn_seven(ink=255, paper=0)
    grey = Image.composite(
        Image.new("L", alpha.size, ink), Image.new("L", alpha.size, hidden_paper), alpha
    )
    assert likeness(seen(Image.merge("LA", [grey, alpha])), PLAIN) > 0.98


@pytest.mark.parametrize("top", [4095, 65535])
def test_sixteen_bits_are_read_in_full(top: int) -> None:
    deep = (np.asarray(drawn_seven(ink=0, paper=255), np.float64) / 255 * top).astype(np.uint16)
    for form in ("PNG", "TIFF"):
        assert likeness(seen(Image.fromarray(deep), form), PLAIN) > 0.98


def test_floating_point_images_are_read() -> None:
    grey = np.asarray(drawn_seven(), np.float32)
    assert likeness(seen(Image.fromarray(grey / 255), "TIFF"), PLAIN) > 0.98
    broken = grey.copy()
    broken[3, 3] = np.nan
    with pytest.raises(CorruptImageError):
        open_bytes(encoded(Image.fromarray(broken), "TIFF"))


def test_arrays_of_every_kind_are_read_alike() -> None:
    grey = np.asarray(drawn_seven())
    for array in (grey, grey / 255, grey.astype(int), np.dstack([grey] * 3), grey.tolist()):
        assert likeness(open_array(array).pixels.astype(float), PLAIN) > 0.99
    assert likeness(open_array(grey < 128).pixels.astype(float), PLAIN) > 0.95


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 5)),
        np.zeros(28),
        np.zeros((2, 28, 28)),
        np.full((5, 5), 256),
        np.full((5, 5), -1),
        np.full((5, 5), 1.5),
        np.full((5, 5), np.nan),
    ],
)
def test_an_array_that_is_not_an_image_is_rejected(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        open_array(array)


@pytest.mark.parametrize("data", [b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-"])
def test_other_formats_are_named_as_such(data: bytes) -> None:
    with pytest.raises(UnsupportedFormatError, match="PNG"):
        open_bytes(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.8])
def test_truncated_files_are_corrupt(form: str, share: float) -> None:
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(rng.integers(0, 256, (80, 80), dtype=np.uint8)), form)
    with pytest.raises(CorruptImageError):
        open_bytes(data[: max(6, int(share * len(data)))])


def test_an_empty_file_is_corrupt() -> None:
    with pytest.raises(CorruptImageError, match="empty"):
        open_bytes(b"")


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 2**20) + b"IDAT"


@pytest.mark.parametrize("side", [5_001, 9_000, 12_000, 20_000, 100_000])
def test_a_decompression_bomb_is_rejected_from_its_header(side: int) -> None:
    with pytest.raises(ImageTooLargeError, match="25,000,000"):
        open_bytes(png_header(side, side))


def test_the_pixel_limit_can_be_set() -> None:
    data = encoded(drawn_seven(100))
    assert open_bytes(data, max_pixels=10_000).reasons == ()
    with pytest.raises(ImageTooLargeError, match="9,999"):
        open_bytes(data, max_pixels=9_999)


@settings(max_examples=fuzz_examples(60), deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_any_array_gives_a_valid_input(array: np.ndarray) -> None:
    found = open_array(array)
    assert found.pixels.shape == (28, 28)
    assert found.pixels.dtype == np.uint8
    assert (found.pixels.max() == 0) == ("no_ink" in found.reasons)


def odd_grey(kind: str, width: int, height: int, seed: int) -> np.ndarray:
    """An image that is hardly a digit."""
    rng = np.random.default_rng(seed)
    grey = np.full((height, width), rng.integers(256), np.uint8)
    if kind == "noise":
        grey = rng.integers(0, 256, (height, width), dtype=np.uint8)
    elif kind == "dots":
        grey = (rng.random((height, width)) < rng.random()).astype(np.uint8) * 255
    elif kind == "one pixel":
        grey[rng.integers(height), rng.integers(width)] ^= 255
    elif kind == "a block":
        top, left = rng.integers(height), rng.integers(width)
        grey[top : top + 1 + height // 3, left : left + 1 + width // 3] ^= 255
    elif kind == "stripes":
        grey[:: rng.integers(1, 9)] = rng.integers(256)
    elif kind == "waves":
        slopes = rng.integers(0, 5, 2)
        total = np.add.outer(np.arange(height) * slopes[0], np.arange(width) * slopes[1])
        grey = (total % 256).astype(np.uint8)
    return grey


MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P"),
    "TIFF": ("1", "L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"),
}


@settings(max_examples=fuzz_examples(60), deadline=None)
@given(st.data())
def test_any_image_of_any_mode_gives_a_valid_input(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(sorted(MODES)))
    mode = data.draw(st.sampled_from(MODES[form]))
    kinds = ["flat", "noise", "dots", "one pixel", "a block", "stripes", "waves"]
    sides = st.one_of(st.integers(1, 60), st.integers(60, 700))
    grey = odd_grey(
        data.draw(st.sampled_from(kinds)), data.draw(sides), data.draw(sides),
        data.draw(st.integers(0, 2**16)),
    )  # fmt: skip
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        via = Image.fromarray(grey)
        image = (via.convert("RGB") if mode in {"LAB", "YCbCr", "CMYK"} else via).convert(mode)
    found = open_bytes(encoded(image, form))
    assert found.pixels.shape == (28, 28)
    assert found.pixels.dtype == np.uint8
    assert (found.pixels.max() == 0) == ("no_ink" in found.reasons)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "LAB", "I;16", "F"])
def test_a_large_image_is_reduced_in_strips_to_the_same(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = np.asarray(drawn_seven(2500).resize((2300, 2500)))
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "LAB":
        image = Image.merge("LAB", [Image.fromarray(grey)] * 3)
    elif mode in {"LA", "RGBA"}:
        colours = [Image.new("L", grey.shape[::-1], 20)] * (len(mode) - 1)
        image = Image.merge(mode, [*colours, Image.fromarray(255 - grey)])
    else:
        image = Image.fromarray(grey).convert(mode)
    in_strips = read_image(image)
    assert max(in_strips.size) <= 1024
    monkeypatch.setattr("model.preprocessing.decode._STRIP_PIXELS", 10**9)
    whole = read_image(image)
    assert whole.mode == in_strips.mode
    np.testing.assert_array_equal(np.asarray(whole), np.asarray(in_strips))
    seen = open_image(image)
    assert seen.reasons == ()
    assert likeness(seen.pixels.astype(float), PLAIN) > 0.9


@settings(max_examples=fuzz_examples(60), deadline=None)
@given(st.data())
def test_damaged_files_raise_nothing_but_the_documented_errors(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"]))
    damaged = bytearray(encoded(drawn_seven(40), form))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = open_bytes(bytes(damaged))
    except (CorruptImageError, UnsupportedFormatError, ImageTooLargeError):
        return
    assert found.pixels.shape == (28, 28)


def png_with(*notes: tuple[bytes, bytes]) -> bytes:
    data = encoded(drawn_seven(100))
    chunks = b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        for kind, body in notes
    )
    return data[:33] + chunks + data[33:]


def test_texts_in_a_png_are_not_inflated() -> None:
    bomb = b"k\0\1\0\0\0" + zlib.compress(b"a" * 10**7)
    tracemalloc.start()
    found = open_bytes(png_with(*[(b"iTXt", bomb)] * 20, (b"tEXt", b"k\0" + b"a" * 1000)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.reasons == ()
    assert peak < 5e6


def test_a_png_of_many_chunks_is_reduced_to_its_essential_ones() -> None:
    plain = encoded(drawn_seven(100))
    crowded = png_with(*[(b"abCd", b""), (b"IDAT", b""), (b"eXIf", b"")] * 1000)
    assert len(essential_png(crowded)) < len(plain) + 50
    np.testing.assert_array_equal(open_bytes(crowded).pixels, open_bytes(plain).pixels)


def test_a_png_whose_checksums_are_wrong_is_corrupt() -> None:
    data = bytearray(encoded(drawn_seven(100)))
    data[-20] ^= 1
    with pytest.raises(CorruptImageError, match="checksum"):
        open_bytes(bytes(data))


def test_a_jpeg_of_too_many_scans_is_rejected() -> None:
    data = encoded(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert open_bytes(data).reasons == ("no_ink",)
    with pytest.raises(CorruptImageError, match="scans"):
        open_bytes(data[:-2] + data[last:-2] * 200 + data[-2:])


def test_only_the_first_frame_counts() -> None:
    buffer = io.BytesIO()
    blank = Image.new("L", (200, 200), 240)
    drawn_seven().save(buffer, "GIF", save_all=True, append_images=[blank])
    assert likeness(open_bytes(buffer.getvalue()).pixels.astype(float), PLAIN) > 0.98

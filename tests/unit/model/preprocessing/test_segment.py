"""Segmentation of realistic images: light, lines, frames, colours, pens, sizes."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from model import DigitImage, open_bytes
from model.preprocessing.contrast import colour_axis
from tests.support.images import drawn_seven, encoded

SIDE = 300


def seen(image: Image.Image, form: str = "PNG", **options: object) -> DigitImage:
    return open_bytes(encoded(image, form, **options))


def likeness(image: Image.Image) -> float:
    """Correlation of what the network sees with what it sees of the plain seven."""
    found = seen(image)
    assert found.reasons == ()
    return float(np.corrcoef(found.pixels.ravel(), PLAIN.ravel())[0, 1])


PLAIN = seen(drawn_seven(SIDE)).pixels.astype(float)


def lit(light: np.ndarray, image: Image.Image | None = None) -> Image.Image:
    """An image under light that is a share (H, W) or (H, W, 1) of full light."""
    grey = np.asarray(image or drawn_seven(SIDE), np.float32)
    return Image.fromarray((grey * light).clip(0, 255).astype(np.uint8))


def place() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j]
    return y, x


def noisy(image: Image.Image, sigma: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, sigma, image.size[::-1])
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def lined(colour: int, step: int, width: int = 2, *, squared: bool = False) -> Image.Image:
    image = drawn_seven(SIDE)
    pen = ImageDraw.Draw(image)
    for at in range(step // 2, SIDE, step):
        pen.line((0, at, SIDE, at + 3), fill=colour, width=width)
        if squared:
            pen.line((at, 0, at - 3, SIDE), fill=colour, width=width)
    points = [(0.27 * SIDE, 0.23 * SIDE), (0.73 * SIDE, 0.23 * SIDE), (0.45 * SIDE, 0.82 * SIDE)]
    pen.line(points, fill=20, width=SIDE // 12, joint="curve")
    return image


def framed() -> Image.Image:
    image = drawn_seven(SIDE)
    ImageDraw.Draw(image).rectangle((18, 12, SIDE - 18, SIDE - 12), outline=30, width=4)
    return image


def dusty() -> Image.Image:
    image = drawn_seven(SIDE)
    pen = ImageDraw.Draw(image)
    for x, y in np.random.default_rng(3).integers(0, SIDE, (25, 2)):
        pen.ellipse((x, y, x + 3, y + 3), fill=0)
    return image


def coloured(ink: str, paper: str) -> Image.Image:
    mask = drawn_seven(SIDE, ink=255, paper=0)
    return Image.composite(
        Image.new("RGB", mask.size, ink), Image.new("RGB", mask.size, paper), mask
    )


def broken() -> Image.Image:
    """A pen that skipped: the seven in three parts."""
    image = drawn_seven(SIDE)
    pen = ImageDraw.Draw(image)
    pen.rectangle((120, 40, 130, 90), fill=240)
    pen.rectangle((130, 150, 260, 158), fill=240)
    return image


def small_in_a_corner() -> Image.Image:
    sheet = Image.new("L", (2000, 1500), 240)
    sheet.paste(drawn_seven(120), (1700, 1200))
    return sheet


CASES: dict[str, Callable[[], Image.Image]] = {
    "light that falls off": lambda: lit(1 - 0.5 * place()[1] - 0.2 * place()[0]),
    "a dark vignette": lambda: lit(1 - 1.2 * ((place()[0] - 0.5) ** 2 + (place()[1] - 0.5) ** 2)),
    "a shadow with a hard edge": lambda: lit(np.where(place()[1] + 0.3 * place()[0] > 0.6, 0.4, 1)),
    "a shadow through a soft edge": lambda: lit(1 - 0.5 * np.clip(4 * place()[0] - 1.5, 0, 1)),
    "noise": lambda: noisy(drawn_seven(SIDE), 25),
    "faint ink under noise": lambda: noisy(drawn_seven(SIDE, ink=150, paper=200), 10),
    "blur": lambda: drawn_seven(SIDE).filter(ImageFilter.GaussianBlur(5)),
    "ruled paper": lambda: lined(150, 40),
    "ruled paper, lines as dark as ink": lambda: lined(20, 60),
    "squared paper": lambda: lined(120, 50, squared=True),
    "squared paper, lines as dark as ink": lambda: lined(20, 75, squared=True),
    "a frame": framed,
    "dust": dusty,
    "a broken pen": broken,
    "yellow on white": lambda: coloured("#ffe020", "#ffffff"),
    "white on yellow": lambda: coloured("#ffffff", "#f0d020"),
    "red on green, equally bright": lambda: coloured("#c00000", "#006200"),
    "small in the corner of a large sheet": small_in_a_corner,
}


@pytest.mark.parametrize("case", CASES)
def test_the_seven_is_found(case: str) -> None:
    assert likeness(CASES[case]()) > 0.85


def with_pen(width: int) -> Image.Image:
    image = Image.new("L", (SIDE, SIDE), 240)
    points = [(80, 70), (220, 70), (135, 245)]
    ImageDraw.Draw(image).line(points, fill=20, width=width, joint="curve")
    return image


def stroke_width(pixels: np.ndarray) -> float:
    """Ink over the length of the seven's strokes, both in pixels of the 28×28 input."""
    ink = pixels.astype(float) / 255
    height = np.ptp(np.flatnonzero(ink.max(axis=1) > 0.5)) + 1
    length = (140 + np.hypot(85, 175)) * height / 180
    return float(ink.sum() / length)


@pytest.mark.parametrize("pen", [1, 2, 4, 8, 20, 40, 60])
def test_strokes_of_any_width_become_about_as_wide_as_mnists(pen: int) -> None:
    assert 1.3 <= stroke_width(seen(with_pen(pen)).pixels) <= 5.0


def test_the_axis_of_black_on_white_is_grey_and_of_yellow_on_white_blue() -> None:
    np.testing.assert_allclose(
        colour_axis(np.asarray(drawn_seven(60).convert("RGB"))), [1 / 3] * 3, atol=1e-3
    )
    yellow = np.asarray(coloured("#ffff00", "#ffffff").resize((60, 60)))
    np.testing.assert_allclose(colour_axis(yellow), [0, 0, 1], atol=1e-3)


def beside(*parts: Image.Image, vertical: bool = False) -> Image.Image:
    size = parts[0].width
    sheet = Image.new(
        "L", (size, size * len(parts)) if vertical else (size * len(parts), size), 240
    )
    for i, part in enumerate(parts):
        sheet.paste(part, (0, i * size) if vertical else (i * size, 0))
    return sheet


@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("size", [40, 200, 600])
def test_several_shapes_are_named(n: int, size: int, vertical: bool) -> None:
    image = beside(*[drawn_seven(size)] * n, vertical=vertical)
    assert "several_shapes" in seen(image).reasons


def shape(draw: Callable[[ImageDraw.ImageDraw], object]) -> Image.Image:
    image = Image.new("L", (SIDE, SIDE), 240)
    draw(ImageDraw.Draw(image))
    return image


@pytest.mark.parametrize(
    "draw",
    [
        lambda pen: pen.rectangle((60, 60, 240, 230), fill=10),
        lambda pen: pen.ellipse((50, 60, 250, 240), fill=10),
        lambda pen: pen.line((20, 150, 280, 140), fill=10, width=12),
        lambda pen: pen.ellipse((100, 100, 108, 108), fill=10),
        lambda pen: [pen.line((x, 40, x + 30, 260), fill=10, width=6) for x in range(30, 250, 18)],
    ],
    ids=["a block", "a disc", "a dash", "a dot", "hatching"],
)
def test_what_fills_no_box_of_a_digit_is_named(
    draw: Callable[[ImageDraw.ImageDraw], object],
) -> None:
    assert "not_digit_shaped" in seen(shape(draw)).reasons


def test_specks_all_over_are_no_digit() -> None:
    specks = np.full((SIDE, SIDE), 240, np.uint8)
    for y, x in np.random.default_rng(1).integers(0, SIDE - 8, (150, 2)):
        specks[y : y + 6, x : x + 6] = 10
    assert {"several_shapes", "not_digit_shaped"} & set(seen(Image.fromarray(specks)).reasons)


def test_noise_alone_is_no_digit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    assert seen(Image.fromarray(noise)).reasons


@pytest.mark.parametrize("case", ["a shadow with a hard edge", "a dark vignette"])
def test_light_alone_is_no_ink(case: str) -> None:
    paper = Image.new("L", (SIDE, SIDE), 230)
    light = np.asarray(CASES[case](), np.float32) / np.maximum(np.asarray(drawn_seven(SIDE)), 1)
    assert seen(lit(light, paper)).reasons == ("no_ink",)


FIGURES: dict[str, list[list[tuple[float, float]]]] = {
    "0": [[(50 + 28 * np.cos(t), 50 + 40 * np.sin(t)) for t in np.linspace(0, 6.4, 40)]],
    "2": [[(25, 25), (40, 10), (65, 12), (72, 30), (25, 88), (78, 88)]],
    "4": [[(62, 10), (20, 62), (82, 62)], [(64, 40), (64, 92)]],
    "5": [[(75, 10), (30, 10), (28, 45), (60, 42), (75, 62), (55, 88), (25, 82)]],
    "7": [[(25, 14), (75, 14), (45, 88)]],
}


def figure(name: str, pen: int) -> Image.Image:
    image = Image.new("L", (SIDE, SIDE), 255)
    for stroke in FIGURES[name]:
        points = [(3 * x, 3 * y) for x, y in stroke]
        ImageDraw.Draw(image).line(points, fill=0, width=pen, joint="curve")
    return image


def alike(one: DigitImage, two: DigitImage) -> float:
    """Correlation at the best of all shifts by one pixel: centres are rounded to whole pixels."""
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    moved = (np.roll(one.pixels, shift, (0, 1)).ravel() for shift in shifts)
    return max(float(np.corrcoef(pixels, two.pixels.ravel())[0, 1]) for pixels in moved)


def cropped(image: Image.Image, margin: float) -> Image.Image:
    """Cropped to the ink, with a margin relative to its longer side."""
    box = Image.eval(image, lambda value: 255 - value).getbbox()
    assert box is not None
    room = round(margin * max(box[2] - box[0], box[3] - box[1]))
    edges = (box[0] - room, box[1] - room, box[2] + room, box[3] + room)
    inverted = Image.eval(image, lambda value: 255 - value).crop(edges)
    return Image.eval(inverted, lambda value: 255 - value)


@pytest.mark.parametrize("soft", [0, 6])
@pytest.mark.parametrize("light_ink", [False, True])
@pytest.mark.parametrize("margin", [0, 0.02, 0.05])
@pytest.mark.parametrize("pen", [14, 40])
@pytest.mark.parametrize("name", FIGURES)
def test_a_digit_that_fills_its_image_is_found(
    name: str, pen: int, margin: float, light_ink: bool, soft: float
) -> None:
    whole = figure(name, pen).filter(ImageFilter.GaussianBlur(soft))
    tight = cropped(whole.point(lambda value: 255 if value > 140 else value), margin)
    if light_ink:
        tight = Image.eval(tight, lambda value: 255 - value)
    found, expected = seen(tight), seen(whole)
    assert found.reasons == expected.reasons == ()
    assert alike(found, expected) > 0.9


@pytest.mark.parametrize("side", [25, 40, 60])
def test_a_small_digit_on_a_large_sheet_is_found(side: int) -> None:
    sheet = Image.new("L", (1000, 800), 255)
    sheet.paste(cropped(figure("2", 24), 0).resize((side * 2 // 3, side)), (610, 500))
    found, expected = seen(sheet), seen(figure("2", 24))
    assert found.reasons == ()
    assert alike(found, expected) > 0.85


def test_a_line_of_a_form_through_the_digit_is_taken_away() -> None:
    crossed = figure("7", 16)
    ImageDraw.Draw(crossed).line((0, 200, SIDE, 200), fill=0, width=4)
    found, expected = seen(crossed), seen(figure("7", 16))
    assert found.reasons == ()
    assert alike(found, expected) > 0.85


@pytest.mark.parametrize("turned", [False, True])
def test_a_band_of_shadow_is_no_digit(turned: bool) -> None:
    across = place()[0] if turned else place()[1]
    light = np.where((across > 0.35) & (across < 0.6), 0.45, 1)
    assert "not_digit_shaped" in seen(lit(light, Image.new("L", (SIDE, SIDE), 230))).reasons


@pytest.mark.parametrize("digit", ["one", "seven"])
def test_a_stroke_from_edge_to_edge_is_no_ruled_line(digit: str) -> None:
    """A tightly cropped 1, or the bar of a tightly cropped 7, touches both edges too."""
    image = Image.new("L", (120, 200), 240)
    pen = ImageDraw.Draw(image)
    if digit == "one":
        pen.line((60, 0, 60, 200), fill=20, width=16)
    else:
        pen.line([(0, 8), (119, 8), (50, 199)], fill=20, width=16, joint="curve")
    found = seen(image)
    assert found.reasons == ()
    rows = np.flatnonzero(found.pixels.max(axis=1) > 128)
    assert rows[-1] - rows[0] + 1 >= 19
    if digit == "seven":
        assert (found.pixels[rows[0] : rows[0] + 2] > 128).sum() > 14  # the bar is still there


def test_an_empty_frame_is_shown_as_it_is() -> None:
    frame = shape(lambda pen: pen.rectangle((40, 40, 260, 260), outline=10, width=5))
    found = seen(frame)
    assert found.pixels[13:16].any()
    assert not found.pixels[13:16, 13:16].any()

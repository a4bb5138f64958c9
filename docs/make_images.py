"""Draw the images of the documents: `python -m docs.make_images`.

It writes the example digits, the figure of their answers and the figure of preprocessing. `make
images` runs it. The strokes are this project's own.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from model import load
from model.preprocessing.normalize import open_image
from training.reporting.plots import plot_predictions, plot_preprocessing

HERE = Path(__file__).parent
SIZE, FINE = 240, 4

# Corner points of strokes on a paper of 100 × 100.
STROKES = {
    "seven": [[(28, 24), (70, 22), (62, 40), (50, 60), (43, 82)]],
    "four-or-nine": [
        [(49, 18), (40, 24), (33, 34), (32, 50), (62, 48)],
        [(64, 18), (63, 50), (60, 84)],
    ],
    "letter": [[(22, 84), (50, 16), (78, 84)], [(33, 58), (67, 58)]],
    "blank": [],
}


def draw(strokes: list[list[tuple[int, int]]], thickness: float = 0.075) -> Image.Image:
    """Draw smooth strokes on paper: large, then reduced."""
    side = SIZE * FINE
    image = Image.new("L", (side, side), 243)
    pen = ImageDraw.Draw(image)
    width = int(thickness * side)
    for stroke in strokes:
        points = [(x * side / 100, y * side / 100) for x, y in smooth(stroke)]
        pen.line(points, fill=40, width=width, joint="curve")
        for x, y in points:
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=40)
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def smooth(points: Sequence[tuple[float, float]], rounds: int = 3) -> list[tuple[float, float]]:
    """Cut corners (Chaikin 1974), so that a polyline looks hand-drawn."""
    for _ in range(rounds):
        cut = [points[0]]
        for (x0, y0), (x1, y1) in pairwise(points):
            cut += [(0.75 * x0 + 0.25 * x1, 0.75 * y0 + 0.25 * y1)]
            cut += [(0.25 * x0 + 0.75 * x1, 0.25 * y0 + 0.75 * y1)]
        points = [*cut, points[-1]]
    return list(points)


TWO = [[(42, 30), (52, 22), (64, 28), (62, 44), (44, 72), (40, 80), (68, 78)]]


def coloured(image: Image.Image, ink: str, paper: str) -> Image.Image:
    """Recolour the strokes and the paper."""
    mask = image.point(lambda value: 255 - (value - 40) * 255 // 203)
    inks, papers = (Image.new("RGB", image.size, colour) for colour in (ink, paper))
    return Image.composite(inks, papers, mask)


def photographed(image: Image.Image) -> Image.Image:
    """Add light from one side, the shadow of a hand, noise and blur."""
    y, x = np.mgrid[0 : 1 : SIZE * 1j, 0 : 1 : SIZE * 1j]
    light = (1 - 0.35 * x) * np.where(y + 0.5 * x > 0.85, 0.5, 1)
    noise = np.random.default_rng(0).normal(0, 6, (SIZE, SIZE))
    grey = np.asarray(image.filter(ImageFilter.GaussianBlur(1.2))) * light + noise
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))


def ruled(image: Image.Image) -> Image.Image:
    """Add squared paper."""
    lines = Image.new("L", image.size, 243)
    pen = ImageDraw.Draw(lines)
    for at in range(12, SIZE, 30):
        pen.line((0, at, SIZE, at + 4), fill=130, width=2)
        pen.line((at, 0, at - 4, SIZE), fill=130, width=2)
    return Image.fromarray(np.minimum(np.asarray(lines), np.asarray(image)))


def framed(image: Image.Image) -> Image.Image:
    """Add the box of a form."""
    ImageDraw.Draw(image).rectangle((14, 14, SIZE - 15, SIZE - 15), outline=60, width=4)
    return image


def in_a_corner(image: Image.Image) -> Image.Image:
    """Place the digit in the corner of a large sheet."""
    sheet = Image.new("L", (4 * SIZE, 4 * SIZE), 243)
    sheet.paste(image.resize((SIZE, SIZE)), (2 * SIZE + 90, 2 * SIZE + 60))
    return sheet


def side_by_side(one: Image.Image, two: Image.Image) -> Image.Image:
    """Place two digits on one sheet."""
    sheet = Image.new("L", (2 * SIZE, SIZE), 243)
    sheet.paste(one, (40, 0))
    sheet.paste(two, (SIZE - 40, 0))
    return sheet


def blot() -> Image.Image:
    """Draw a blot."""
    sheet = Image.new("L", (SIZE, SIZE), 243)
    ImageDraw.Draw(sheet).ellipse((60, 50, 180, 190), fill=30)
    return sheet


def difficult_images() -> dict[str, Image.Image]:
    """Draw images as people send them, by what is difficult about them."""
    seven = STROKES["seven"]
    return {
        "a shadow": photographed(draw(TWO)),
        "squared paper": ruled(draw(TWO)),
        "light on dark": coloured(draw(TWO), "white", "#203040"),
        "yellow on white": coloured(draw(TWO), "#ffe020", "white"),
        "a hair of a pen": draw(TWO, 0.008),
        "a broad brush": draw(TWO, 0.16),
        "a form": framed(draw(seven)),
        "in a corner": in_a_corner(draw(seven)),
        "nothing": draw([]),
        "two digits": side_by_side(draw(seven), draw(TWO)),
        "a blot": blot(),
    }


def main() -> None:
    """Write the images beside this file."""
    folder = HERE / "examples"
    folder.mkdir(exist_ok=True)
    images = {name: draw(strokes) for name, strokes in STROKES.items()}
    for name, image in images.items():
        image.save(folder / f"{name}.png", optimize=True)
    classifier = load(device="cpu")
    shown = [images[name] for name in ("seven", "four-or-nine", "letter")]
    figure = plot_predictions(shown, [classifier.predict(image) for image in shown])
    figure.savefig(HERE / "answers.png", dpi=110, metadata={"Software": None})
    sent = difficult_images()
    figure = plot_preprocessing(sent, [open_image(image) for image in sent.values()])
    figure.savefig(HERE / "preprocessing.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()

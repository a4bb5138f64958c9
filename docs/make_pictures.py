"""Draw the example pictures of the documents, and the figure of the answers to them.

`make pictures` runs it. The strokes are this project's own.
"""

from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw

from model import load
from training.plots import plot_answers

HERE = Path(__file__).parent
SIZE, FINE = 240, 4

# Corner points of strokes on a 100 × 100 paper.
STROKES = {
    "seven": [[(28, 24), (70, 22), (62, 40), (50, 60), (43, 82)]],
    "four-or-nine": [
        [(49, 18), (40, 24), (33, 34), (32, 50), (62, 48)],
        [(64, 18), (63, 50), (60, 84)],
    ],
    "letter": [[(22, 84), (50, 16), (78, 84)], [(33, 58), (67, 58)]],
    "blank": [],
}


def draw(strokes: list[list[tuple[int, int]]]) -> Image.Image:
    """Ink on paper, smooth: drawn large and reduced."""
    side = SIZE * FINE
    picture = Image.new("L", (side, side), 243)
    pen = ImageDraw.Draw(picture)
    width = int(0.075 * side)
    for stroke in strokes:
        points = [(x * side / 100, y * side / 100) for x, y in smooth(stroke)]
        pen.line(points, fill=40, width=width, joint="curve")
        for x, y in points:
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=40)
    return picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def smooth(points: list[tuple[float, float]], rounds: int = 3) -> list[tuple[float, float]]:
    """Cut corners (Chaikin 1974), so that a polyline looks drawn by hand."""
    for _ in range(rounds):
        cut = [points[0]]
        for (x0, y0), (x1, y1) in pairwise(points):
            cut += [(0.75 * x0 + 0.25 * x1, 0.75 * y0 + 0.25 * y1)]
            cut += [(0.25 * x0 + 0.75 * x1, 0.25 * y0 + 0.75 * y1)]
        points = [*cut, points[-1]]
    return points


def main() -> None:
    """Write the pictures beside this file."""
    folder = HERE / "examples"
    folder.mkdir(exist_ok=True)
    pictures = {name: draw(strokes) for name, strokes in STROKES.items()}
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png", optimize=True)
    classifier = load(device="cpu")
    shown = [pictures[name] for name in ("seven", "four-or-nine", "letter")]
    figure = plot_answers(shown, [classifier.predict(picture) for picture in shown])
    figure.savefig(HERE / "answers.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()

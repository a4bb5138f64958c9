"""Images drawn for tests, and their files."""

import io

from PIL import Image, ImageDraw


def drawn_seven(size: int = 200, *, ink: int = 20, paper: int = 240) -> Image.Image:
    """A seven, drawn with two strokes, dark on light unless told otherwise."""
    picture = Image.new("L", (size, size), paper)
    points = [(0.27 * size, 0.23 * size), (0.73 * size, 0.23 * size), (0.45 * size, 0.82 * size)]
    ImageDraw.Draw(picture).line(points, fill=ink, width=max(1, size // 12), joint="curve")
    return picture


def crossed_strokes() -> bytes:
    """A cross as a PNG file: no digit, so that the draws disagree and no number is trivial."""
    picture = Image.new("L", (200, 200), 240)
    draw = ImageDraw.Draw(picture)
    draw.line([(40, 40), (160, 160)], fill=20, width=16)
    draw.line([(160, 40), (40, 160)], fill=20, width=16)
    return encoded(picture)


def sample_images() -> dict[str, bytes]:
    """A seven, something that is no digit, and a blank image, as PNG files."""
    return {
        "seven": encoded(drawn_seven()),
        "no digit": crossed_strokes(),
        "blank": encoded(Image.new("L", (28, 28), 255)),
    }


def encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """The picture as a file's bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def oriented(orientation: int) -> bytes:
    """The seven as a JPEG that a camera held otherwise has stored turned, with the EXIF tag."""
    turned_before_storing = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    picture = drawn_seven()
    if orientation in turned_before_storing:
        picture = picture.transpose(turned_before_storing[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture, "JPEG", exif=exif, quality=95)

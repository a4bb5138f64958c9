"""Images drawn for tests, and their files."""

import io

from PIL import Image, ImageDraw


def drawn_seven(size: int = 200, *, ink: int = 20, paper: int = 240) -> Image.Image:
    """Draw a seven with two strokes, dark on light by default."""
    image = Image.new("L", (size, size), paper)
    points = [(0.27 * size, 0.23 * size), (0.73 * size, 0.23 * size), (0.45 * size, 0.82 * size)]
    ImageDraw.Draw(image).line(points, fill=ink, width=max(1, size // 12), joint="curve")
    return image


def crossed_strokes() -> bytes:
    """Return a cross as a PNG file: no digit, so that the draws disagree."""
    image = Image.new("L", (200, 200), 240)
    draw = ImageDraw.Draw(image)
    draw.line([(40, 40), (160, 160)], fill=20, width=16)
    draw.line([(160, 40), (40, 160)], fill=20, width=16)
    return encoded(image)


def sample_images() -> dict[str, bytes]:
    """Return a seven, a cross and a blank image as PNG files."""
    return {
        "seven": encoded(drawn_seven()),
        "no digit": crossed_strokes(),
        "blank": encoded(Image.new("L", (28, 28), 255)),
    }


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """Return the image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def oriented(orientation: int) -> bytes:
    """Return the seven as a JPEG with an EXIF orientation, stored turned accordingly."""
    turned_before_storing = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = drawn_seven()
    if orientation in turned_before_storing:
        image = image.transpose(turned_before_storing[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "JPEG", exif=exif, quality=95)

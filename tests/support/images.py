"""Images drawn for tests, and their files."""

import io

from PIL import Image, ImageDraw


def drawn_seven(size: int = 200, *, ink: int = 20, paper: int = 240) -> Image.Image:
    """A seven, drawn with two strokes, dark on light unless told otherwise."""
    picture = Image.new("L", (size, size), paper)
    points = [(0.27 * size, 0.23 * size), (0.73 * size, 0.23 * size), (0.45 * size, 0.82 * size)]
    ImageDraw.Draw(picture).line(points, fill=ink, width=max(1, size // 12), joint="curve")
    return picture


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

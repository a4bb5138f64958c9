"""A contact sheet of predictions: each uploaded image beside the network's input."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model.errors import ImageError
from model.preprocessing.decode import read_bytes
from model.system import write_atomically
from training.data.labelled_folder import LabelledPrediction

_SIDE = 112  # of each of an entry's two images
_GAP, _TEXT = 8, 30
_COLUMNS = 6
_MAX_ENTRIES = 300
_WRONG, _REJECTED, _INK = (192, 28, 40), (154, 91, 0), (30, 30, 30)


def contact_sheet(results: Sequence[LabelledPrediction]) -> Image.Image:
    """Every prediction that is wrong or not accepted, accepted errors first.

    Each entry shows the label, the prediction and its probability above, the reasons for a review
    below. Red marks an error, brown a correct prediction that is not accepted. At most 300 entries
    are shown; the heading gives their number.

    Args:
        results: All predictions of a folder.
    """
    chosen = [r for r in results if not (r.accepted and r.correct)]
    chosen.sort(key=lambda r: (not r.accepted, r.correct or not r.is_digit))
    shown = chosen[:_MAX_ENTRIES]
    width = _COLUMNS * (2 * _SIDE + 3 * _GAP) + _GAP
    height = 2 * _TEXT + max(1, -(-len(shown) // _COLUMNS)) * (_SIDE + 2 * _TEXT)
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    count = f"{len(chosen):,} of {len(results):,} images wrong (red) or not accepted (brown)"
    if len(shown) < len(chosen):
        count += f"; the first {len(shown)} of them"
    pen.text((_GAP, _GAP), count + ". Left: upload. Right: network input.", _INK, font)
    for i, result in enumerate(shown):
        left = _GAP + (i % _COLUMNS) * (2 * _SIDE + 3 * _GAP)
        top = 2 * _TEXT + (i // _COLUMNS) * (_SIDE + 2 * _TEXT)
        colour = _REJECTED if result.correct or not result.is_digit else _WRONG
        if result.accepted:
            colour = _WRONG
        pen.text((left, top - 18), _title(result), colour, font)
        _paste(sheet, _upload(result), left, top)
        if result.prediction is not None:
            _paste(sheet, Image.fromarray(result.prediction.pixels), left + _SIDE + _GAP, top)
        pen.rectangle(
            (left - 2, top - 2, left + 2 * _SIDE + _GAP + 1, top + _SIDE + 1), None, colour
        )
        pen.text((left, top + _SIDE + 4), _below(result), _INK, font)
    return sheet


def save_contact_sheet(results: Sequence[LabelledPrediction], path: Path) -> None:
    """Write the contact sheet as a PNG, whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    buffer = io.BytesIO()
    contact_sheet(results).save(buffer, "PNG", optimize=True)
    write_atomically(path, buffer.getvalue())


def _title(result: LabelledPrediction) -> str:
    label = result.image.label if len(result.image.label) <= 14 else result.image.label[:13] + "…"
    if result.prediction is None:
        return f"{label}: unreadable"
    verdict = ", accepted" if result.accepted else ""
    return f"{label}: {result.prediction.prediction} ({result.prediction.probability:.2f}){verdict}"


def _below(result: LabelledPrediction) -> str:
    text = result.error if result.prediction is None else ", ".join(result.prediction.reasons)
    text = text.replace("_", " ") or result.image.kind
    return text if len(text) <= 36 else text[:35] + "…"


def _upload(result: LabelledPrediction) -> Image.Image:
    """The image as preprocessing decodes it: upright, on an opaque background."""
    try:
        image = read_bytes(result.image.path.read_bytes())
    except ImageError:
        return Image.new("RGB", (28, 28), (225, 225, 225))
    if image.mode == "F":
        image = Image.fromarray(np.asarray(image).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def _paste(sheet: Image.Image, image: Image.Image, left: int, top: int) -> None:
    """Fit a image into its square; a small one is enlarged without smoothing."""
    scale = _SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    sheet.paste(image.resize((width, height), method), (left, top))

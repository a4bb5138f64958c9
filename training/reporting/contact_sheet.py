"""A contact sheet of answers: each picture as sent, beside it what the network saw of it."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model.checkpoint import write_atomically
from model.errors import ImageError
from model.preprocessing.decode import read_bytes
from training.data.labelled_folder import Answered

__all__ = ["contact_sheet", "save_contact_sheet"]

_SIDE = 112  # of each of an entry's two pictures
_GAP, _TEXT = 8, 30
_COLUMNS = 6
_MOST = 300
_WRONG, _REJECTED, _INK = (192, 28, 40), (154, 91, 0), (30, 30, 30)


def contact_sheet(results: Sequence[Answered]) -> Image.Image:
    """Every answer that is wrong or was not accepted, the accepted wrong ones first.

    Above each entry stand its label, the prediction and its probability; below it why a person
    should look. Red marks a wrong answer, brown a right one that was not accepted. At most 300
    entries are shown; the heading says how many there are.

    Args:
        results: All answers of a folder.
    """
    chosen = [r for r in results if not (r.accepted and r.right)]
    chosen.sort(key=lambda r: (not r.accepted, r.right or not r.is_digit))
    shown = chosen[:_MOST]
    width = _COLUMNS * (2 * _SIDE + 3 * _GAP) + _GAP
    height = 2 * _TEXT + max(1, -(-len(shown) // _COLUMNS)) * (_SIDE + 2 * _TEXT)
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    count = f"{len(chosen):,} of {len(results):,} pictures wrong (red) or not accepted (brown)"
    if len(shown) < len(chosen):
        count += f"; the first {len(shown)} of them"
    pen.text((_GAP, _GAP), count + ". Left: as sent. Right: what the network saw.", _INK, font)
    for i, result in enumerate(shown):
        left = _GAP + (i % _COLUMNS) * (2 * _SIDE + 3 * _GAP)
        top = 2 * _TEXT + (i // _COLUMNS) * (_SIDE + 2 * _TEXT)
        colour = _REJECTED if result.right or not result.is_digit else _WRONG
        if result.accepted:
            colour = _WRONG
        pen.text((left, top - 18), _title(result), colour, font)
        _paste(sheet, _sent(result), left, top)
        if result.answer is not None:
            _paste(sheet, Image.fromarray(result.answer.pixels), left + _SIDE + _GAP, top)
        pen.rectangle(
            (left - 2, top - 2, left + 2 * _SIDE + _GAP + 1, top + _SIDE + 1), None, colour
        )
        pen.text((left, top + _SIDE + 4), _below(result), _INK, font)
    return sheet


def save_contact_sheet(results: Sequence[Answered], path: Path) -> None:
    """Write the contact sheet as a PNG, whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    buffer = io.BytesIO()
    contact_sheet(results).save(buffer, "PNG", optimize=True)
    write_atomically(path, buffer.getvalue())


def _title(result: Answered) -> str:
    label = result.entry.label if len(result.entry.label) <= 14 else result.entry.label[:13] + "…"
    if result.answer is None:
        return f"{label}: unreadable"
    verdict = ", accepted" if result.accepted else ""
    return f"{label}: {result.answer.prediction} ({result.answer.probability:.2f}){verdict}"


def _below(result: Answered) -> str:
    text = result.error if result.answer is None else ", ".join(result.answer.reasons)
    text = text.replace("_", " ") or result.entry.kind
    return text if len(text) <= 36 else text[:35] + "…"


def _sent(result: Answered) -> Image.Image:
    """The picture upright and on the ground that the door has laid it on."""
    try:
        picture = read_bytes(result.entry.path.read_bytes())
    except ImageError:
        return Image.new("RGB", (28, 28), (225, 225, 225))
    if picture.mode == "F":
        picture = Image.fromarray(np.asarray(picture).clip(0, 255).astype(np.uint8))
    return picture.convert("RGB")


def _paste(sheet: Image.Image, picture: Image.Image, left: int, top: int) -> None:
    """Fit a picture into its square; a small one is enlarged without smoothing."""
    scale = _SIDE / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    sheet.paste(picture.resize((width, height), method), (left, top))

"""Predictions for a folder of labelled images, made as the service makes them.

The folder holds `manifest.csv` with the columns `file` (a path within the folder), `label` and
`kind`; other columns are ignored. A label that the model does not know marks an image that is no
digit: accepting it is always an error.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from model.classifier import Classifier, Prediction
from model.errors import ImageError
from model.preprocessing.normalize import open_bytes

_COLUMNS = ("file", "label", "kind")


class ManifestError(Exception):
    """The folder has no usable manifest."""


@dataclass(frozen=True)
class LabelledImage:
    """One image of a manifest: its path, its label and its kind."""

    path: Path
    label: str
    kind: str


@dataclass(frozen=True)
class LabelledPrediction:
    """A labelled image and its prediction, or the error that kept it from being read."""

    image: LabelledImage
    prediction: Prediction | None
    error: str = ""
    is_digit: bool = True

    @property
    def correct(self) -> bool:
        """Whether the most probable class is the label."""
        return self.prediction is not None and self.prediction.prediction == self.image.label

    @property
    def accepted(self) -> bool:
        """Whether the prediction is accepted without review."""
        return self.prediction is not None and self.prediction.decision == "accept"


def read_manifest(folder: Path) -> list[LabelledImage]:
    """The images of `manifest.csv` in order.

    Raises:
        ManifestError: If the manifest is missing or empty, lacks a column, or names a file that is
            missing or outside the folder.
    """
    manifest = folder / "manifest.csv"
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{manifest}: cannot be read ({_why(error)})") from error
    missing = [name for name in _COLUMNS if not rows or rows[0].get(name) is None]
    if missing:
        raise ManifestError(
            f"{manifest}: expected at least one row with the columns {', '.join(_COLUMNS)}; "
            f"missing: {', '.join(missing)}"
        )
    images, root = [], folder.resolve()
    for number, row in enumerate(rows, 2):
        path, label = folder / (row["file"] or ""), (row["label"] or "").strip()
        if not _is_within(path, root):
            raise ManifestError(f"{manifest}, line {number}: no file {row['file']!r} in the folder")
        if not label:
            raise ManifestError(f"{manifest}, line {number}: no label")
        images.append(LabelledImage(path, label, (row["kind"] or "").strip()))
    return images


def _is_within(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root) and path.is_file()
    except (OSError, ValueError):  # a name that the file system rejects
        return False


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def predict_images(
    classifier: Classifier, images: Sequence[LabelledImage], n_draws: int
) -> list[LabelledPrediction]:
    """Predict every image as the service does; an unreadable image keeps its error."""
    results = []
    for image in tqdm(images, desc="predicting", unit="image", disable=None):
        is_digit = image.label in classifier.labels
        try:
            preprocessed = open_bytes(image.path.read_bytes())
            # Any level: the intervals are not used.
            prediction = classifier.predict_inputs([preprocessed], samples=n_draws, levels=[0.5])[0]
            results.append(LabelledPrediction(image, prediction, is_digit=is_digit))
        except ImageError as error:
            results.append(LabelledPrediction(image, None, str(error), is_digit))
    return results


def format_by_kind(results: Sequence[LabelledPrediction]) -> str:
    """A line for each kind of image and one for all: accuracy, accepted share, accepted errors.

    Images that are no digits have lines of their own, without an accuracy.
    """
    header = ("kind", "images", "correct", "accuracy", "accepted", "share", "accepted errors")
    rows: list[tuple[str, ...]] = [header]
    for digits in (True, False):
        group = [result for result in results if result.is_digit is digits]
        kinds = list(dict.fromkeys(result.image.kind for result in group))
        lines = [(kind, [r for r in group if r.image.kind == kind]) for kind in kinds]
        if len(kinds) > 1:
            lines.append(("all digits" if digits else "all that are no digits", group))
        for kind, members in lines:
            rows.append(_row(kind if digits else f"no digit: {kind}", members, digits=digits))
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _row(name: str, members: Sequence[LabelledPrediction], *, digits: bool) -> tuple[str, ...]:
    n = len(members)
    correct = sum(result.correct for result in members)
    accepted = sum(result.accepted for result in members)
    errors = sum(result.accepted and not result.correct for result in members)
    quality = (f"{correct:,}", f"{100 * correct / n:.1f} %") if digits else ("", "")
    return (name, f"{n:,}", *quality, f"{accepted:,}", f"{100 * accepted / n:.1f} %", f"{errors:,}")

"""A folder of labelled pictures from the real world, as the service would answer them.

The folder holds `manifest.csv` with the columns `file` (a path within the folder), `label` and
`kind`; others are ignored. A label that the model does not know stands for a picture that is no
digit: there every accepted answer is wrong.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from model.classifier import Classifier, Prediction
from model.preprocessing.normalize import open_bytes
from model.errors import ImageError

__all__ = ["Answered", "Entry", "ManifestError", "answer_pictures", "format_kinds", "read_manifest"]

_COLUMNS = ("file", "label", "kind")


class ManifestError(Exception):
    """The folder holds no manifest that can be used."""


@dataclass(frozen=True)
class Entry:
    """One picture of a manifest: where it lies, what it shows and what kind of picture it is."""

    path: Path
    label: str
    kind: str


@dataclass(frozen=True)
class Answered:
    """A picture and its answer, or why it could not be read."""

    entry: Entry
    answer: Prediction | None
    error: str = ""
    is_digit: bool = True

    @property
    def right(self) -> bool:
        """Whether the most probable class is the label."""
        return self.answer is not None and self.answer.prediction == self.entry.label

    @property
    def accepted(self) -> bool:
        """Whether the answer would be taken without a person looking."""
        return self.answer is not None and self.answer.decision == "accept"


def read_manifest(folder: Path) -> list[Entry]:
    """The entries of `manifest.csv` in their order.

    Raises:
        ManifestError: If it is missing, empty, lacks a column, or names a file that is not there or
            not within the folder.
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
    entries, root = [], folder.resolve()
    for number, row in enumerate(rows, 2):
        path, label = folder / (row["file"] or ""), (row["label"] or "").strip()
        if not _is_within(path, root):
            raise ManifestError(f"{manifest}, line {number}: no file {row['file']!r} in the folder")
        if not label:
            raise ManifestError(f"{manifest}, line {number}: no label")
        entries.append(Entry(path, label, (row["kind"] or "").strip()))
    return entries


def _is_within(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root) and path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def answer_pictures(
    classifier: Classifier, entries: Sequence[Entry], n_draws: int
) -> list[Answered]:
    """Ask about every picture as the service would; what cannot be read is kept with the reason."""
    results = []
    for entry in tqdm(entries, desc="asking", unit="picture", disable=None):
        is_digit = entry.label in classifier.labels
        try:
            image = open_bytes(entry.path.read_bytes())
            # Any level: the intervals are not looked at.
            answer = classifier.predict_inputs([image], samples=n_draws, levels=[0.5])[0]
            results.append(Answered(entry, answer, is_digit=is_digit))
        except ImageError as error:
            results.append(Answered(entry, None, str(error), is_digit))
    return results


def format_kinds(results: Sequence[Answered]) -> str:
    """A line for each kind of picture and one for all: right, accepted, wrong among the accepted.

    Pictures that are no digits have lines of their own: nothing of them can be right.
    """
    header = ("kind", "pictures", "right", "accuracy", "accepted", "share", "wrong accepted")
    rows: list[tuple[str, ...]] = [header]
    for digits in (True, False):
        group = [result for result in results if result.is_digit is digits]
        kinds = list(dict.fromkeys(result.entry.kind for result in group))
        lines = [(kind, [r for r in group if r.entry.kind == kind]) for kind in kinds]
        if len(kinds) > 1:
            lines.append(("all digits" if digits else "all that are none", group))
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


def _row(name: str, members: Sequence[Answered], *, digits: bool) -> tuple[str, ...]:
    n = len(members)
    right = sum(result.right for result in members)
    accepted = sum(result.accepted for result in members)
    wrong = sum(result.accepted and not result.right for result in members)
    quality = (f"{right:,}", f"{100 * right / n:.1f} %") if digits else ("", "")
    return (name, f"{n:,}", *quality, f"{accepted:,}", f"{100 * accepted / n:.1f} %", f"{wrong:,}")

"""An evaluation as one HTML file that needs nothing else, and its figures as JSON beside it."""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model.checkpoint import write_atomically
from training.evaluation.result import Evaluation
from training.reporting.html import answers, beyond, certainty, origin
from training.reporting.html.page import cards, paragraph, section, whole_page
from training.reporting.html.words import interval, number, percent

__all__ = ["Evaluation", "write_report"]

_SECTIONS: tuple[tuple[str, str, Callable[[Evaluation], str]], ...] = (
    ("rules", "What is accepted, and what that promises", origin.rules),
    ("held-out", "Answers held out", answers.held_out),
    ("how-sure", "How sure it is", certainty.how_sure),
    ("accept", "When to accept", certainty.when_to_accept),
    ("calibration", "Calibration", certainty.calibration),
    ("foreign", "What it has not seen", beyond.foreign),
    ("turned", "Turned digits", beyond.turned),
    ("corrupted", "Spoiled digits", beyond.corrupted),
    ("uncertain", "The most uncertain digits", answers.uncertain),
    ("wrong", "The most confidently wrong", answers.wrong),
    ("sets", "Prediction sets by digit", answers.prediction_sets),
    ("trained", "How it was trained", origin.trained),
    ("again", "How to make this again", origin.again),
)


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Write a report, and its figures as JSON beside it, each file whole or not at all.

    A section whose data is missing is left out. What is not a finite number is null in the JSON.

    Args:
        evaluation: What to report.
        path: Where the HTML goes, such as `report.html`; the figures go to `report.json`.

    Raises:
        ValueError: If `path` ends in `.json`, where the figures are to go.
        OSError: If a file cannot be written.
    """
    beside = path.with_suffix(".json")
    if beside == path:
        raise ValueError(f"{path}: the figures go there; choose a name that ends in .html")
    figures = json.dumps(_plain(evaluation.figures), indent=1, sort_keys=True, allow_nan=False)
    html = _report(evaluation, datetime.now(UTC))
    write_atomically(beside, f"{figures}\n".encode())
    write_atomically(path, html.encode())


def _report(evaluation: Evaluation, now: datetime) -> str:
    made = ((anchor, title, make(evaluation)) for anchor, title, make in _SECTIONS)
    sections = [entry for entry in made if entry[2]]
    checkpoint = evaluation.checkpoint
    head = paragraph(
        f"Version {evaluation.version}, {evaluation.n_draws} posterior draws an answer, evaluated "
        f"on {now.day} {now:%B %Y}. How well it reads, and how well it knows when it does not."
    )
    return whole_page(
        f"Evaluation of the model “{checkpoint.name}”",
        head + "\n" + cards(_headlines(evaluation)),
        {anchor: title for anchor, title, _ in sections},
        "\n".join(section(*entry) for entry in sections),
    )


def _headlines(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Name, value and note of the few figures that matter most, as far as they are known."""
    name = evaluation.main_name
    values = evaluation.group("parts").get(name, {})
    ends = values.get("intervals") or {}
    n, accepted = values.get("n"), values.get("accepted")
    entries = []
    if "error" in values:
        note = interval(ends.get("error"), "{:.2f}", 100)
        entries.append(
            (f"wrong on the part {name}", percent(values["error"]),
             _joined(number(n, "of {:,} pictures"), note and f"95 %: {note}")),
        )  # fmt: skip
    if accepted is not None and n and values.get("errors_accepted") is not None:
        note = f"{values['errors_accepted']:,} of {round(n * accepted):,} accepted answers wrong"
        entries.append(("accepted without a person", percent(accepted), note))
    if "nll" in values:
        note = interval(ends.get("nll"), "{:.4f}")
        entries.append(
            ("negative log-likelihood (nats)", number(values["nll"], "{:.4f}"),
             note and f"95 %: {note}"),
        )  # fmt: skip
    if "calibration_error" in values:
        entries.append(("calibration error", percent(values["calibration_error"]), "15 bins"))
    if "set_coverage" in values:
        note = number(values.get("set_size"), "{:.3f} digits in a set on average")
        entries.append(
            ("prediction sets that hold the true digit", percent(values["set_coverage"]), note)
        )
    return entries + _foreign_headline(evaluation)


def _foreign_headline(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """How well the rule's own score tells digits from other pictures, where it does so worst."""
    score = evaluation.checkpoint.selective.score
    areas = {
        name: values["auroc"][score]
        for name, values in evaluation.group("foreign").items()
        if _is_finite((values.get("auroc") or {}).get(score))
    }
    if not areas:
        return []
    note = "; ".join(f"{name} {area:.3f}" for name, area in areas.items())
    title = "told from what is no digit: lowest AUROC"
    return [(title, f"{min(areas.values()):.3f}", note)]


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _plain(value: Any) -> Any:
    """The same values with null for every number that JSON cannot say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value

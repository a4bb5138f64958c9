"""Write an evaluation as a self-contained HTML file, and its metrics as JSON beside it."""

import json
import math
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from model.system import write_atomically
from training.data.ood import OOD_SETS
from training.evaluation.result import Evaluation
from training.reporting import columns
from training.reporting.html import tables
from training.reporting.html.figures import ReportFigures

N_EXAMPLES = 12
N_OOD_EXAMPLES = 3


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Write a report, and its metrics as JSON beside it, each file whole or not at all.

    A section without data is left out. Numbers that are not finite become null in the JSON.

    Args:
        evaluation: What to report.
        path: Where to write the HTML, such as `report.html`; the metrics go to `report.json`.

    Raises:
        ValueError: If `path` ends in `.json`.
        OSError: If a file cannot be written.
    """
    json_path = path.with_suffix(".json")
    if json_path == path:
        raise ValueError(f"{path}: the metrics go to this file; choose a name that ends in .html")
    metrics = _finite(evaluation.metrics.to_dict())
    text = json.dumps(metrics, indent=1, sort_keys=True, allow_nan=False)
    html = _render(evaluation, datetime.now(UTC))
    write_atomically(json_path, f"{text}\n".encode())
    write_atomically(path, html.encode())


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("training.reporting.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "interval": tables.interval,
        "nbsp": lambda text: str(text).replace(" %", "\u00a0%"),
        "number": columns.format_number,
        "percent": tables.percent,
        "spaced": columns.spaced,
    }
    return environment


def _render(evaluation: Evaluation, now: datetime) -> str:
    return (
        _environment()
        .get_template("page.html")
        .render(
            evaluation=evaluation,
            checkpoint=evaluation.checkpoint,
            metrics=evaluation.metrics,
            main=evaluation.main,
            figures=ReportFigures(evaluation),
            tables=tables,
            columns=columns,
            ood_sets=OOD_SETS,
            n_examples=N_EXAMPLES,
            n_ood_examples=N_OOD_EXAMPLES,
            now=now,
        )
    )


def _finite(value: Any) -> Any:
    """The same JSON values with None for numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value

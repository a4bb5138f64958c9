"""`python -m training.evaluate [CHECKPOINT]`: the table of held-out figures from weights alone.

With `--pictures DIR`, the figures of a folder of labelled pictures instead, and a contact sheet.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.checkpoint import SHIPPED, Checkpoint, load_checkpoint
from model.classifier import Classifier
from model.engine import Engine, make_engine
from model.errors import CheckpointError
from model.uncertainty import PredictiveSummary, softmax, summarise
from training.contact_sheet import save_contact_sheet
from training.data import DataNotFoundError, Inputs, Mnist, Part, Source, split, through_door
from training.imitate import imitated_inputs
from training.metrics import measure
from training.options import add_data_options, add_device_option, data_source, positive
from training.pictures import ManifestError, answer_pictures, format_kinds, read_manifest

__all__ = ["PARTS", "answer_all", "evaluate", "format_table", "imitated_validation", "main"]

PARTS = ("validation", "imitated", "calibration", "test")
"""The held-out parts of a data set; what was fitted is not among them.

`imitated` is the validation part as others might send it (`training.imitate`).
"""

_BATCH = 250
_LEVEL = 0.95
_IMITATION_SEED = 20260102

_ROWS = (
    ("pictures", "n", "{:,}", 1),
    ("error", "error", "{:.2f} %", 100),
    ("NLL (nats)", "nll", "{:.4f}", 1),
    ("Brier score", "brier_score", "{:.4f}", 1),
    ("calibration error, 15 bins", "calibration_error", "{:.2f} %", 100),
    ("predictive entropy (nats)", "predictive_entropy", "{:.4f}", 1),
    ("mutual information (nats)", "mutual_information", "{:.4f}", 1),
    ("accepted", "accepted", "{:.2f} %", 100),
    ("errors among the accepted", "errors_accepted", "{:,}", 1),
    ("prediction sets: coverage", "set_coverage", "{:.2f} %", 100),
    ("prediction sets: mean size", "set_size", "{:.3f}", 1),
)


def answer_all(
    engine: Engine, inputs: NDArray[np.uint8], n_draws: int, name: str
) -> PredictiveSummary:
    """Summaries for many inputs, in batches, with a progress bar.

    Args:
        engine: The networks to ask.
        inputs: Inputs of the digit door (N, 28, 28).
        n_draws: Number of draws to use.
        name: What the progress bar calls them.
    """
    parts = []
    with tqdm(total=len(inputs), desc=f"asking {name}", unit="picture", disable=None) as bar:
        for start in range(0, len(inputs), _BATCH):
            batch = inputs[start : start + _BATCH]
            parts.append(summarise(softmax(engine.logits(batch, n_draws)), _LEVEL))
            bar.update(len(batch))
    names = [field.name for field in fields(PredictiveSummary)]
    return PredictiveSummary(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})


def evaluate(
    checkpoint: Checkpoint, engine: Engine, source: Source, *, n_draws: int, parts: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Held-out figures of the named parts, through the digit door.

    Args:
        checkpoint: The posterior and its rules.
        engine: Its draws.
        source: The data.
        n_draws: Number of draws to use.
        parts: Names out of `PARTS`.
    """
    figures = {}
    for name in parts:
        part = _part(source, "validation" if name == "imitated" else name)
        inputs = through_door(part, name)
        if name == "imitated":
            inputs = imitated_validation(inputs)
        summary = answer_all(engine, inputs.pixels, n_draws, name)
        figures[name] = measure(
            summary, part.labels, checkpoint.selective, checkpoint.conformal, inputs.flagged
        )
    return figures


def imitated_validation(inputs: Inputs, processes: int = 1) -> Inputs:
    """The validation part as others might send it: the same imitations in every run."""
    return imitated_inputs(
        inputs.pixels, seed=_IMITATION_SEED, processes=processes, name="validation"
    )


def format_table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures as aligned text, one column per part of the data."""
    width = max(len(title) for title, *_ in _ROWS)
    lines = [" " * width + "".join(f"{name:>14}" for name in figures)]
    for title, key, form, factor in _ROWS:
        cells = (form.format(values[key] * factor) for values in figures.values())
        lines.append(f"{title:<{width}}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument(
        "checkpoint", nargs="?", type=Path, default=SHIPPED, help="default: the shipped weights"
    )
    parser.add_argument("--only", choices=PARTS, help="one part of the data; default: all")
    parser.add_argument("--draws", type=positive, help="default: as calibrated")
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help="a folder of pictures with manifest.csv (columns file, label, kind) instead",
    )
    parser.add_argument(
        "--sheet",
        type=Path,
        default=Path("contact-sheet.png"),
        metavar="PNG",
        help="where --pictures draws what is wrong or not accepted; default: contact-sheet.png",
    )
    add_data_options(parser)
    add_device_option(parser)
    options = parser.parse_args(arguments)
    try:
        checkpoint = load_checkpoint(options.checkpoint)
        n_draws = options.draws or checkpoint.selective.n_draws
        if options.pictures is not None:
            _evaluate_pictures(checkpoint, options, n_draws)
        else:
            _evaluate_parts(checkpoint, options, n_draws)
    except (
        CheckpointError, DataNotFoundError, ManifestError, OSError, RuntimeError, ValueError,
    ) as error:  # fmt: skip
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not checkpoint.draws_are_reproduced():
        print("this installation draws other networks than the one that calibrated the decision")
    return 0


def _evaluate_parts(checkpoint: Checkpoint, options: argparse.Namespace, n_draws: int) -> None:
    source = _source_of(checkpoint, options)
    engine = make_engine(checkpoint.posterior, n_draws=n_draws, device=options.device)
    parts = (options.only,) if options.only else PARTS
    figures = evaluate(checkpoint, engine, source, n_draws=n_draws, parts=parts)
    print(f"{checkpoint.name} {checkpoint.version(n_draws)} on {source.name}, {n_draws} draws")
    print(format_table(figures))


def _evaluate_pictures(checkpoint: Checkpoint, options: argparse.Namespace, n_draws: int) -> None:
    entries = read_manifest(options.pictures)
    engine = make_engine(checkpoint.posterior, n_draws=n_draws, device=options.device)
    results = answer_pictures(Classifier(checkpoint, engine), entries, n_draws)
    print(
        f"{checkpoint.name} {checkpoint.version(n_draws)} on {len(results):,} pictures of "
        f"{options.pictures}, {n_draws} draws"
    )
    print(format_kinds(results))
    for result in results:
        if result.error:
            print(f"{result.entry.path}: {result.error}")
    save_contact_sheet(results, options.sheet)
    print(f"what is wrong or was not accepted: {options.sheet}")


def _part(source: Source, name: str) -> Part:
    if name == "test":
        return source.test()
    parts = split(
        source.train(), n_validation=source.n_validation, n_calibration=source.n_calibration
    )
    return parts.validation if name == "validation" else parts.calibration


def _source_of(checkpoint: Checkpoint, options: argparse.Namespace) -> Source:
    """The data the checkpoint was trained on, unless another is asked for."""
    name = options.dataset or checkpoint.training.get("dataset", Mnist.name)
    return data_source(str(name), options.data_dir)


if __name__ == "__main__":
    sys.exit(main())

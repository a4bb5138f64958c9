"""`python -m training.evaluate [CHECKPOINT]`: evaluate a checkpoint.

Prints tables and writes an HTML report beside the checkpoint, or where `--report` says. With
`--images DIR`, evaluates a folder of labelled images and writes a contact sheet instead.
"""
# ruff: noqa: E402 - the check comes before the imports that it guards

from training.requirements import check_requirements

check_requirements()

import argparse
import os
import sys
from pathlib import Path

from model.checkpoint import BUNDLED, Checkpoint, load_checkpoint
from model.classifier import Classifier
from model.engines.engine import make_engine
from model.errors import CheckpointError
from model.system import granted_cpus
from training.cli_options import add_data_options, add_device_option, data_source, positive
from training.data.datasets import DataNotFoundError, Mnist, Source
from training.data.labelled_folder import (
    ManifestError,
    format_by_kind,
    predict_images,
    read_manifest,
)
from training.evaluation.evaluate import PARTS, evaluate_checkpoint
from training.evaluation.predictions import BatchPredictor
from training.reporting.contact_sheet import save_contact_sheet
from training.reporting.html import write_report
from training.reporting.text import format_evaluation


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parse(arguments)
    try:
        checkpoint = load_checkpoint(options.checkpoint)
        n_draws = options.draws or checkpoint.selective.n_draws
        if options.images is not None:
            _evaluate_folder(checkpoint, options, n_draws)
        else:
            _evaluate_parts(checkpoint, options, n_draws)
    except (
        CheckpointError, DataNotFoundError, ManifestError, OSError, RuntimeError, ValueError,
    ) as error:  # fmt: skip
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not checkpoint.draws_are_reproduced():
        print(
            "warning: this installation draws other networks than the one that calibrated the "
            "decision rule"
        )
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument(
        "checkpoint", nargs="?", type=Path, default=BUNDLED, help="default: the bundled model"
    )
    parser.add_argument("--only", choices=PARTS, help="evaluate one part of the data alone")
    parser.add_argument(
        "--brief", action="store_true", help="evaluate the parts of the data alone; no report"
    )
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="evaluate the first N images of each set"
    )
    parser.add_argument("--draws", type=positive, help="default: as calibrated")
    parser.add_argument(
        "--another",
        type=Path,
        metavar="CHECKPOINT",
        help="an independently trained model, to measure the coverage of the intervals",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="HTML",
        help="where to write the report, with its metrics beside it as JSON; default: beside the "
        "checkpoint, for the bundled model report.html",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="evaluate a folder of images with manifest.csv (columns file, label, kind) instead",
    )
    parser.add_argument(
        "--sheet",
        type=Path,
        default=Path("contact-sheet.png"),
        metavar="PNG",
        help="where to write the contact sheet of --images; default: contact-sheet.png",
    )
    add_data_options(parser)
    add_device_option(parser)
    return parser.parse_args(arguments)


def _evaluate_parts(checkpoint: Checkpoint, options: argparse.Namespace, n_draws: int) -> None:
    source = _source_of(checkpoint, options)
    another = load_checkpoint(options.another) if options.another else None
    engine = make_engine(checkpoint.posterior, n_draws=n_draws, device=options.device)
    print(f"{checkpoint.name} {checkpoint.version(n_draws)} on {source.name}, {n_draws} draws")
    evaluation = evaluate_checkpoint(
        checkpoint,
        BatchPredictor(engine, n_draws),
        source,
        data_dir=options.data_dir,
        parts=(options.only,) if options.only else PARTS,
        brief=options.brief or options.only is not None,
        limit=options.limit,
        another=another,
        device=options.device,
        processes=granted_cpus(),
    )
    print(format_evaluation(evaluation))
    if not (options.brief or options.only):
        path = options.report or _report_path(options.checkpoint)
        write_report(evaluation, path)
        print(f"\nreport: {path}")


def _report_path(checkpoint: Path) -> Path:
    """Beside the checkpoint; for the bundled one, whose folder may be read-only, in this folder."""
    if os.path.abspath(checkpoint) == os.path.abspath(BUNDLED):  # noqa: PTH100 - no links followed
        return Path("report.html")
    return checkpoint.with_suffix(".html")


def _evaluate_folder(checkpoint: Checkpoint, options: argparse.Namespace, n_draws: int) -> None:
    entries = read_manifest(options.images)
    engine = make_engine(checkpoint.posterior, n_draws=n_draws, device=options.device)
    results = predict_images(Classifier(checkpoint, engine), entries, n_draws)
    print(
        f"{checkpoint.name} {checkpoint.version(n_draws)} on {len(results):,} images of "
        f"{options.images}, {n_draws} draws"
    )
    print(format_by_kind(results))
    for result in results:
        if result.error:
            print(f"{result.image.path}: {result.error}")
    save_contact_sheet(results, options.sheet)
    print(f"contact sheet of errors and rejected images: {options.sheet}")


def _source_of(checkpoint: Checkpoint, options: argparse.Namespace) -> Source:
    """The data set of `--dataset`, by default the one that the checkpoint was trained on."""
    name = options.dataset or checkpoint.training.get("dataset", Mnist.name)
    return data_source(str(name), options.data_dir)


if __name__ == "__main__":
    sys.exit(main())

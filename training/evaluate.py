"""`python -m training.evaluate [CHECKPOINT]`: everything that can be measured, from weights alone.

Tables on the terminal, and the report with its pictures beside the checkpoint (or where `--report`
says). With `--pictures DIR`, the figures of a folder of labelled pictures and a contact sheet
instead.
"""

import argparse
import os
import sys
from pathlib import Path

from model.checkpoint import BUNDLED, Checkpoint, load_checkpoint
from model.classifier import Classifier
from model.engines.engine import make_engine
from model.errors import CheckpointError
from model.system.cpu import granted_cpus
from training.cli_options import add_data_options, add_device_option, data_source, positive
from training.data.datasets import DataNotFoundError, Mnist, Source
from training.data.labelled_folder import (
    ManifestError,
    answer_pictures,
    format_kinds,
    read_manifest,
)
from training.evaluation.evaluate import PARTS, BatchPredictor, evaluate
from training.reporting.contact_sheet import save_contact_sheet
from training.reporting.html import write_report
from training.reporting.text import format_evaluation

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parse(arguments)
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


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument(
        "checkpoint", nargs="?", type=Path, default=BUNDLED, help="default: the shipped weights"
    )
    parser.add_argument("--only", choices=PARTS, help="one part of the data, and nothing else")
    parser.add_argument(
        "--brief", action="store_true", help="the parts of the data, and nothing else; no report"
    )
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="look at the first N pictures of each set"
    )
    parser.add_argument("--draws", type=positive, help="default: as calibrated")
    parser.add_argument(
        "--another",
        type=Path,
        metavar="CHECKPOINT",
        help="an independently trained model, to see how often the intervals hold what it says",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="HTML",
        help="where the report goes, its figures beside it as JSON; default: beside the "
        "checkpoint, for the shipped weights report.html",
    )
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
    return parser.parse_args(arguments)


def _evaluate_parts(checkpoint: Checkpoint, options: argparse.Namespace, n_draws: int) -> None:
    source = _source_of(checkpoint, options)
    another = load_checkpoint(options.another) if options.another else None
    engine = make_engine(checkpoint.posterior, n_draws=n_draws, device=options.device)
    print(f"{checkpoint.name} {checkpoint.version(n_draws)} on {source.name}, {n_draws} draws")
    evaluation = evaluate(
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
        print(f"\nthe report, with its pictures: {path}")


def _report_path(checkpoint: Path) -> Path:
    """Beside the checkpoint, except for the shipped one, which may lie where nobody may write."""
    if os.path.abspath(checkpoint) == os.path.abspath(BUNDLED):  # noqa: PTH100 - no links followed
        return Path("report.html")
    return checkpoint.with_suffix(".html")


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


def _source_of(checkpoint: Checkpoint, options: argparse.Namespace) -> Source:
    """The data the checkpoint was trained on, unless another is asked for."""
    name = options.dataset or checkpoint.training.get("dataset", Mnist.name)
    return data_source(str(name), options.data_dir)


if __name__ == "__main__":
    sys.exit(main())

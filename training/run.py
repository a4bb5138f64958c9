"""`python -m training.run`: fit, calibrate, evaluate, and write a checkpoint.

Exit codes: 0 written; 1 not writable; 2 no data, missing packages or invalid options; 3 below a
quality floor, nothing written; 130 interrupted, the last complete epoch kept.
"""
# ruff: noqa: E402 - the check comes before the imports that it guards

from training.requirements import check_requirements

check_requirements()

import argparse
import errno
import io
import math
import os
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import BUNDLED, load_checkpoint
from model.errors import CheckpointError
from training.cli_options import add_data_options, add_device_option, data_source, number, positive
from training.config import PRESETS, RunConfig
from training.data.datasets import DataNotFoundError, Mnist
from training.distributed import LostRankError, World, process_group, world_from_environment
from training.evaluation.result import Evaluation
from training.fitting.resume import UnfinishedRunError
from training.interruption import interruptible
from training.pipeline import FloorError, train
from training.reporting.text import format_evaluation

_AT_LEAST_0 = number(float, lambda value: 0 <= value < math.inf, "at least 0")
_SHARE = number(float, lambda value: 0 <= value <= 1, "a share from 0 to 1")
_OPEN_SHARE = number(float, lambda value: 0 < value < 1, "a share between 0 and 1 (0.001 is 0.1 %)")
_SEED = number(int, lambda value: value >= 0, "at least 0")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.run",
        description="Train, calibrate and evaluate a Bayesian digit classifier; write its weights.",
    )
    add_data_options(parser)
    add_device_option(parser)
    parser.set_defaults(dataset=Mnist.name)
    add = parser.add_argument
    add("--output", type=Path, help="default: checkpoints/digits.safetensors")
    add("--epochs", type=positive, help="passes over the fit part")
    add("--batch-size", type=positive, help="images per step")
    add("--learning-rate", type=_AT_LEAST_0, help="Adam's largest step size")
    add("--beta", type=_AT_LEAST_0, help="weight of the KL term; 1 is the ELBO")
    add("--prior-scale", type=_AT_LEAST_0, help="prior standard deviation")
    add("--imitated", type=_SHARE, help="share of images replaced by renderings, from 0 to 1")
    add("--seed", type=_SEED, help="seed of the fit")
    add("--threads", type=positive, help="CPU threads; decides the last bits")
    add(
        "--target-risk",
        type=_OPEN_SHARE,
        dest="target",
        metavar="TARGET_RISK",
        help="largest error rate if accepted",
    )
    add("--coverage", type=_OPEN_SHARE, help="coverage of the prediction sets")
    add("--brief", action="store_true", help="evaluate the parts of the data alone; no report")
    add("--force", action="store_true", help="write even below a quality floor")
    add("--fresh", action="store_true", help="discard an unfinished run")
    return parser.parse_args(arguments)


def _configure(options: argparse.Namespace, world: World) -> RunConfig:
    """The data set's preset, changed by the given options, which have the names of its fields."""
    preset = PRESETS[options.dataset]
    given = {name: value for name, value in vars(options).items() if value is not None}

    def changed(settings: Any) -> Any:
        names = given.keys() & {field.name for field in fields(settings)}
        return replace(settings, **{name: given[name] for name in names})

    return replace(
        preset,
        output=options.output or preset.output,
        threads=options.threads or max(1, preset.threads // world.local_size),
        fit=changed(preset.fit),
        model=changed(preset.model),
        rules=changed(preset.rules),
    )


def _device(name: str, world: World) -> torch.device:
    """The device with a given name; each rank takes its own GPU."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError("--device cuda: PyTorch finds no CUDA device")
    if name == "cpu" or not available:
        return torch.device("cpu")
    n_devices = torch.cuda.device_count()
    if world.local_size > n_devices:
        raise ValueError(
            f"{world.local_size} ranks on a machine with {n_devices} CUDA devices: start one for "
            "each, or take --device cpu"
        )
    return torch.device("cuda", world.local_rank)


def _report(evaluation: Evaluation, config: RunConfig, dataset: str) -> None:
    """Print the evaluation, the cost of a short run, and the checkpoint's path."""
    checkpoint = evaluation.checkpoint
    print(f"\n{format_evaluation(evaluation)}\n")
    rule = checkpoint.selective
    if rule.threshold < 0:
        print(
            f"No answer will be accepted: a risk of at most {100 * rule.target:g} % could not be "
            f"certified on {rule.n_calibration:,} images."
        )
    usual = PRESETS[dataset].fit.epochs
    if config.fit.epochs < usual:
        print(
            f"A short run, {config.fit.epochs} of the usual {usual} epochs: validation error "
            f"{_percent(checkpoint.metrics)}{_bundled_error(dataset)}."
        )
    print(
        f"wrote {config.output} (version {checkpoint.version(config.n_draws)}, "
        f"test error {_percent(checkpoint.metrics, 'test')})"
    )


def _bundled_error(dataset: str) -> str:
    with suppress(CheckpointError):
        bundled = load_checkpoint(BUNDLED)
        if bundled.training.get("dataset") == dataset:
            return f", where the bundled weights have {_percent(bundled.metrics)}"
    return ""


def _percent(metrics: Any, part: str = "validation") -> str:
    return f"{100 * metrics[part]['error']:.2f} %"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parse(arguments)
    try:
        with interruptible():
            world = world_from_environment()
            config = _configure(options, world)
            source = data_source(options.dataset, options.data_dir)
            device = _device(options.device, world)
            # Only the first rank prints.
            output = sys.stdout if world.is_main else io.StringIO()
            with process_group(world, device), redirect_stdout(output):
                evaluation = train(
                    source,
                    config,
                    device=device,
                    data_dir=options.data_dir,
                    brief=options.brief,
                    force=options.force,
                    fresh=options.fresh,
                    world=world,
                )
    except (DataNotFoundError, UnfinishedRunError, ValueError) as error:
        return _fail(error, 2)
    except FloorError as error:
        return _fail(f"{error}. {config.output} is unchanged.", 3)
    except (OSError, CheckpointError, LostRankError) as error:
        return _fail(_not_written(error, config.output), 1)
    except KeyboardInterrupt:
        again = "the same command without --fresh" if options.fresh else "the same command"
        return _fail(f"interrupted; {again} continues after the last complete epoch", 130)
    if evaluation is not None:
        _report(evaluation, config, options.dataset)
    return 0


def _not_written(error: OSError | CheckpointError | LostRankError, output: Path) -> str:
    """The reason why nothing was written, and what to do."""
    if isinstance(error, LostRankError):
        return "another rank died; the same command continues after the last complete epoch"
    if isinstance(error, CheckpointError):
        return f"could not write {output}: {error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"could not write {output}: the disk that holds {output.parent} is full. Make room and "
            "run the same command again: it continues after the last complete epoch. The "
            "previous checkpoint is untouched."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        user = f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"
        return (
            f"could not write {output}: {user} may not write in {output.parent} "
            f"({error.strerror}). Give that folder to this user, or choose another with --output."
        )
    return f"could not write {output}: {error}"


def _fail(message: object, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())

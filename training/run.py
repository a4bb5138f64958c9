"""`python -m training.run`: fit, calibrate, evaluate, and write a checkpoint.

Exit codes: 0 written; 1 not writable; 2 no data, missing packages or invalid options; 3 below a
quality floor, nothing written; 130 interrupted, the last complete epoch kept.
"""
# ruff: noqa: E402 - the check comes before the imports that it guards

from training.requirements import check_requirements

check_requirements()

import argparse
import errno
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

from model.checkpoint import BUNDLED, load_checkpoint
from model.errors import CheckpointError
from training.cli_options import add_data_options, add_device_option, data_source, positive
from training.config import PRESETS, RunConfig
from training.data.datasets import DataNotFoundError, Mnist
from training.distributed import LostRankError, World, process_group, world_from_environment
from training.evaluation.result import Evaluation
from training.fitting.resume import UnfinishedRunError
from training.pipeline import FloorError, train
from training.reporting.text import format_evaluation


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.run",
        description="Train, calibrate and evaluate a Bayesian digit classifier; write its weights.",
    )
    add_data_options(parser)
    add_device_option(parser)
    parser.add_argument("--output", type=Path, help="default: checkpoints/digits.safetensors")
    parser.add_argument("--epochs", type=positive, help="passes over the fit part")
    parser.add_argument("--batch-size", type=positive, help="images per step")
    parser.add_argument("--learning-rate", type=_at_least_0, help="Adam's largest step size")
    parser.add_argument("--beta", type=_at_least_0, help="weight of the KL term; 1 is the ELBO")
    parser.add_argument("--prior-scale", type=_at_least_0, help="prior standard deviation")
    parser.add_argument(
        "--imitated", type=_share, help="share of images replaced by renderings, from 0 to 1"
    )
    parser.add_argument("--seed", type=_seed, help="seed of the fit")
    parser.add_argument("--threads", type=positive, help="CPU threads; decides the last bits")
    parser.add_argument("--target-risk", type=_open_share, help="largest error rate if accepted")
    parser.add_argument("--coverage", type=_open_share, help="coverage of the prediction sets")
    parser.add_argument(
        "--brief", action="store_true", help="evaluate the parts of the data alone; no report"
    )
    parser.add_argument("--force", action="store_true", help="write even below a quality floor")
    parser.add_argument("--fresh", action="store_true", help="discard an unfinished run")
    return parser.parse_args(arguments)


def _number(text: str, valid: Callable[[float], bool], expected: str) -> float:
    value = float(text)
    if not valid(value):
        raise argparse.ArgumentTypeError(f"must be {expected}, not {text}")
    return value


def _at_least_0(text: str) -> float:
    return _number(text, lambda value: 0 <= value < math.inf, "at least 0")


def _share(text: str) -> float:
    return _number(text, lambda value: 0 <= value <= 1, "a share from 0 to 1")


def _open_share(text: str) -> float:
    return _number(text, lambda value: 0 < value < 1, "a share between 0 and 1 (0.001 is 0.1 %)")


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, not {value}")
    return value


def _configure(options: argparse.Namespace, world: World) -> RunConfig:
    """The data set's preset, changed by the given options."""
    preset = PRESETS[options.dataset or Mnist.name]

    def given(**values: Any) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value is not None}

    return replace(
        preset,
        output=options.output or preset.output,
        threads=options.threads or max(1, preset.threads // world.local_size),
        fit=replace(
            preset.fit,
            **given(
                epochs=options.epochs,
                batch_size=options.batch_size,
                learning_rate=options.learning_rate,
                beta=options.beta,
                imitated=options.imitated,
                seed=options.seed,
            ),
        ),
        model=replace(preset.model, **given(prior_scale=options.prior_scale)),
        rules=replace(preset.rules, **given(target=options.target_risk, coverage=options.coverage)),
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


class _Interruption:
    """SIGTERM and Ctrl-C as a `KeyboardInterrupt` that cannot be lost.

    An exception raised in a destructor is ignored, so the fit also calls `check` at every step.
    """

    def __init__(self) -> None:
        self._requested = False

    def on_signal(self, _signal: int, _frame: FrameType | None) -> NoReturn:
        self._requested = True
        raise KeyboardInterrupt

    def check(self) -> None:
        if self._requested:
            raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parse(arguments)
    interruption = _Interruption()
    before = {
        number: signal.signal(number, interruption.on_signal)
        for number in (signal.SIGTERM, signal.SIGINT)
        if signal.getsignal(number) is not signal.SIG_IGN  # as a shell's background jobs have it
    }
    try:
        world = world_from_environment()
        config = _configure(options, world)
        dataset = options.dataset or Mnist.name
        source = data_source(dataset, options.data_dir)
        device = _device(options.device, world)
        with process_group(world, device), _only_main_prints(world):
            evaluation = train(
                source,
                config,
                device=device,
                data_dir=options.data_dir,
                brief=options.brief,
                force=options.force,
                fresh=options.fresh,
                check_interrupted=interruption.check,
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
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if evaluation is not None:
        _report(evaluation, config, dataset)
    return 0


@contextmanager
def _only_main_prints(world: World) -> Iterator[None]:
    """Silence the standard output of all ranks but the first."""
    if world.is_main:
        yield
        return
    with Path(os.devnull).open("w") as null, redirect_stdout(null):
        yield


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

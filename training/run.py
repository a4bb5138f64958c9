"""`python -m training.run`: fit, calibrate, evaluate, and write a checkpoint.

Exit codes: 0 written; 1 could not be written; 2 no data or an option that cannot be used;
3 below a quality floor, nothing written; 130 interrupted, the last whole epoch kept.
"""

import argparse
import errno
import math
import os
import signal
import sys
from collections.abc import Iterator
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
from training.distributed import LostRankError, Ranks, joined, started_ranks
from training.evaluation.result import Evaluation
from training.fitting.resume import UnfinishedRunError
from training.pipeline import FloorError, train
from training.reporting.text import format_evaluation

__all__ = ["main"]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.run",
        description="Train, calibrate and evaluate a Bayesian digit reader, and write its weights.",
    )
    add_data_options(parser)
    add_device_option(parser)
    parser.add_argument("--output", type=Path, help="default: checkpoints/digits.safetensors")
    parser.add_argument("--epochs", type=positive, help="passes over the fit part")
    parser.add_argument("--batch-size", type=positive, help="pictures per step")
    parser.add_argument("--learning-rate", type=float, help="largest step of Adam")
    parser.add_argument("--beta", type=float, help="weight of the KL term; 1 is the ELBO")
    parser.add_argument("--prior-scale", type=float, help="standard deviation of the prior")
    parser.add_argument(
        "--imitated", type=float, help="share of pictures shown as others might send them"
    )
    parser.add_argument("--seed", type=int, help="seed of the fit")
    parser.add_argument("--threads", type=positive, help="CPU threads; decides the last bits")
    parser.add_argument("--target-risk", type=float, help="largest share of errors if accepted")
    parser.add_argument("--coverage", type=float, help="coverage of the prediction sets")
    parser.add_argument(
        "--brief", action="store_true", help="evaluate on the parts of the data alone; no report"
    )
    parser.add_argument("--force", action="store_true", help="write even below a quality floor")
    parser.add_argument("--fresh", action="store_true", help="discard an unfinished run")
    return parser.parse_args(arguments)


def _configure(options: argparse.Namespace, ranks: Ranks) -> RunConfig:
    """The data set's preset with the given options in place."""
    preset = PRESETS[options.dataset or Mnist.name]

    def given(**values: Any) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value is not None}

    for name in ("learning_rate", "beta", "prior_scale"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"--{name.replace('_', '-')} must be at least 0, not {value}")
    if options.seed is not None and options.seed < 0:
        raise ValueError(f"--seed must be at least 0, not {options.seed}")
    if options.imitated is not None and not 0 <= options.imitated <= 1:
        raise ValueError(f"--imitated is a share from 0 to 1, not {options.imitated}")
    for name in ("target_risk", "coverage"):
        value = getattr(options, name)
        if value is not None and not 0 < value < 1:
            raise ValueError(
                f"--{name.replace('_', '-')} is a share between 0 and 1 (0.001 is 0.1 %), "
                f"not {value}"
            )
    return replace(
        preset,
        output=options.output or preset.output,
        threads=options.threads or max(1, preset.threads // ranks.local_count),
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


def _device(name: str, ranks: Ranks) -> torch.device:
    """The device of that name; of several GPUs each rank takes its own."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError("--device cuda: PyTorch finds no CUDA device")
    if name == "cpu" or not available:
        return torch.device("cpu")
    n_devices = torch.cuda.device_count()
    if ranks.local_count > n_devices:
        raise ValueError(
            f"{ranks.local_count} ranks on a machine with {n_devices} CUDA devices: start one for "
            "each, or take --device cpu"
        )
    return torch.device("cuda", ranks.local_rank)


def _report(evaluation: Evaluation, config: RunConfig, dataset: str) -> None:
    """Say what was written, how good it is, and what a shorter run has cost."""
    checkpoint = evaluation.checkpoint
    print(f"\n{format_evaluation(evaluation)}\n")
    rule = checkpoint.selective
    if rule.threshold < 0:
        print(
            f"No answer will be accepted: a risk of at most {100 * rule.target:g} % could not be "
            f"certified on {rule.n_calibration:,} pictures."
        )
    usual = PRESETS[dataset].fit.epochs
    if config.fit.epochs < usual:
        print(
            f"A short run, {config.fit.epochs} of the usual {usual} epochs: validation error "
            f"{_percent(checkpoint.metrics)}{_shipped_error(dataset)}."
        )
    print(
        f"wrote {config.output} (version {checkpoint.version(config.n_draws)}, "
        f"test error {_percent(checkpoint.metrics, 'test')})"
    )


def _shipped_error(dataset: str) -> str:
    with suppress(CheckpointError):
        shipped = load_checkpoint(BUNDLED)
        if shipped.training.get("dataset") == dataset:
            return f", where the shipped weights have {_percent(shipped.metrics)}"
    return ""


def _percent(metrics: Any, part: str = "validation") -> str:
    return f"{100 * metrics[part]['error']:.2f} %"


class _Interruption:
    """SIGTERM and Ctrl-C as an interruption that cannot get lost.

    What a signal handler raises is swallowed if it happens to strike in a destructor; so the fit
    asks `check` at every step, too.
    """

    def __init__(self) -> None:
        self._asked = False

    def on_signal(self, _signal: int, _frame: FrameType | None) -> NoReturn:
        self._asked = True
        raise KeyboardInterrupt

    def check(self) -> None:
        if self._asked:
            raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parse(arguments)
    interruption = _Interruption()
    before = {
        asked: signal.signal(asked, interruption.on_signal)
        for asked in (signal.SIGTERM, signal.SIGINT)
        if signal.getsignal(asked) is not signal.SIG_IGN  # as for jobs in a shell's background
    }
    try:
        ranks = started_ranks()
        config = _configure(options, ranks)
        dataset = options.dataset or Mnist.name
        source = data_source(dataset, options.data_dir)
        device = _device(options.device, ranks)
        with joined(ranks, device), _only_first_speaks(ranks):
            evaluation = train(
                source,
                config,
                device=device,
                data_dir=options.data_dir,
                brief=options.brief,
                force=options.force,
                fresh=options.fresh,
                check_interrupted=interruption.check,
                ranks=ranks,
            )
    except (DataNotFoundError, UnfinishedRunError, ValueError) as error:
        return _fail(error, 2)
    except FloorError as error:
        return _fail(f"{error}. {config.output} was left as it was.", 3)
    except (OSError, CheckpointError, LostRankError) as error:
        return _fail(_not_written(error, config.output), 1)
    except KeyboardInterrupt:
        again = "the same command without --fresh" if options.fresh else "the same command"
        return _fail(f"interrupted; {again} continues after the last whole epoch", 130)
    finally:
        for asked, handler in before.items():
            signal.signal(asked, handler)
    if evaluation is not None:
        _report(evaluation, config, dataset)
    return 0


@contextmanager
def _only_first_speaks(ranks: Ranks) -> Iterator[None]:
    """Of several ranks one tells how the run goes; errors are told by each."""
    if ranks.is_first:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield


def _not_written(error: OSError | CheckpointError | LostRankError, output: Path) -> str:
    """Why nothing was written, and what to do about it."""
    if isinstance(error, LostRankError):
        return "another rank was lost; the same command continues after the last whole epoch"
    if isinstance(error, CheckpointError):
        return f"could not write {output}: {error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"could not write {output}: the disk that holds {output.parent} is full. Make room and "
            "run the same command again: it continues after the last whole epoch. What stood "
            "there before is untouched."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        user = f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"
        return (
            f"could not write {output}: {user} may not write in {output.parent} "
            f"({error.strerror}). Hand that folder to this user, or name another with --output."
        )
    return f"could not write {output}: {error}"


def _fail(message: object, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())

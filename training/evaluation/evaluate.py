"""The whole evaluation of a checkpoint: held-out parts, foreign pictures, sweeps, intervals."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.checkpoint import Checkpoint
from model.engines.engine import Device, Engine, make_engine
from model.uncertainty import PredictiveSummary, outcomes, summarise
from training.data.datasets import Inputs, Part, Source, preprocess, split
from training.data.ood import FOREIGN, find_ood_sets, read_ood_set
from training.evaluation.intervals import coverage_of_another, monte_carlo_error
from training.evaluation.predictions import Answers
from training.evaluation.result import Evaluation
from training.evaluation.robustness import corruption_sweep, rotation_sweep
from training.evaluation.summary import digit_figures, foreign_figures, set_figures
from training.synthesis.rendering import imitated_inputs

__all__ = ["PARTS", "BatchPredictor", "evaluate", "imitated_validation"]

PARTS = ("validation", "imitated", "calibration", "test")
"""The held-out parts of a data set; what was fitted is not among them.

`imitated` is the validation part as others might send it (`training.synthesis.rendering`).
"""

_BATCH = 250
_LEVEL = 0.95
_IMITATION_SEED = 20260102
_N_INTERVALS = 2000


@dataclass(frozen=True)
class BatchPredictor:
    """An engine that is asked about many pictures, with a progress bar.

    Attributes:
        engine: The networks to ask.
        n_draws: Number of draws to use.
        check_interrupted: Called after each batch; may raise to end it.
    """

    engine: Engine
    n_draws: int
    check_interrupted: Callable[[], None] = lambda: None

    def __call__(self, inputs: Inputs, labels: NDArray[np.int64] | None, name: str) -> Answers:
        """The answers for inputs of the digit door.

        Args:
            inputs: What the door made of the pictures.
            labels: Their classes; None if they are of none.
            name: What they are called.
        """
        parts = []
        pixels = inputs.pixels
        title = f"asking {name}"
        with tqdm(total=len(pixels), desc=title, unit="picture", disable=None, leave=False) as bar:
            for start in range(0, len(pixels), _BATCH):
                batch = pixels[start : start + _BATCH]
                logits = self.engine.logits(batch, self.n_draws)
                drawn = outcomes(logits, self.engine.n_classes)
                parts.append(summarise(drawn.classes, _LEVEL, drawn.not_a_digit))
                self.check_interrupted()
                bar.update(len(batch))
        joined = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(PredictiveSummary)
        }
        return Answers(name, pixels, labels, PredictiveSummary(**joined), inputs.flagged)


def evaluate(
    checkpoint: Checkpoint,
    ask: BatchPredictor,
    source: Source,
    *,
    data_dir: Path,
    parts: Iterable[str] = PARTS,
    known: Mapping[str, Answers] | None = None,
    brief: bool = False,
    limit: int | None = None,
    another: Checkpoint | None = None,
    device: Device = "auto",
    processes: int = 1,
) -> Evaluation:
    """Everything there is to measure.

    Args:
        checkpoint: The posterior and its rules; its own metrics are not looked at.
        ask: Its draws.
        source: The data.
        data_dir: Where foreign data sets may lie.
        parts: Names out of `PARTS`.
        known: Answers that are already there, by part.
        brief: Whether to leave out everything but the parts.
        limit: Most pictures of each set that are looked at; all if None.
        another: An independently trained model, to hold the intervals against.
        device: Where to ask further draws and the other model.
        processes: How many prepare pictures at once.
    """
    answers = dict(known or {})
    for name in parts:
        if name not in answers:
            answers[name] = _answer_part(source, name, ask, processes, limit)
    answers = {name: answers[name] for name in parts}
    selective, conformal = checkpoint.selective, checkpoint.conformal
    figures: dict[str, Any] = {
        "parts": {
            name: digit_figures(given, selective, conformal, bootstrap=not brief)
            for name, given in answers.items()
        }
    }
    foreign: dict[str, Answers] = {}
    if "test" in answers and not brief:
        test, config = answers["test"], checkpoint.posterior.config
        figures["sets_by_class"] = set_figures(test, conformal, config.labels)
        files = find_ood_sets(data_dir)
        for name, file in files.items():
            images = read_ood_set(file)[:limit]
            nothing = Part(images, np.zeros(len(images), np.int64))
            foreign[name] = ask(preprocess(nothing, name, processes=processes), None, name)
        figures["foreign"] = {
            name: foreign_figures(given, test, selective) for name, given in foreign.items()
        }
        figures["foreign_missing"] = [name for name in FOREIGN if name not in files]
        part = source.test().first(limit)
        figures["rotation"] = rotation_sweep(ask, part, selective, processes=processes)
        figures["corruptions"] = corruption_sweep(ask, part, selective, processes=processes)
        figures["intervals"] = _intervals(checkpoint, ask, test, another, device)
    return Evaluation(
        checkpoint=checkpoint,
        version=checkpoint.version(ask.n_draws),
        n_draws=ask.n_draws,
        parts=answers,
        foreign=foreign,
        figures=figures,
    )


def imitated_validation(inputs: Inputs, processes: int = 1) -> Inputs:
    """The validation part as others might send it: the same imitations in every run."""
    return imitated_inputs(
        inputs.pixels, seed=_IMITATION_SEED, processes=processes, name="validation"
    )


def _answer_part(
    source: Source, name: str, ask: BatchPredictor, processes: int, limit: int | None
) -> Answers:
    if name == "test":
        part = source.test()
    else:
        parts = split(
            source.train(), n_validation=source.n_validation, n_calibration=source.n_calibration
        )
        part = parts.calibration if name == "calibration" else parts.validation
    part = part.first(limit)
    inputs = preprocess(part, name, processes=processes)
    if name == "imitated":
        inputs = imitated_validation(inputs, processes)
    return ask(inputs, part.labels, name)


def _intervals(
    checkpoint: Checkpoint,
    ask: BatchPredictor,
    test: Answers,
    another: Checkpoint | None,
    device: Device,
) -> dict[str, Any]:
    """Monte Carlo error and, with another model, how often the intervals hold what it says."""
    n = min(_N_INTERVALS, len(test))
    inputs = Inputs(test.pixels[:n], test.flagged[:n])

    def of_first(summary: PredictiveSummary) -> PredictiveSummary:
        return PredictiveSummary(
            **{field.name: getattr(summary, field.name)[:n] for field in fields(summary)}
        )

    posterior = checkpoint.posterior
    others = {"monte_carlo": replace(posterior, seed=(posterior.seed + 1) % 2**63)}
    if another is not None:
        others["another"] = another.posterior
    result: dict[str, Any] = {"level": _LEVEL}
    for name, drawn_from in others.items():
        engine = make_engine(drawn_from, n_draws=ask.n_draws, device=device)
        summary = replace(ask, engine=engine)(inputs, None, "the same with other draws").summary
        compare = monte_carlo_error if name == "monte_carlo" else coverage_of_another
        result[name] = compare(of_first(test.summary), summary)
    return result

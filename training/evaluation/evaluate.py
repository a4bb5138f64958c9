"""Evaluation of a checkpoint: held-out parts, out-of-distribution sets, robustness, intervals."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from model.checkpoint import Checkpoint
from model.engines.engine import make_engine
from model.posterior import Posterior
from model.types import Device
from model.uncertainty import PredictiveSummary
from training.data.datasets import Part, Source, split
from training.data.ood import OOD_SETS, find_ood_sets, read_ood_set
from training.data.preprocess import Inputs, preprocess
from training.evaluation.intervals import IntervalMetrics, coverage_of_another, monte_carlo_error
from training.evaluation.predictions import LEVEL, BatchPredictor, Predictions
from training.evaluation.result import Evaluation, EvaluationMetrics
from training.evaluation.robustness import corruption_sweep, rotation_sweep
from training.evaluation.summary import ood_metrics, part_metrics, set_metrics_by_class
from training.synthesis.rendering import render_inputs

PARTS = ("validation", "imitated", "calibration", "test")
"""The held-out parts of a data set: those that the network was not fitted to.

`imitated` is the validation part rendered as uploads (`training.synthesis.rendering`).
"""

_RENDERING_SEED = 20260102
_N_INTERVALS = 2000


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    predict: BatchPredictor,
    source: Source,
    *,
    data_dir: Path,
    parts: Iterable[str] = PARTS,
    known: Mapping[str, Predictions] | None = None,
    brief: bool = False,
    limit: int | None = None,
    another: Checkpoint | None = None,
    device: Device = "auto",
    processes: int = 1,
) -> Evaluation:
    """Evaluate a checkpoint.

    Args:
        checkpoint: The posterior and its rules; its own metrics are not used.
        predict: Predicts with its draws.
        source: The data.
        data_dir: Where to look for out-of-distribution sets.
        parts: Names out of `PARTS`.
        known: Predictions that were made before, by part.
        brief: Whether to evaluate the parts alone.
        limit: Number of images of each set; all if None.
        another: An independently trained model, for the coverage of the credible intervals.
        device: Where to compute other draws and the other model.
        processes: How many processes preprocess images.
    """
    predictions = dict(known or {})
    for name in parts:
        if name not in predictions:
            predictions[name] = _predict_part(source, name, predict, processes, limit)
    predictions = {name: predictions[name] for name in parts}
    selective, conformal = checkpoint.selective, checkpoint.conformal
    metrics = EvaluationMetrics(
        {
            name: part_metrics(part, selective, conformal, bootstrap=not brief)
            for name, part in predictions.items()
        }
    )
    ood: dict[str, Predictions] = {}
    if "test" in predictions and not brief:
        test, digits = predictions["test"], source.test().first(limit)
        found = ood_inputs(data_dir, processes, limit)
        ood = {name: predict(inputs, None, name) for name, inputs in found}
        metrics = replace(
            metrics,
            sets_by_class=set_metrics_by_class(test, conformal, checkpoint.posterior.config.labels),
            ood={name: ood_metrics(part, test, selective) for name, part in ood.items()},
            ood_missing=[known.name for known in OOD_SETS if known.name not in ood],
            rotation=rotation_sweep(predict, digits, selective, processes=processes),
            corruptions=corruption_sweep(predict, digits, selective, processes=processes),
            intervals=_interval_metrics(checkpoint.posterior, predict, test, another, device),
        )
    return Evaluation(
        checkpoint=checkpoint,
        version=checkpoint.version(predict.n_draws),
        n_draws=predict.n_draws,
        parts=predictions,
        ood=ood,
        metrics=metrics,
    )


def ood_inputs(data_dir: Path, processes: int, limit: int | None) -> Iterator[tuple[str, Inputs]]:
    """Name and preprocessed images of each out-of-distribution set found below `data_dir`."""
    for name, file in find_ood_sets(data_dir).items():
        images = read_ood_set(file)[:limit]
        unlabelled = Part(images, np.zeros(len(images), np.int64))
        yield name, preprocess(unlabelled, name, processes=processes)


def _predict_part(
    source: Source, name: str, predict: BatchPredictor, processes: int, limit: int | None
) -> Predictions:
    if name == "test":
        part = source.test()
    else:
        parts = split(source)
        part = parts.calibration if name == "calibration" else parts.validation
    part = part.first(limit)
    inputs = preprocess(part, name, processes=processes)
    if name == "imitated":
        inputs = render_inputs(
            inputs.pixels, seed=_RENDERING_SEED, processes=processes, name="validation"
        )
    return predict(inputs, part.labels, name)


def _interval_metrics(
    posterior: Posterior,
    predict: BatchPredictor,
    test: Predictions,
    another: Checkpoint | None,
    device: Device,
) -> IntervalMetrics:
    """Monte Carlo error, and with another model the coverage of its probabilities."""
    n = min(_N_INTERVALS, len(test))
    inputs = Inputs(test.pixels[:n], test.flagged[:n])
    first = PredictiveSummary(
        **{field.name: getattr(test.summary, field.name)[:n] for field in fields(test.summary)}
    )

    def summary_of(drawn_from: Posterior, name: str) -> PredictiveSummary:
        engine = make_engine(drawn_from, n_draws=predict.n_draws, device=device)
        return replace(predict, engine=engine)(inputs, None, name).summary

    other_draws = replace(posterior, seed=(posterior.seed + 1) % 2**63)
    return IntervalMetrics(
        level=LEVEL,
        monte_carlo=monte_carlo_error(first, summary_of(other_draws, "test with other draws")),
        another=None
        if another is None
        else coverage_of_another(first, summary_of(another.posterior, "test with the other model")),
    )

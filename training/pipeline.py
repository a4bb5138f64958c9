"""One training run from data to checkpoint: fit, calibrate, evaluate, write."""

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model.checkpoint import Checkpoint, save_checkpoint
from model.engines.engine import Device, make_engine
from model.nn.network import BayesianCNN
from model.posterior import Posterior
from model.preprocessing.normalize import INPUT_CONTRACT
from model.uncertainty import outcomes
from training.calibration.rules import answer_non_digits, make_rules
from training.config import RunConfig
from training.data.datasets import SPLIT_SEED, Source, Split, preprocess, split
from training.distributed import ALONE, Ranks
from training.evaluation.evaluate import BatchPredictor, evaluate
from training.evaluation.metrics import error_rate, nll
from training.evaluation.result import Evaluation
from training.fitting.resume import UnfinishedRun, UnfinishedRunError
from training.fitting.trainer import EpochSummary, Fitter, at_expected_odds, new_network
from training.training_set import as_input, prepare_shown

__all__ = ["FloorError", "train"]

_VERSIONED = (
    "maybe-neural-network", "torch", "torchvision", "numpy", "pillow", "mahotas", "safetensors",
)  # fmt: skip


class FloorError(Exception):
    """The result is below a quality floor and was not written."""


def train(
    source: Source,
    config: RunConfig,
    *,
    device: torch.device,
    data_dir: Path,
    force: bool = False,
    fresh: bool = False,
    brief: bool = False,
    check_interrupted: Callable[[], None] = lambda: None,
    ranks: Ranks = ALONE,
) -> Evaluation | None:
    """One whole run: data, fit, calibration, evaluation, checkpoint, report.

    Args:
        source: The data.
        config: What to do.
        device: Where to fit.
        data_dir: Where foreign data sets may lie, for evaluation.
        force: Write even below the accuracy floor; weights that are not finite are never written.
        fresh: Discard an unfinished run instead of continuing it.
        brief: Evaluate on the parts of the data alone, and write no report.
        check_interrupted: Called at every step of the fit and before writing; may raise to end it.
        ranks: The processes that fit together. The first does the rest alone, and alone writes.

    Returns:
        The evaluation, with the checkpoint that was written to `config.output`; None on other ranks
        than the first.

    Raises:
        DataNotFoundError: If the data is not to be had; nothing is written.
        UnfinishedRunError: If there is an unfinished run with other settings.
        FloorError: If the result is below a floor; it is not written.
        OSError: If the output cannot be written.
    """
    started = time.monotonic()
    torch.set_num_threads(config.threads)
    torch.backends.cudnn.deterministic = True
    if ranks.is_first:
        _check_writable(config.output.parent)
    parts = split(
        source.train(), n_validation=source.n_validation, n_calibration=source.n_calibration
    )
    provenance = _provenance(source, parts, config, device, ranks)
    unfinished = UnfinishedRun(
        config.output,
        {
            key: provenance[key]
            for key in (
                "data",
                "input_contract",
                "architecture",
                "fit",
                "device",
                "threads",
                "ranks",
                "versions",
            )
        },
    )
    if fresh and ranks.is_first:
        unfinished.discard()
    print(
        f"preparing {len(parts.fit):,} pictures to fit, {len(parts.validation):,} to choose by and "
        f"{len(parts.calibration):,} to calibrate on",
        flush=True,
    )
    validation = preprocess(parts.validation, "validation", processes=config.threads, ranks=ranks)
    fitter, history = _fit(
        parts,
        validation.pixels,
        config,
        device,
        unfinished,
        check_interrupted=check_interrupted,
        ranks=ranks,
    )
    if not ranks.is_first:
        return None

    print(f"asking all {config.n_draws} networks about every held-out picture", flush=True)
    posterior = Posterior(config.model, *_posterior_arrays(fitter), seed=config.draw_seed)
    try:
        _check_finite(posterior)
    except FloorError:
        unfinished.discard()  # there is nothing in it to go on from
        raise
    where: Device = "cuda" if device.type == "cuda" else "cpu"
    engine = make_engine(posterior, n_draws=config.n_draws, device=where)
    ask = BatchPredictor(engine, config.n_draws, check_interrupted)
    on_validation = ask(validation, parts.validation.labels, "validation")
    accuracy = float(on_validation.correct.mean())
    if accuracy < config.least_accuracy and not force:
        raise FloorError(
            f"validation accuracy {100 * accuracy:.2f} % is below the floor of "
            f"{100 * config.least_accuracy:.0f} %; --force writes it anyway"
        )

    others = answer_non_digits(ask, validation.pixels, parts.validation.labels, config)
    calibration = preprocess(parts.calibration, "calibration", processes=config.threads)
    on_calibration = ask(calibration, parts.calibration.labels, "calibration")
    selective, conformal = make_rules(
        on_validation, others, on_calibration, parts.calibration.labels, config
    )
    # Everything has been decided: only now are test pictures and foreign ones opened.
    provenance["data"]["test_sha256"] = source.test().sha256()
    checkpoint = Checkpoint(
        name="digits",
        posterior=posterior,
        digest=posterior.digest(),
        selective=selective,
        conformal=conformal,
        training={
            **provenance,
            "epochs": [asdict(summary) for summary in history],
            "seconds": round(time.monotonic() - started, 1),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    evaluation = evaluate(
        checkpoint,
        ask,
        source,
        data_dir=data_dir,
        known={"validation": on_validation, "calibration": on_calibration},
        brief=brief,
        device=where,
        processes=config.threads,
    )
    figures = evaluation.figures
    checkpoint = replace(
        checkpoint, metrics={**figures["parts"], "foreign": figures.get("foreign", {})}
    )
    check_interrupted()
    save_checkpoint(checkpoint, config.output)
    unfinished.discard()
    evaluation = replace(evaluation, checkpoint=checkpoint)
    if not brief:
        # Not before it is needed: matplotlib wants a place for its cache, which a run that ends
        # without data need not have.
        from training.reporting.html import write_report  # noqa: PLC0415

        write_report(evaluation, config.output.with_suffix(".html"))
    return evaluation


def _fit(
    parts: Split,
    validation: NDArray[np.uint8],
    config: RunConfig,
    device: torch.device,
    unfinished: UnfinishedRun,
    *,
    check_interrupted: Callable[[], None],
    ranks: Ranks,
) -> tuple[Fitter[BayesianCNN], list[EpochSummary]]:
    """Fit epoch by epoch with a progress bar, saving the state after each."""
    shown = prepare_shown(parts.fit, config, check_interrupted, ranks=ranks)
    fitter = Fitter(
        new_network(config.model, config.fit, device),
        config.fit,
        shown.images,
        shown.labels,
        device,
        imitations=shown.imitations,
        non_digits=shown.non_digits,
        ranks=ranks,
    )
    history = _restore(unfinished, fitter)
    if history:
        print(f"continuing the unfinished run after epoch {fitter.epoch} of {config.fit.epochs}")
    while fitter.epoch < config.fit.epochs:
        title = f"epoch {fitter.epoch + 1}/{config.fit.epochs}"
        steps = []
        silent = None if ranks.is_first else True
        with tqdm(total=fitter.steps_per_epoch, desc=title, disable=silent, leave=False) as bar:
            for step in fitter.run_epoch():
                check_interrupted()
                steps.append(step)
                bar.set_postfix_str(f"NLL {step.nll:.3f}, KL {step.kl:,.0f} nats", refresh=False)
                bar.update()
        history.append(fitter.summarise(steps))
        if not ranks.is_first:
            continue
        unfinished.save(fitter, history)
        glance = _glance(fitter, validation, parts.validation.labels, config.validation_draws)
        print(
            f"{title}: NLL {history[-1].nll:.4f}, KL {history[-1].kl:,.0f} nats, "
            f"validation error {100 * glance[0]:.2f} %, NLL {glance[1]:.4f}",
            flush=True,
        )
    return fitter, history


def _restore(unfinished: UnfinishedRun, fitter: Fitter[BayesianCNN]) -> list[EpochSummary]:
    """Continue where the saved run stopped; the first rank reads it and tells the others."""
    history: list[EpochSummary] = []
    refused: UnfinishedRunError | None = None
    if fitter.ranks.is_first:
        try:
            history = unfinished.restore(fitter)
        except UnfinishedRunError as error:
            refused = error
    history, refused = fitter.ranks.from_first((history, refused))
    if refused is not None:
        raise refused
    if history and fitter.ranks.count > 1:
        fitter.restore(fitter.ranks.from_first(fitter.state()))
    return history


@torch.inference_mode()
def _glance(
    fitter: Fitter[BayesianCNN], inputs: NDArray[np.uint8], labels: NDArray[np.int64], n_draws: int
) -> tuple[float, float]:
    """Validation error and NLL with a few draws, from a generator of its own."""
    device = next(fitter.network.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    images = as_input(inputs).to(device)
    total = np.zeros((len(labels), fitter.network.config.n_classes))
    for _ in range(n_draws):
        weights = fitter.network.sample(generator)
        logits = torch.cat([fitter.network(batch, weights) for batch in torch.split(images, 1000)])
        total += outcomes(logits.cpu().numpy(), total.shape[1]).classes
    return error_rate(total, labels), nll(total / n_draws, labels)


def _check_finite(posterior: Posterior) -> None:
    for arrays in (posterior.mean, posterior.scale):
        for name, values in arrays.items():
            if not np.isfinite(values).all():
                raise FloorError(f"{name} is not finite: the fit has diverged; lower its step size")


def _provenance(
    source: Source, parts: Split, config: RunConfig, device: torch.device, ranks: Ranks
) -> dict[str, Any]:
    """Everything that decided this run, as plain JSON values."""
    values = {
        "dataset": source.name,
        "data": {
            name: {"n": len(part), "sha256": part.sha256()}
            for name, part in (
                ("fit", parts.fit),
                ("validation", parts.validation),
                ("calibration", parts.calibration),
            )
        }
        | {"split_seed": SPLIT_SEED},
        "input_contract": INPUT_CONTRACT,
        "architecture": config.model.to_dict(),
        "fit": asdict(config.fit),
        "device": device.type,
        "threads": config.threads,
        "ranks": ranks.count,
        "machine": platform.machine(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _VERSIONED},
    }
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _posterior_arrays(
    fitter: Fitter[BayesianCNN],
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    mean, scale = (
        {name: tensor.numpy() for name, tensor in part.items()}
        for part in fitter.network.posterior()
    )
    return at_expected_odds(mean, fitter.network.config, fitter.config), scale


def _check_writable(folder: Path) -> None:
    """Find out before the fit, not after it, that the result cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".writable-{os.getpid()}"
    probe.touch()
    probe.unlink()

"""One training run from data to checkpoint: fit, calibrate, evaluate, write."""

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model.checkpoint import Checkpoint, save_checkpoint
from model.decision import ConformalRule, SelectiveRule, uncertainty_score
from model.door import INPUT_CONTRACT
from model.engine import Device, make_engine
from model.posterior import Posterior
from model.uncertainty import PredictiveSummary, softmax
from training.calibrate import (
    acceptance_grid,
    choose_score,
    conformal_threshold,
    selective_threshold,
)
from training.config import RunConfig
from training.data import SPLIT_SEED, Source, Split, split, through_door
from training.evaluate import answer_all, imitated_validation
from training.fit import EpochSummary, Fitter
from training.imitate import imitated_inputs, likeness
from training.metrics import error_rate, measure, nll
from training.resume import UnfinishedRun

__all__ = ["FloorError", "train"]

_VERSIONED = (
    "maybe-neural-network", "torch", "torchvision", "numpy", "pillow", "mahotas", "safetensors",
)  # fmt: skip


_LEAST_LIKENESS = 0.4  # between a digit and its imitation


class FloorError(Exception):
    """The result is below a quality floor and was not written."""


def train(
    source: Source,
    config: RunConfig,
    *,
    device: torch.device,
    force: bool = False,
    fresh: bool = False,
    check_interrupted: Callable[[], None] = lambda: None,
) -> Checkpoint:
    """One whole run: data, fit, calibration, evaluation, checkpoint.

    Args:
        source: The data.
        config: What to do.
        device: Where to fit.
        force: Write even below the accuracy floor; weights that are not finite are never written.
        fresh: Discard an unfinished run instead of continuing it.
        check_interrupted: Called at every step of the fit and before writing; may raise to end it.

    Returns:
        What was written to `config.output`.

    Raises:
        DataNotFoundError: If the data is not to be had; nothing is written.
        UnfinishedRunError: If there is an unfinished run with other settings.
        FloorError: If the result is below a floor; it is not written.
        OSError: If the output cannot be written.
    """
    started = time.monotonic()
    torch.set_num_threads(config.threads)
    torch.backends.cudnn.deterministic = True
    _check_writable(config.output.parent)
    parts = split(
        source.train(), n_validation=source.n_validation, n_calibration=source.n_calibration
    )
    provenance = _provenance(source, parts, config, device)
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
                "versions",
            )
        },
    )
    if fresh:
        unfinished.discard()
    print(
        f"preparing {len(parts.fit):,} pictures to fit, {len(parts.validation):,} to choose by and "
        f"{len(parts.calibration):,} to calibrate on",
        flush=True,
    )
    validation = through_door(parts.validation, "validation")
    fitter, history = _fit(
        parts, validation.pixels, config, device, unfinished, check_interrupted=check_interrupted
    )

    print(f"asking all {config.n_draws} networks about every held-out picture", flush=True)
    posterior = Posterior(config.model, *_posterior_arrays(fitter), seed=config.draw_seed)
    try:
        _check_finite(posterior)
    except FloorError:
        unfinished.discard()  # there is nothing in it to go on from
        raise
    where: Device = "cuda" if device.type == "cuda" else "cpu"
    engine = make_engine(posterior, n_draws=config.n_draws, device=where)
    on_validation = answer_all(engine, validation.pixels, config.n_draws, "validation")
    accuracy = 1 - error_rate(on_validation.probability, parts.validation.labels)
    if accuracy < config.least_accuracy and not force:
        raise FloorError(
            f"validation accuracy {100 * accuracy:.2f} % is below the floor of "
            f"{100 * config.least_accuracy:.0f} %; --force writes it anyway"
        )

    imitated = imitated_validation(validation, processes=config.threads)
    on_imitated = answer_all(engine, imitated.pixels, config.n_draws, "imitated")
    calibration = through_door(parts.calibration, "calibration")
    on_calibration = answer_all(engine, calibration.pixels, config.n_draws, "calibration")
    selective, conformal = _calibrate(
        parts, on_validation, on_calibration, calibration.flagged, config
    )
    test_part = source.test()
    test = through_door(test_part, "test")
    on_test = answer_all(engine, test.pixels, config.n_draws, "test")
    provenance["data"]["test_sha256"] = test_part.sha256()
    checkpoint = Checkpoint(
        name="digits",
        posterior=posterior,
        digest=posterior.digest(),
        selective=selective,
        conformal=conformal,
        metrics={
            name: measure(summary, part.labels, selective, conformal, inputs.flagged)
            for name, summary, part, inputs in (
                ("validation", on_validation, parts.validation, validation),
                ("imitated", on_imitated, parts.validation, imitated),
                ("calibration", on_calibration, parts.calibration, calibration),
                ("test", on_test, test_part, test),
            )
        },
        training={
            **provenance,
            "epochs": [asdict(summary) for summary in history],
            "seconds": round(time.monotonic() - started, 1),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    check_interrupted()
    save_checkpoint(checkpoint, config.output)
    unfinished.discard()
    return checkpoint


def _fit(
    parts: Split,
    validation: NDArray[np.uint8],
    config: RunConfig,
    device: torch.device,
    unfinished: UnfinishedRun,
    *,
    check_interrupted: Callable[[], None],
) -> tuple[Fitter, list[EpochSummary]]:
    """Fit epoch by epoch with a progress bar, saving the state after each."""
    pixels = through_door(parts.fit, "fit").pixels
    imitations = None
    if config.fit.imitated:
        print("imitating pictures as others might send them", flush=True)
        imitated = imitated_inputs(
            pixels,
            seed=config.fit.seed,
            processes=config.threads,
            check_interrupted=check_interrupted,
            name="fit",
        )
        # Nothing is to be learnt where the digit was lost on the way: there it stays as it was.
        lost = imitated.flagged | (likeness(imitated.pixels, pixels) < _LEAST_LIKENESS)
        imitations = _as_input(np.where(lost[:, None, None], pixels, imitated.pixels))
    fitter = Fitter(
        config.model,
        config.fit,
        _as_input(pixels),
        torch.from_numpy(parts.fit.labels),
        device,
        imitations=imitations,
    )
    history = unfinished.restore(fitter)
    if history:
        print(f"continuing the unfinished run after epoch {fitter.epoch} of {config.fit.epochs}")
    while fitter.epoch < config.fit.epochs:
        title = f"epoch {fitter.epoch + 1}/{config.fit.epochs}"
        steps = []
        with tqdm(total=fitter.steps_per_epoch, desc=title, disable=None, leave=False) as bar:
            for step_nll, step_kl in fitter.run_epoch():
                check_interrupted()
                steps.append((step_nll, step_kl))
                bar.set_postfix_str(f"NLL {step_nll:.3f}, KL {step_kl:,.0f} nats", refresh=False)
                bar.update()
        history.append(fitter.summarise(steps))
        unfinished.save(fitter, history)
        glance = _glance(fitter, validation, parts.validation.labels, config.validation_draws)
        print(
            f"{title}: NLL {history[-1].nll:.4f}, KL {history[-1].kl:,.0f} nats, "
            f"validation error {100 * glance[0]:.2f} %, NLL {glance[1]:.4f}",
            flush=True,
        )
    return fitter, history


@torch.inference_mode()
def _glance(
    fitter: Fitter, inputs: NDArray[np.uint8], labels: NDArray[np.int64], n_draws: int
) -> tuple[float, float]:
    """Validation error and NLL with a few draws, from a generator of its own."""
    device = next(fitter.network.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    images = _as_input(inputs).to(device)
    total = np.zeros((len(labels), fitter.network.config.n_classes))
    for _ in range(n_draws):
        weights = fitter.network.sample(generator)
        logits = torch.cat([fitter.network(batch, weights) for batch in torch.split(images, 1000)])
        total += softmax(logits.cpu().numpy())
    return error_rate(total, labels), nll(total / n_draws, labels)


def _calibrate(
    parts: Split,
    on_validation: PredictiveSummary,
    on_calibration: PredictiveSummary,
    flagged: NDArray[np.bool_],
    config: RunConfig,
) -> tuple[SelectiveRule, ConformalRule]:
    """The score from the validation part, the thresholds from the calibration part.

    What the door has `flagged` of the calibration part is never accepted, so it counts in no risk.
    """
    labels = parts.calibration.labels
    score = choose_score(on_validation, parts.validation.labels)
    threshold = selective_threshold(
        np.where(flagged, np.inf, uncertainty_score(on_calibration, score)),
        on_calibration.probability.argmax(axis=1) == labels,
        acceptance_grid(uncertainty_score(on_validation, score)),
        target=config.rules.target,
        confidence=config.rules.confidence,
    )
    selective = SelectiveRule(
        score=score,
        threshold=threshold,
        target=config.rules.target,
        confidence=config.rules.confidence,
        n_calibration=len(labels),
        n_draws=config.n_draws,
        population=config.population,
    )
    coverage = config.rules.coverage
    threshold = conformal_threshold(on_calibration.probability, labels, coverage)
    return selective, ConformalRule(coverage, threshold, len(labels))


def _check_finite(posterior: Posterior) -> None:
    for arrays in (posterior.mean, posterior.scale):
        for name, values in arrays.items():
            if not np.isfinite(values).all():
                raise FloorError(f"{name} is not finite: the fit has diverged; lower its step size")


def _provenance(
    source: Source, parts: Split, config: RunConfig, device: torch.device
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
        "device": str(device),
        "threads": config.threads,
        "machine": platform.machine(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _VERSIONED},
    }
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _as_input(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels).float()[:, None] / 255


def _posterior_arrays(
    fitter: Fitter,
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    mean, scale = fitter.network.posterior()
    return (
        {name: tensor.numpy() for name, tensor in mean.items()},
        {name: tensor.numpy() for name, tensor in scale.items()},
    )


def _check_writable(folder: Path) -> None:
    """Find out before the fit, not after it, that the result cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".writable-{os.getpid()}"
    probe.touch()
    probe.unlink()

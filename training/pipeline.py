"""One training run from data to checkpoint: fit, calibrate, evaluate, write."""

import importlib.metadata
import json
import platform
import tempfile
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model.checkpoint import Checkpoint, save_checkpoint
from model.engines.engine import make_engine
from model.nn.network import BayesianCNN
from model.posterior import Posterior
from model.preprocessing.normalize import INPUT_CONTRACT
from model.types import Device
from model.uncertainty import draw_probabilities
from training.calibration.rules import make_rules
from training.config import RunConfig
from training.data.datasets import SPLIT_SEED, Source, Split, split
from training.data.preprocess import preprocess
from training.distributed import SINGLE_PROCESS, World
from training.evaluation.evaluate import evaluate_checkpoint
from training.evaluation.metrics import error_rate, nll
from training.evaluation.predictions import BatchPredictor
from training.evaluation.result import Evaluation
from training.fitting.resume import UnfinishedRun, UnfinishedRunError
from training.fitting.trainer import EpochSummary, Fitter, correct_prior_shift, new_network
from training.interruption import check_interrupted
from training.training_set import make_training_set, to_tensor

_VERSIONED = (
    "maybe-neural-network", "torch", "torchvision", "numpy", "pillow", "mahotas", "safetensors",
)  # fmt: skip
_RESUMED_WITH = (
    "data", "input_contract", "architecture", "fit", "device", "threads", "ranks", "versions",
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
    world: World = SINGLE_PROCESS,
) -> Evaluation | None:
    """Run a whole training: data, fit, calibration, evaluation, checkpoint, report.

    Args:
        source: The data.
        config: Settings of the run.
        device: Device of the fit.
        data_dir: Folder of the out-of-distribution sets, for evaluation.
        force: Write even below the accuracy floor; weights that are not finite are never written.
        fresh: Discard an unfinished run instead of resuming it.
        brief: Evaluate the parts of the data alone, and write no report.
        world: The processes that fit together. The first does everything else, and alone writes.

    Returns:
        The evaluation, with the checkpoint that was written to `config.output`; None on ranks other
        than the first.

    Raises:
        DataNotFoundError: If the data is not available; nothing is written.
        UnfinishedRunError: If there is an unfinished run with other settings.
        FloorError: If the result is below a floor; it is not written.
        OSError: If the output cannot be written.
    """
    started = time.monotonic()
    torch.set_num_threads(config.threads)
    torch.backends.cudnn.deterministic = True
    if world.is_main:
        # Fail before the fit if the result cannot be written.
        config.output.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=config.output.parent).close()
    parts = split(source)
    provenance = _provenance(source, parts, config, device, world)
    unfinished = UnfinishedRun(config.output, {key: provenance[key] for key in _RESUMED_WITH})
    if fresh and world.is_main:
        unfinished.discard()
    print(
        f"preprocessing {len(parts.fit):,} images to fit, {len(parts.validation):,} to validate "
        f"and {len(parts.calibration):,} to calibrate",
        flush=True,
    )
    validation = preprocess(parts.validation, "validation", processes=config.threads, world=world)
    network = new_network(config.model, config.fit).to(device)
    fitter = Fitter(network, config.fit, make_training_set(parts.fit, config, world), world=world)
    history = _fit(fitter, validation.pixels, parts.validation.labels, config, unfinished)
    if not world.is_main:
        return None

    print(f"predicting all held-out images with {config.n_draws} draws", flush=True)
    posterior = _posterior(fitter, config.draw_seed)
    for name, values in (*posterior.mean.items(), *posterior.scale.items()):
        if not np.isfinite(values).all():
            unfinished.discard()  # a diverged fit cannot be resumed
            raise FloorError(f"{name} is not finite: the fit has diverged; lower its step size")
    engine_device: Device = "cuda" if device.type == "cuda" else "cpu"
    engine = make_engine(posterior, n_draws=config.n_draws, device=engine_device)
    predict = BatchPredictor(engine, config.n_draws)
    on_validation = predict(validation, parts.validation.labels, "validation")
    accuracy = float(on_validation.correct.mean())
    if accuracy < config.min_accuracy and not force:
        raise FloorError(
            f"validation accuracy {100 * accuracy:.2f} % is below the floor of "
            f"{100 * config.min_accuracy:.0f} %; --force writes it anyway"
        )

    calibration = preprocess(parts.calibration, "calibration", processes=config.threads)
    on_calibration = predict(calibration, parts.calibration.labels, "calibration")
    selective, conformal = make_rules(predict, on_validation, on_calibration, config)
    # All choices are made: from here on test images and out-of-distribution sets may be read.
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
    evaluation = evaluate_checkpoint(
        checkpoint,
        predict,
        source,
        data_dir=data_dir,
        known={"validation": on_validation, "calibration": on_calibration},
        brief=brief,
        device=engine_device,
        processes=config.threads,
    )
    metrics = evaluation.metrics.to_dict()
    checkpoint = replace(
        checkpoint, metrics={**metrics["parts"], "foreign": metrics.get("foreign", {})}
    )
    check_interrupted()
    save_checkpoint(checkpoint, config.output)
    unfinished.discard()
    evaluation = replace(evaluation, checkpoint=checkpoint)
    if not brief:
        # Importing matplotlib writes to its cache, which most runs need not do.
        from training.reporting.html import write_report  # noqa: PLC0415

        write_report(evaluation, config.output.with_suffix(".html"))
    return evaluation


def _fit(
    fitter: Fitter[BayesianCNN],
    validation: NDArray[np.uint8],
    labels: NDArray[np.int64],
    config: RunConfig,
    unfinished: UnfinishedRun,
) -> list[EpochSummary]:
    """Fit epoch by epoch with a progress bar, saving the state after each."""
    history = _resume(unfinished, fitter)
    if history:
        print(f"continuing the unfinished run after epoch {fitter.epoch} of {config.fit.epochs}")
    while fitter.epoch < config.fit.epochs:
        title = f"epoch {fitter.epoch + 1}/{config.fit.epochs}"
        steps = []
        silent = None if fitter.world.is_main else True
        with tqdm(total=fitter.steps_per_epoch, desc=title, disable=silent, leave=False) as bar:
            for step in fitter.run_epoch():
                check_interrupted()
                steps.append(step)
                bar.set_postfix_str(f"NLL {step.nll:.3f}, KL {step.kl:,.0f} nats", refresh=False)
                bar.update()
        history.append(fitter.summarise(steps))
        if not fitter.world.is_main:
            continue
        unfinished.save(fitter, history)
        error, loss = _validate(fitter, validation, labels, config.validation_draws)
        print(
            f"{title}: NLL {history[-1].nll:.4f}, KL {history[-1].kl:,.0f} nats, "
            f"validation error {100 * error:.2f} %, NLL {loss:.4f}",
            flush=True,
        )
    return history


def _resume(unfinished: UnfinishedRun, fitter: Fitter[BayesianCNN]) -> list[EpochSummary]:
    """Resume the saved fit: the first rank reads it and broadcasts it to the others."""
    history: list[EpochSummary] = []
    failure: UnfinishedRunError | None = None
    if fitter.world.is_main:
        try:
            history = unfinished.restore(fitter)
        except UnfinishedRunError as error:
            failure = error
    history, failure = fitter.world.broadcast((history, failure))
    if failure is not None:
        raise failure
    if history and fitter.world.size > 1:
        fitter.restore(fitter.world.broadcast(fitter.state()))
    return history


@torch.inference_mode()
def _validate(
    fitter: Fitter[BayesianCNN], inputs: NDArray[np.uint8], labels: NDArray[np.int64], n_draws: int
) -> tuple[float, float]:
    """Validation error and NLL with a few draws, from a generator of its own."""
    device = next(fitter.network.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    images = to_tensor(inputs).to(device)
    total = np.zeros((len(labels), fitter.network.config.n_classes))
    for _ in range(n_draws):
        weights = fitter.network.sample(generator)
        logits = torch.cat([fitter.network(batch, weights) for batch in torch.split(images, 1000)])
        total += draw_probabilities(logits.cpu().numpy(), total.shape[1]).classes
    return error_rate(total, labels), nll(total / n_draws, labels)


def _provenance(
    source: Source, parts: Split, config: RunConfig, device: torch.device, world: World
) -> dict[str, Any]:
    """Everything that decides this run, as JSON values. The keys are a file format."""
    values = {
        "dataset": source.name,
        "data": {
            **{name: {"n": len(p), "sha256": p.sha256()} for name, p in vars(parts).items()},
            "split_seed": SPLIT_SEED,
        },
        "input_contract": INPUT_CONTRACT,
        "architecture": asdict(config.model),
        "fit": asdict(config.fit),
        "device": device.type,
        "threads": config.threads,
        "ranks": world.size,
        "machine": platform.machine(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _VERSIONED},
    }
    provenance: dict[str, Any] = json.loads(json.dumps(values))
    return provenance


def _posterior(fitter: Fitter[BayesianCNN], draw_seed: int) -> Posterior:
    model = fitter.network.config
    mean, scale = (
        {name: tensor.numpy() for name, tensor in part.items()}
        for part in fitter.network.posterior()
    )
    return Posterior(model, correct_prior_shift(mean, model, fitter.config), scale, seed=draw_seed)

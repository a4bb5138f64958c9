"""Comparison of the Bayesian network with the baselines, on the same data."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from tqdm import tqdm

from model.decision import ConformalRule, SelectiveRule
from model.engines.onnx_engine import OnnxEngine
from model.posterior import Arrays, Ensemble
from model.uncertainty import draw_probabilities
from training.baselines.networks import DeterministicCNN, Members, dropout_members
from training.calibration.rules import make_rules
from training.config import RunConfig
from training.data.datasets import Part, Source, split
from training.data.ood import OOD_SETS
from training.data.preprocess import Inputs, preprocess
from training.evaluation.evaluate import ood_inputs
from training.evaluation.metrics import nll
from training.evaluation.predictions import BatchPredictor
from training.evaluation.result import as_json
from training.evaluation.summary import OodMetrics, PartMetrics, ood_metrics, part_metrics
from training.fitting.trainer import Fitter, TrainingSet, correct_prior_shift
from training.reporting.text import format_ood, format_parts
from training.training_set import make_training_set

_BETAS = (0.02, 0.1, 0.5)
_DROPOUTS = (0.05, 0.1, 0.2)
_TUNING_EPOCHS = 12  # as many as for the Bayesian network's β
_MASK_SEED = 20260104
_QUICK_PART = 1000
_QUICK_OOD = 500

Rules = tuple[SelectiveRule, ConformalRule]


class _Data(NamedTuple):
    """Preprocessed images and their classes (N,)."""

    inputs: Inputs
    labels: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Method:
    """Networks whose predictions are averaged."""

    networks: Ensemble
    n_draws: int

    def predictor(self) -> BatchPredictor:
        return BatchPredictor(OnnxEngine(self.networks, n_draws=self.n_draws), self.n_draws)


def compare(
    posterior: Ensemble,
    config: RunConfig,
    source: Source,
    *,
    data_dir: Path,
    n_members: int,
    quick: bool = False,
) -> dict[str, Any]:
    """Fit, calibrate and evaluate the baselines beside the Bayesian network; print the tables.

    Args:
        posterior: The Bayesian network.
        config: Settings of its run, which the baselines share.
        source: The data.
        data_dir: Folder of the out-of-distribution sets.
        n_members: Members of the ensemble.
        quick: Whether to take one candidate for each choice, and few images.

    Returns:
        The choices, the settings of the fits and the results, as JSON values.

    Raises:
        DataNotFoundError: If the data is not available.
    """
    torch.set_num_threads(config.threads)

    def prepare(part: Part, name: str) -> _Data:
        return _Data(preprocess(part, name, processes=config.threads), part.labels)

    limit = _QUICK_PART if quick else None
    parts = split(source)
    data = make_training_set(parts.fit.first(limit), config)
    validation = prepare(parts.validation.first(limit), "validation")
    calibration = prepare(parts.calibration.first(limit), "calibration")
    methods, chosen = _fit_baselines(data, validation, config, n_members=n_members, quick=quick)
    methods = {"Bayesian": _Method(posterior, config.n_draws), **methods}
    rules = {name: _calibrate(m, validation, calibration, config) for name, m in methods.items()}

    # All choices are made: from here on test images and out-of-distribution sets may be read.
    test = prepare(source.test().first(limit), "test")
    ood = dict(ood_inputs(data_dir, config.threads, _QUICK_OOD if quick else None))
    metrics = {name: _evaluate(method, test, ood, rules[name]) for name, method in methods.items()}
    print(format_parts({name: of_test for name, (of_test, _) in metrics.items()}))
    for ood_name in ood:
        print(f"\n{ood_name}")
        print(format_ood({name: of_ood[ood_name] for name, (_, of_ood) in metrics.items()}))
    missing = [known.name for known in OOD_SETS if known.name not in ood]
    if missing:
        print(f"\nnot found and left out: {', '.join(missing)}")
    results = {
        name: {"rule": asdict(rules[name][0]), "test": as_json(of_test), "ood": as_json(of_ood)}
        for name, (of_test, of_ood) in metrics.items()
    }
    return {"chosen": chosen, "fit": asdict(config.fit), "results": results}


def _fit_baselines(
    data: TrainingSet, validation: _Data, config: RunConfig, *, n_members: int, quick: bool
) -> tuple[dict[str, _Method], dict[str, float]]:
    """The fitted baselines by name, and the choices made for them on the validation part."""
    n_draws = config.n_draws
    tuning_epochs = min(_TUNING_EPOCHS, config.fit.epochs)
    tuning = replace(config, fit=replace(config.fit, epochs=tuning_epochs))
    betas, dropouts = (_BETAS[:1], _DROPOUTS[:1]) if quick else (_BETAS, _DROPOUTS)
    beta = _best(betas, lambda beta: _fit(data, tuning, beta), validation)
    dropout = _best(dropouts, lambda rate: _fit(data, tuning, beta, rate), validation, n_draws)

    def corrected(networks: Sequence[Arrays]) -> list[Arrays]:
        return [correct_prior_shift(one, config.model, config.fit) for one in networks]

    members = corrected([_fit(data, config, beta, seed=i).arrays() for i in range(n_members)])
    masked = dropout_members(_fit(data, config, beta, dropout), n_draws, seed=_MASK_SEED)
    deterministic = Members(config.model, members[:1])
    temperature = _best_temperature(deterministic, validation)
    print(f"chosen: prior × {beta:g}, dropout {dropout:g}, temperature {temperature:.3f}")
    scaled = Members(config.model, [scale_temperature(members[0], temperature)])
    methods = {
        "deterministic": _Method(deterministic, 1),
        "with temperature": _Method(scaled, 1),
        "MC dropout": _Method(Members(config.model, corrected(masked.networks)), n_draws),
        f"ensemble of {n_members}": _Method(Members(config.model, members), n_members),
    }
    return methods, {"beta": beta, "dropout": dropout, "temperature": temperature}


def _fit(
    data: TrainingSet, config: RunConfig, beta: float, dropout: float = 0.0, *, seed: int = 0
) -> DeterministicCNN:
    """A deterministic network, fitted as the Bayesian one is."""
    fit = replace(config.fit, beta=beta, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    network = DeterministicCNN(config.model, dropout=dropout, generator=generator)
    fitter = Fitter(network, fit, data)
    title = f"prior × {beta:g}, dropout {dropout:g}, seed {seed}"
    n_steps = fit.epochs * fitter.steps_per_epoch
    with tqdm(total=n_steps, desc=title, disable=None, leave=False) as bar:
        for _ in range(fit.epochs):
            for _ in fitter.run_epoch():
                bar.update()
    print(f"fitted: {title}", flush=True)
    return network


def _best(
    candidates: Sequence[float],
    fit: Callable[[float], DeterministicCNN],
    validation: _Data,
    n_draws: int = 1,
) -> float:
    """The candidate with the smallest validation NLL; a single one needs no fit."""
    if len(candidates) == 1:
        return candidates[0]

    def loss(candidate: float) -> float:
        method = _Method(dropout_members(fit(candidate), n_draws, seed=_MASK_SEED), n_draws)
        predictions = method.predictor()(*validation, "validation")
        value = nll(predictions.summary.probability, predictions.true_labels)
        print(f"candidate {candidate:g}: validation NLL {value:.4f}", flush=True)
        return value

    return min(candidates, key=loss)


def _best_temperature(networks: Ensemble, validation: _Data) -> float:
    """The temperature with the smallest validation NLL.

    Source: Guo et al. (2017), "On Calibration of Modern Neural Networks", section 4.2.
    """
    logits = OnnxEngine(networks, n_draws=1).logits(validation.inputs.pixels, 1)
    labels, n_classes = validation.labels, networks.config.n_classes

    def loss(log_temperature: float) -> float:
        drawn = draw_probabilities(logits / np.exp(log_temperature), n_classes)
        return nll(drawn.classes[0], labels)

    return float(np.exp(minimize_scalar(loss, bounds=(-2, 3), method="bounded").x))


def scale_temperature(network: Arrays, temperature: float) -> Arrays:
    """The same network with its logits divided by the temperature."""
    output_layer = list(network)[-2:]  # weight and bias
    scaled = {name: (network[name] / temperature).astype(np.float32) for name in output_layer}
    return {**network, **scaled}


def _calibrate(method: _Method, validation: _Data, calibration: _Data, config: RunConfig) -> Rules:
    """A method's own score and thresholds, made as those of the Bayesian network."""
    predict = method.predictor()
    on_validation = predict(*validation, "validation")
    on_calibration = predict(*calibration, "calibration")
    return make_rules(predict, on_validation, on_calibration, config)


def _evaluate(
    method: _Method, test: _Data, ood: dict[str, Inputs], rules: Rules
) -> tuple[PartMetrics, dict[str, OodMetrics]]:
    """A method's metrics of the test part and of the out-of-distribution sets."""
    predict = method.predictor()
    on_test = predict(*test, "test")
    of_ood = {
        name: ood_metrics(predict(inputs, None, name), on_test, rules[0])
        for name, inputs in ood.items()
    }
    return part_metrics(on_test, *rules), of_ood

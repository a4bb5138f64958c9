"""`python -m training.baselines`: what the Bayesian network buys, beside simpler ways.

Each control has the architecture, the pictures, the distortions, the prior and the epochs of the
Bayesian network; its strength of the prior, or its dropout, is chosen on the validation part from a
few short fits, as the Bayesian network's β was. Each chooses its score and calibrates its threshold
by itself.

- `deterministic`: one value for each weight (MAP), and the same with its temperature fitted.
- `MC dropout`: fitted with dropout, asked with it as often as the Bayesian network.
- `ensemble`: several deterministic networks from different seeds.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from tqdm import tqdm

from model.checkpoint import BUNDLED, load_checkpoint, write_atomically
from model.decision import ConformalRule, SelectiveRule
from model.engines.engine import Engine
from model.engines.onnx_engine import OnnxEngine
from model.errors import CheckpointError
from model.posterior import Networks
from model.uncertainty import outcomes
from training.baselines.networks import Members, PlainCNN, dropout_members
from training.calibration.rules import answer_non_digits, make_rules
from training.cli_options import add_data_options, positive
from training.config import PRESETS, RunConfig
from training.data.datasets import DataNotFoundError, Inputs, Mnist, Part, preprocess, split
from training.data.ood import FOREIGN, find_ood_sets, read_ood_set
from training.evaluation.evaluate import BatchPredictor
from training.evaluation.metrics import nll
from training.evaluation.predictions import Answers
from training.evaluation.summary import digit_figures, foreign_figures
from training.fitting.trainer import Fitter, at_expected_odds
from training.reporting.text import format_foreign, format_parts
from training.training_set import Shown, prepare_shown

__all__ = ["main"]

_BETAS = (0.02, 0.1, 0.5)
_TUNING_EPOCHS = 12  # as many as the Bayesian network was tuned with
_DROPOUTS = (0.05, 0.1, 0.2)
_QUICK_NON_DIGITS = 2_000
_SEED_OF_MASKS = 20260104


@dataclass(frozen=True, eq=False)
class _Held:
    """What every contender is asked about."""

    parts: dict[str, tuple[Inputs, NDArray[np.int64]]]
    foreign: dict[str, Inputs]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.baselines", description=__doc__)
    parser.add_argument(
        "checkpoint", nargs="?", type=Path, default=BUNDLED, help="default: the shipped weights"
    )
    parser.add_argument("--epochs", type=positive, help="of every fit; default: as trained")
    parser.add_argument("--members", type=positive, default=5, help="of the ensemble; default: 5")
    parser.add_argument("--quick", action="store_true", help="one choice each, fewer pictures")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    add_data_options(parser)
    options = parser.parse_args(arguments)
    try:
        results = _run(options)
    except (CheckpointError, DataNotFoundError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        text = json.dumps(results, indent=1, sort_keys=True)
        write_atomically(options.json, f"{text}\n".encode())
    return 0


def _run(options: argparse.Namespace) -> dict[str, Any]:
    checkpoint = load_checkpoint(options.checkpoint)
    preset = PRESETS[Mnist.name]
    config = replace(
        preset,
        model=checkpoint.posterior.config,
        fit=replace(preset.fit, epochs=options.epochs or preset.fit.epochs),
        n_draws=checkpoint.selective.n_draws,
    )
    if options.quick:
        config = replace(config, n_non_digits=_QUICK_NON_DIGITS)
    torch.set_num_threads(config.threads)
    source = Mnist(options.data_dir)
    parts = split(
        source.train(), n_validation=source.n_validation, n_calibration=source.n_calibration
    )
    if options.quick:
        parts = replace(parts, **{name: getattr(parts, name).first(1000) for name in vars(parts)})
    shown = prepare_shown(parts.fit, config)
    validation = preprocess(parts.validation, "validation", processes=config.threads)
    betas, rates = (_BETAS[:1], _DROPOUTS[:1]) if options.quick else (_BETAS, _DROPOUTS)

    brief = min(_TUNING_EPOCHS, config.fit.epochs)
    short = replace(config, fit=replace(config.fit, epochs=brief))
    labels = parts.validation.labels
    beta = _best(betas, lambda b: _fit(shown, short, beta=b), validation, labels)
    rate = _best(
        rates,
        lambda r: _fit(shown, short, beta=beta, dropout=r),
        validation,
        labels,
        n_draws=config.n_draws,
    )
    members = [
        at_expected_odds(
            _fit(shown, config, beta=beta, seed=seed).arrays(), config.model, config.fit
        )
        for seed in range(options.members)
    ]
    dropped = dropout_members(
        _fit(shown, config, beta=beta, dropout=rate), config.n_draws, seed=_SEED_OF_MASKS
    )
    thinned = [at_expected_odds(one, config.model, config.fit) for one in dropped.networks]
    alone = Members(config.model, members[:1])
    temperature = _temperature(alone, validation, parts.validation.labels)
    print(f"chosen: prior × {beta:g}, dropout {rate:g}, temperature {temperature:.3f}")
    n = config.n_draws
    contenders: list[tuple[str, Networks, int]] = [
        ("Bayesian", checkpoint.posterior, n),
        ("deterministic", alone, 1),
        ("with temperature", Members(config.model, [_cooled(members[0], temperature)]), 1),
        ("MC dropout", Members(config.model, thinned), n),
        (f"ensemble of {len(members)}", Members(config.model, members), len(members)),
    ]
    held = _Held(
        {
            "validation": (validation, parts.validation.labels),
            "calibration": _prepared(parts.calibration, "calibration", config),
        },
        {},
    )
    rules = {
        name: _rules(networks, n_networks, held, config)
        for name, networks, n_networks in contenders
    }
    # Every choice has been made: only now are the test part and foreign sets opened.
    test = source.test()
    held.parts["test"] = _prepared(test.first(1000 if options.quick else None), "test", config)
    files = find_ood_sets(options.data_dir)
    for name, file in files.items():
        images = read_ood_set(file)[: 500 if options.quick else None]
        nothing = Part(images, np.zeros(len(images), np.int64))
        held.foreign[name] = preprocess(nothing, name, processes=config.threads)
    results = {
        name: _figures(networks, n_networks, held, *rules[name])
        for name, networks, n_networks in contenders
    }
    print(format_parts({name: found["test"] for name, found in results.items()}))
    for foreign in held.foreign:
        print(f"\n{foreign}")
        print(format_foreign({name: found["foreign"][foreign] for name, found in results.items()}))
    missing = [name for name in FOREIGN if name not in files]
    if missing:
        print(f"\nnot found and left out: {', '.join(missing)}")
    chosen = {"beta": beta, "dropout": rate, "temperature": temperature}
    return {"chosen": chosen, "fit": asdict(config.fit), "results": results}


def _fit(
    shown: Shown, config: RunConfig, *, beta: float, dropout: float = 0.0, seed: int = 0
) -> PlainCNN:
    """A network with one value for each weight, fitted as the Bayesian one is."""
    fit = replace(config.fit, beta=beta, seed=seed)
    network = PlainCNN(config.model, dropout=dropout, generator=torch.Generator().manual_seed(seed))
    fitter = Fitter(
        network,
        fit,
        shown.images,
        shown.labels,
        torch.device("cpu"),
        imitations=shown.imitations,
        non_digits=shown.non_digits,
    )
    title = f"prior × {beta:g}, dropout {dropout:g}, seed {seed}"
    with tqdm(
        total=fit.epochs * fitter.steps_per_epoch, desc=title, disable=None, leave=False
    ) as bar:
        for _ in range(fit.epochs):
            for _ in fitter.run_epoch():
                bar.update()
    print(f"fitted: {title}", flush=True)
    return network


def _best(
    settings: Sequence[float],
    fit: Callable[[float], PlainCNN],
    validation: Inputs,
    labels: NDArray[np.int64],
    n_draws: int = 1,
) -> float:
    """The setting whose network has the smallest validation NLL; no fit if there is no choice."""
    if len(settings) == 1:
        return settings[0]

    def quality(setting: float) -> float:
        members = dropout_members(fit(setting), n_draws, seed=_SEED_OF_MASKS)
        ask = BatchPredictor(OnnxEngine(members, n_draws=n_draws), n_draws)
        value = nll(ask(validation, labels, "validation").summary.probability, labels)
        print(f"setting {setting:g}: validation NLL {value:.4f}", flush=True)
        return value

    return min(settings, key=quality)


def _temperature(networks: Networks, validation: Inputs, labels: NDArray[np.int64]) -> float:
    """The temperature with the smallest validation NLL.

    Source: Guo et al. (2017), "On Calibration of Modern Neural Networks", section 4.2.
    """
    logits = OnnxEngine(networks, n_draws=1).logits(validation.pixels, 1)
    n_classes = networks.config.n_classes

    def loss(log_temperature: float) -> float:
        classes = outcomes(logits / np.exp(log_temperature), n_classes).classes
        return nll(classes[0], labels)

    return float(np.exp(minimize_scalar(loss, bounds=(-2, 3), method="bounded").x))


def _cooled(network: dict[str, NDArray[np.float32]], temperature: float) -> Any:
    """The same network with its outputs divided by the temperature."""
    last = list(network)[-2:]  # weight and bias of the last layer
    scaled = {name: (network[name] / temperature).astype(np.float32) for name in last}
    return {**network, **scaled}


def _rules(
    networks: Networks, n_networks: int, held: _Held, config: RunConfig
) -> tuple[SelectiveRule, ConformalRule]:
    """The score and the thresholds of one contender, as the Bayesian network's are made."""
    ask = BatchPredictor(_engine(networks, n_networks), n_networks)
    on = {name: ask(*held.parts[name], name) for name in ("validation", "calibration")}
    validation, labels = held.parts["validation"]
    others = answer_non_digits(ask, validation.pixels, labels, config)
    return make_rules(
        on["validation"],
        others,
        on["calibration"],
        held.parts["calibration"][1],
        replace(config, n_draws=n_networks),
    )


def _figures(
    networks: Networks,
    n_networks: int,
    held: _Held,
    selective: SelectiveRule,
    conformal: ConformalRule,
) -> dict[str, Any]:
    """One contender's figures of the test part and of foreign sets."""
    ask = BatchPredictor(_engine(networks, n_networks), n_networks)
    test = ask(*held.parts["test"], "test")
    foreign: dict[str, Answers] = {
        name: ask(inputs, None, name) for name, inputs in held.foreign.items()
    }
    return {
        "rule": asdict(selective),
        "test": digit_figures(test, selective, conformal),
        "foreign": {
            name: foreign_figures(given, test, selective) for name, given in foreign.items()
        },
    }


def _engine(networks: Networks, n_networks: int) -> Engine:
    return OnnxEngine(networks, n_draws=n_networks)


def _prepared(part: Part, name: str, config: RunConfig) -> tuple[Inputs, NDArray[np.int64]]:
    return preprocess(part, name, processes=config.threads), part.labels


if __name__ == "__main__":
    sys.exit(main())

"""`python -m training.baselines`: compare the Bayesian network with simpler methods.

Each baseline has the Bayesian network's architecture, data, augmentation, prior and epochs. Its
prior weight or dropout rate is chosen on the validation part after a few short fits, as β is for
the Bayesian network. Each chooses its own score and calibrates its own threshold.

- `deterministic`: one value for each weight (MAP), with and without temperature scaling.
- `MC dropout`: fitted with dropout, and sampled as often as the Bayesian network.
- `ensemble`: several deterministic networks with different seeds.
"""
# ruff: noqa: E402 - the check comes before the imports that it guards

from training.requirements import check_requirements

check_requirements()

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from model.checkpoint import BUNDLED, load_checkpoint
from model.errors import CheckpointError
from model.system import write_atomically
from training.baselines.comparison import compare
from training.cli_options import add_data_options, data_source, positive
from training.config import PRESETS
from training.data.datasets import DataNotFoundError, Mnist

_QUICK_OUTLIERS = 2_000


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.baselines", description=__doc__)
    parser.add_argument(
        "checkpoint", nargs="?", type=Path, default=BUNDLED, help="default: the bundled weights"
    )
    parser.add_argument("--epochs", type=positive, help="of every fit; default: as trained")
    parser.add_argument("--members", type=positive, default=5, help="of the ensemble; default: 5")
    parser.add_argument("--quick", action="store_true", help="one candidate each, fewer images")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    add_data_options(parser)
    parser.set_defaults(dataset=Mnist.name)
    options = parser.parse_args(arguments)
    preset = PRESETS[options.dataset]
    try:
        checkpoint = load_checkpoint(options.checkpoint)
        config = replace(
            preset,
            model=checkpoint.posterior.config,
            fit=replace(preset.fit, epochs=options.epochs or preset.fit.epochs),
            n_draws=checkpoint.selective.n_draws,
            n_outliers=_QUICK_OUTLIERS if options.quick else preset.n_outliers,
        )
        results = compare(
            checkpoint.posterior,
            config,
            data_source(options.dataset, options.data_dir),
            data_dir=options.data_dir,
            n_members=options.members,
            quick=options.quick,
        )
        if options.json:
            text = json.dumps(results, indent=1, sort_keys=True)
            write_atomically(options.json, f"{text}\n".encode())
    except (CheckpointError, DataNotFoundError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

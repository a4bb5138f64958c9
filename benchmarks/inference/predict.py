"""`python -m benchmarks.inference.predict`: what a prediction from 100 posterior draws costs, and its error.

Speed: the ensemble engine, the reference engine, one deterministic pass, and three libraries
(bayesian-torch, BLiTZ, torchbnn) with the same network; see `benchmarks.inference.speed`. The libraries'
rows need the environment that `python -m benchmarks.common.make_peers` makes.

Error: probabilities, entropies and intervals from S draws against 4,096 others; see
`benchmarks.inference.monte_carlo`. It reads 200 MNIST test pictures where there are any, and chooses nothing
by them.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.images import examples, find_mnist, test_inputs
from benchmarks.common.networks import LIBRARIES, has, library_versions
from benchmarks.common.report import format_table, write_json
from benchmarks.inference.monte_carlo import error_rows
from benchmarks.inference.speed import N_DRAWS, compare, fewer_draws
from model.architecture import DIGIT_READER
from model.checkpoint import BUNDLED, load_checkpoint
from model.nn.network import BayesianCNN
from model.posterior import Posterior

__all__ = ["main"]

_BATCHES = (1, 16, 64)
_ROUNDS, _QUICK_ROUNDS = 9, 3
_ERROR_DRAWS = (25, 50, 100, 200, 400)
_REFERENCE, _QUICK_REFERENCE = 4_096, 512
_PICTURES, _QUICK_PICTURES = 200, 16


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inference.predict", description=__doc__
    )
    parser.add_argument("--json", type=Path, help="also write the results there")
    parser.add_argument("--quick", action="store_true", help="one picture, few repetitions")
    parser.add_argument("--part", choices=["speed", "error"], help="only this part")
    options = parser.parse_args()
    shipped = load_checkpoint(BUNDLED).posterior
    results: dict[str, Any] = {"quick": options.quick, "libraries": library_versions()}
    if options.part != "error":
        results["speed"] = _speed(shipped, quick=options.quick)
    if options.part != "speed":
        results["error"] = _error(shipped, quick=options.quick)
    if options.json:
        write_json(options.json, results)
    return 0


def _speed(shipped: Posterior, *, quick: bool) -> dict[str, Any]:
    missing = [name for name, (module, _) in LIBRARIES.items() if not has(module)]
    if missing:
        print(
            f"left out, not installed here: {'; '.join(missing)}. `python -m benchmarks.common.make_peers`"
            " makes .venv-peers, whose Python has them."
        )
    rounds = _QUICK_ROUNDS if quick else _ROUNDS
    results: dict[str, Any] = {}
    for network, posterior in _networks(shipped).items():
        for batch in _BATCHES[:1] if quick else _BATCHES:
            title = f"{network}, {batch} picture{'s' * (batch > 1)}, {N_DRAWS} draws"
            results[title] = compare(posterior, batch, rounds=rounds, title=title)
            print(f"\n{title}\n{format_table(results[title])}", flush=True)
        title = f"{network}, 1 picture, fewer draws relative to {N_DRAWS}"
        results[title] = fewer_draws(posterior, rounds=rounds, title=title)
        print(f"\n{title}\n{format_table(results[title])}", flush=True)
    return results


def _networks(shipped: Posterior) -> dict[str, Posterior]:
    """The reference network, and the shipped one if that is another."""
    reference = DIGIT_READER
    # The prior does not change what is computed.
    if replace(shipped.config, prior_scale=reference.prior_scale) == reference:
        return {"reference network, shipped weights": shipped}
    network = BayesianCNN(reference, generator=torch.Generator().manual_seed(0))
    mean, scale = (
        {name: values.numpy() for name, values in part.items()} for part in network.posterior()
    )
    return {
        "reference network, untrained": Posterior(reference, mean, scale),
        "shipped network": shipped,
    }


def _error(shipped: Posterior, *, quick: bool) -> dict[str, Any]:
    mnist = find_mnist()
    if mnist is not None:
        images = test_inputs(mnist, _QUICK_PICTURES if quick else _PICTURES)
        source = f"the first {len(images)} MNIST test pictures"
    else:
        images = examples()
        source = f"the {len(images)} pictures of the documents (no MNIST found)"
    n_reference = _QUICK_REFERENCE if quick else _REFERENCE
    rows = error_rows(shipped, images, n_draws=_ERROR_DRAWS, n_reference=n_reference)
    print(f"\nerror of S draws against {n_reference} others, {source}\n{format_table(rows)}")
    return {"pictures": source, "reference_draws": n_reference, "rows": rows}


if __name__ == "__main__":
    sys.exit(main())

"""Cost and Monte Carlo error of a prediction from 100 posterior draws.

Speed compares the ONNX engine, the reference engine, one deterministic pass and three libraries
(bayesian-torch, BLiTZ, torchbnn) with the same network. The libraries need the environment of
`make peers`.

Error compares probabilities, entropies and intervals from S draws with those from 4,096 other
draws. It reads 200 MNIST test images where MNIST is installed, and nothing is chosen by them.
"""

import sys
from typing import Any

from benchmarks.common.images import example_inputs, find_mnist, test_inputs
from benchmarks.common.networks import LIBRARIES
from benchmarks.common.report import format_table, has, make_parser, write_json
from benchmarks.inference.monte_carlo import error_rows
from benchmarks.inference.speed import N_DRAWS, compare, fewer_draws
from model import Posterior, load_checkpoint
from model.checkpoint import BUNDLED

_BATCHES = (1, 16, 64)
_ROUNDS, _QUICK_ROUNDS = 9, 3
_ERROR_DRAWS = (25, 50, 100, 200, 400)
_REFERENCE, _QUICK_REFERENCE = 4_096, 512
_IMAGES, _QUICK_IMAGES = 200, 16


def main() -> int:
    """Run the command; returns its exit code."""
    parser = make_parser("inference.predict", __doc__, quick="one image, few repetitions")
    parser.add_argument("--part", choices=["speed", "error"], help="run this part only")
    options = parser.parse_args()
    bundled = load_checkpoint(BUNDLED).posterior
    results: dict[str, Any] = {"quick": options.quick}
    if options.part != "error":
        results["speed"] = _speed(bundled, quick=options.quick)
    if options.part != "speed":
        results["error"] = _error(bundled, quick=options.quick)
    write_json(options.json, results)
    return 0


def _speed(bundled: Posterior, *, quick: bool) -> dict[str, Any]:
    missing = [name for name, (module, _) in LIBRARIES.items() if not has(module)]
    if missing:
        print(f"skipped, not installed: {'; '.join(missing)} (`make peers`)")
    rounds = _QUICK_ROUNDS if quick else _ROUNDS
    results: dict[str, Any] = {}
    for batch in _BATCHES[:1] if quick else _BATCHES:
        title = f"bundled network, {batch} image{'s' * (batch > 1)}, {N_DRAWS} draws"
        results[title] = compare(bundled, batch, rounds=rounds, title=title)
        print(f"\n{title}\n{format_table(results[title])}", flush=True)
    title = f"bundled network, 1 image, fewer draws relative to {N_DRAWS}"
    results[title] = fewer_draws(bundled, rounds=rounds, title=title)
    print(f"\n{title}\n{format_table(results[title])}", flush=True)
    return results


def _error(bundled: Posterior, *, quick: bool) -> dict[str, Any]:
    mnist = find_mnist()
    if mnist is not None:
        images = test_inputs(mnist, _QUICK_IMAGES if quick else _IMAGES)
        source = f"the first {len(images)} MNIST test images"
    else:
        images = example_inputs()
        source = f"the {len(images)} example images of the documents (no MNIST found)"
    n_reference = _QUICK_REFERENCE if quick else _REFERENCE
    rows = error_rows(bundled, images, n_draws=_ERROR_DRAWS, n_reference=n_reference)
    print(f"\nerror of S draws against {n_reference} others, {source}\n{format_table(rows)}")
    return {"images": source, "reference_draws": n_reference, "rows": rows}


if __name__ == "__main__":
    sys.exit(main())

"""How far an answer from S draws is from what very many draws would say.

One set of S draws is what the service uses: the shipped posterior's, with its recorded seed. Since
its luck is that of one set, four more sets, drawn with other seeds, tell what is usual. The
reference are draws of yet other seeds, which have none in common with these; its own error adds up
to 5 % to the figures for 400 draws, and less for fewer.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.common.report import Row
from model.engines.onnx_engine import OnnxEngine
from model.posterior import Posterior
from model.uncertainty import (
    Floats,
    credible_interval,
    mutual_information,
    predictive,
    predictive_entropy,
    softmax,
)

__all__ = ["error_rows"]

_LEVEL = 0.95
_SETS = 5
_AT_ONCE = 512  # draws held by one engine: a bound on memory

_MEASURES: dict[str, Callable[[Floats], Floats]] = {
    "probability": predictive,
    "predictive entropy, nats": predictive_entropy,
    "mutual information, nats": mutual_information,
    f"ends of the {_LEVEL:.0%} interval": lambda p: np.stack(credible_interval(p, _LEVEL)),
}


def error_rows(
    posterior: Posterior,
    images: NDArray[np.uint8],
    *,
    n_draws: Sequence[int],
    n_reference: int,
) -> list[Row]:
    """Absolute errors of each measure, over pictures (and classes).

    In the rows, `mean` and `largest` are means over the sets; `service's largest` is the largest
    error of the set that the service uses.

    Args:
        posterior: The posterior.
        images: The network's inputs (B, 28, 28).
        n_draws: Numbers of draws S to judge.
        n_reference: Draws of the reference.
    """
    of_reference = [min(_AT_ONCE, n_reference - done) for done in range(0, n_reference, _AT_ONCE)]
    sizes = [max(n_draws)] * _SETS + of_reference
    parts = []
    with tqdm(total=sum(sizes), desc="draws", unit="draw", disable=None, leave=False) as bar:
        for i, size in enumerate(sizes):
            # The first keeps the seed: the very draws of the service.
            seeded = replace(posterior, seed=posterior.seed + i)
            engine = OnnxEngine(seeded, n_draws=size)
            parts.append(softmax(engine.logits(images, size)))
            bar.update(size)
    sets, reference = parts[:_SETS], np.concatenate(parts[_SETS:])
    rows: list[Row] = []
    for name, measure in _MEASURES.items():
        exact = measure(reference)
        for n in n_draws:
            errors = [np.abs(measure(draws[:n]) - exact) for draws in sets]
            rows.append({
                "error of": name,
                "draws": n,
                "mean": float(np.mean(errors)),
                "largest": float(np.mean([error.max() for error in errors])),
                "service's largest": float(errors[0].max()),
            })  # fmt: skip
    return rows

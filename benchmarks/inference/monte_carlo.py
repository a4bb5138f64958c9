"""Monte Carlo error: the error of an answer from S draws against very many draws.

The service uses one set of S draws: those of the bundled posterior with its recorded seed. Four
more sets with other seeds show what is typical. The reference uses draws from further seeds,
independent of these. Its own error adds up to 5 % to the figures for 400 draws, and less for fewer.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.common.report import Row
from model import Posterior, credible_interval, mutual_information, predictive, predictive_entropy
from model.engines.onnx_engine import OnnxEngine
from model.types import Floats
from model.uncertainty import softmax

_LEVEL = 0.95
_SETS = 5
_MAX_DRAWS = 512  # of one engine, to bound memory

_MEASURES: dict[str, Callable[[Floats], Floats]] = {
    "probability": predictive,
    "predictive entropy, nats": predictive_entropy,
    "mutual information, nats": mutual_information,
    f"bounds of the {_LEVEL:.0%} interval": lambda p: np.stack(credible_interval(p, _LEVEL)),
}


def error_rows(
    posterior: Posterior, images: NDArray[np.uint8], *, n_draws: Sequence[int], n_reference: int
) -> list[Row]:
    """Compute the absolute errors of each measure over images (B, 28, 28) (and classes).

    In the rows, `mean` and `largest` are means over the sets. `service's largest` is the largest
    error of the set that the service uses.
    """
    starts = range(0, n_reference, _MAX_DRAWS)
    sizes = [max(n_draws)] * _SETS + [min(_MAX_DRAWS, n_reference - done) for done in starts]
    parts = []
    with tqdm(total=sum(sizes), desc="draws", unit="draw", disable=None, leave=False) as bar:
        for i, size in enumerate(sizes):
            # The first engine keeps the seed, so it has the draws of the service.
            engine = OnnxEngine(replace(posterior, seed=posterior.seed + i), n_draws=size)
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

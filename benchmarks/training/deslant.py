"""`python -m benchmarks.training.deslant`: does it help to set slanted digits upright before reading them?

The network of the shipped weights is fitted twice for a few epochs, to MNIST's fit part as the
digit door leaves it and as it would be after deslanting by the moments of the ink, and asked about
the validation part and its imitations prepared in the same way. The test pictures are not opened.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from benchmarks.common.report import format_table, write_json
from model.engines.engine import make_engine
from model.posterior import Posterior
from training.config import PRESETS
from training.data.datasets import Inputs, Mnist, Part, preprocess, split
from training.evaluation.evaluate import BatchPredictor, imitated_validation
from training.evaluation.metrics import error_rate, nll
from training.fitting.trainer import FitConfig, Fitter, new_network

__all__ = ["deslanted", "main"]

_PRESET = PRESETS[Mnist.name]
_MODEL = replace(_PRESET.model, not_a_digit=False)
_DRAWS = 50


def deslanted(pixels: np.ndarray) -> np.ndarray:
    """Shear a digit (28, 28) so that its ink's rows and columns are uncorrelated."""
    ink = pixels.astype(np.float64)
    y, x = np.mgrid[0:28, 0:28]
    total = max(ink.sum(), 1.0)
    my, mx = (ink * y).sum() / total, (ink * x).sum() / total
    slant = (ink * (y - my) * (x - mx)).sum() / max((ink * (y - my) ** 2).sum(), 1e-9)
    upright = Image.fromarray(pixels).transform(
        (28, 28),
        Image.Transform.AFFINE,
        (1, slant, -slant * my + mx - 14, 0, 1, my - 14),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(upright)


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.deslant", description=__doc__
    )
    parser.add_argument("--json", type=Path, help="also write the results there")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="2,000 pictures, one epoch")
    parser.add_argument(
        "--data-dir", type=Path, default=Path(os.environ.get("MNN_DATA_DIR") or "data")
    )
    options = parser.parse_args()
    source = Mnist(options.data_dir)
    parts = split(
        source.train(), n_validation=source.n_validation, n_calibration=source.n_calibration
    )
    n = 2_000 if options.quick else len(parts.fit)
    labels = parts.fit.labels[:n]
    pixels = preprocess(Part(parts.fit.images[:n], labels), "fit").pixels
    validation = preprocess(parts.validation, "validation")
    held_out = {
        "validation": validation.pixels,
        "imitated": imitated_validation(validation, processes=_PRESET.threads).pixels,
    }
    config = replace(_PRESET.fit, epochs=1 if options.quick else options.epochs, imitated=0.0)
    rows = []
    for name in ("as the door leaves it", "deslanted"):
        deslants = name == "deslanted"
        posterior = _fitted(_prepared(pixels, deslants=deslants), labels, config, name)
        engine = make_engine(posterior, n_draws=_DRAWS, device="cpu")
        row: dict[str, Any] = {"pictures": name}
        for part, inputs in held_out.items():
            prepared = Inputs(_prepared(inputs, deslants=deslants), np.zeros(len(inputs), np.bool_))
            summary = BatchPredictor(engine, _DRAWS)(
                prepared, parts.validation.labels, part
            ).summary
            row[f"{part}, error %"] = 100 * error_rate(summary.probability, parts.validation.labels)
            row[f"{part}, NLL"] = nll(summary.probability, parts.validation.labels)
        rows.append(row)
    print(format_table(rows))
    if options.json:
        write_json(options.json, {"quick": options.quick, "epochs": config.epochs, "rows": rows})
    return 0


def _prepared(pixels: np.ndarray, *, deslants: bool) -> np.ndarray:
    return np.stack([deslanted(picture) for picture in pixels]) if deslants else pixels


def _fitted(pixels: np.ndarray, labels: np.ndarray, config: FitConfig, name: str) -> Posterior:
    torch.set_num_threads(_PRESET.threads)
    images = torch.from_numpy(pixels).float()[:, None] / 255
    fitter = Fitter(
        new_network(_MODEL, config),
        config,
        images,
        torch.from_numpy(labels),
        torch.device("cpu"),
    )
    steps = config.epochs * fitter.steps_per_epoch
    with tqdm(total=steps, desc=name, unit="step", disable=None, leave=False) as bar:
        for _ in range(config.epochs):
            for _ in fitter.run_epoch():
                bar.update()
    mean, scale = (
        {key: value.numpy() for key, value in values.items()}
        for values in fitter.network.posterior()
    )
    return Posterior(_MODEL, mean, scale, seed=0)


if __name__ == "__main__":
    sys.exit(main())

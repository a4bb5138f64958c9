"""The training set of a fit: digits, their renderings, and outliers."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.config import RunConfig
from training.data.datasets import Part
from training.data.preprocess import preprocess
from training.distributed import SINGLE_PROCESS, World
from training.fitting.trainer import TrainingSet
from training.synthesis.outliers import outlier_inputs
from training.synthesis.rendering import correlation, render_inputs

_MIN_KEPT = 0.65  # share of the outliers that `outlier_inputs` keeps
_MIN_CORRELATION = 0.4  # between a digit and its rendering


def make_training_set(part: Part, config: RunConfig, world: World = SINGLE_PROCESS) -> TrainingSet:
    """Preprocess the fit part, and synthesise the renderings and outliers that the run asks for.

    Args:
        part: The fit part.
        config: The run.
        world: The processes that share the work; each gets all of it.
    """
    seed, processes = config.fit.seed, config.threads
    pixels = preprocess(part, "fit", processes=processes, world=world).pixels
    renderings = outliers = None
    if config.fit.imitated:
        print("rendering digits as uploads", flush=True)
        rendered = render_inputs(pixels, seed=seed, processes=processes, name="fit", world=world)
        # If rendering destroyed the digit, keep the original.
        lost = rendered.flagged | (correlation(rendered.pixels, pixels) < _MIN_CORRELATION)
        renderings = to_tensor(np.where(lost[:, None, None], pixels, rendered.pixels))
    if config.model.not_a_digit:
        print("drawing outliers", flush=True)
        n = _n_outliers(len(part), config)
        drawn = outlier_inputs(
            pixels, part.labels, n, seed=seed, processes=processes, name="fit", world=world
        )
        outliers = to_tensor(drawn.pixels)
    return TrainingSet(to_tensor(pixels), torch.from_numpy(part.labels), renderings, outliers)


def _n_outliers(n_train: int, config: RunConfig) -> int:
    """How many outliers to draw: in a short run no more than the fit can use."""
    fit = config.fit
    used = fit.epochs * math.ceil(n_train / fit.batch_size) * fit.non_digits
    return min(config.n_outliers, math.ceil(used / _MIN_KEPT))


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """Pixels (N, 28, 28) as the network's input (N, 1, 28, 28)."""
    return torch.from_numpy(pixels).float()[:, None] / 255

"""What a network is shown while it is fitted: digits, their imitations, and what is no digit."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.config import RunConfig
from training.data.datasets import Part, preprocess
from training.distributed import ALONE, Ranks
from training.synthesis.outliers import nondigit_inputs
from training.synthesis.rendering import imitated_inputs, likeness

__all__ = ["Shown", "as_input", "prepare_shown"]

_LEAST_KEPT = 0.65  # share of the non-digits drawn that are none
_LEAST_LIKENESS = 0.4  # between a digit and its imitation


@dataclass(frozen=True, eq=False)
class Shown:
    """The fit part as the network is shown it, floating point numbers in [0, 1].

    Attributes:
        images: The digits (N, 1, 28, 28).
        labels: Their classes (N,).
        imitations: Each digit as somebody else would send it (N, 1, 28, 28); None if not wanted.
        non_digits: Pictures that are no digits (M, 1, 28, 28); None if not wanted.
    """

    images: Tensor
    labels: Tensor
    imitations: Tensor | None
    non_digits: Tensor | None


def prepare_shown(
    part: Part,
    config: RunConfig,
    check_interrupted: Callable[[], None] = lambda: None,
    *,
    ranks: Ranks = ALONE,
) -> Shown:
    """Pass the fit part through the digit door, and draw what is shown beside it.

    Args:
        part: The fit part.
        config: What is wanted.
        check_interrupted: Called now and then; may raise to end it.
        ranks: The processes that share the work; each is given all of it.
    """
    pixels = preprocess(part, "fit", processes=config.threads, ranks=ranks).pixels
    imitations = non_digits = None
    if config.fit.imitated:
        print("imitating pictures as others might send them", flush=True)
        imitated = imitated_inputs(
            pixels,
            seed=config.fit.seed,
            processes=config.threads,
            check_interrupted=check_interrupted,
            name="fit",
            ranks=ranks,
        )
        # Nothing is to be learnt where the digit was lost on the way: there it stays as it was.
        lost = imitated.flagged | (likeness(imitated.pixels, pixels) < _LEAST_LIKENESS)
        imitations = as_input(np.where(lost[:, None, None], pixels, imitated.pixels))
    if config.model.not_a_digit:
        print("drawing what is no digit", flush=True)
        drawn = nondigit_inputs(
            pixels,
            part.labels,
            _n_non_digits(len(part), config),
            seed=config.fit.seed,
            processes=config.threads,
            check_interrupted=check_interrupted,
            name="fit",
            ranks=ranks,
        )
        non_digits = as_input(drawn.inputs.pixels)
    return Shown(as_input(pixels), torch.from_numpy(part.labels), imitations, non_digits)


def _n_non_digits(n_train: int, config: RunConfig) -> int:
    """How many to draw: in a short run no more than are shown, since some are dropped."""
    fit = config.fit
    shown = fit.epochs * math.ceil(n_train / fit.batch_size) * fit.non_digits
    return min(config.n_non_digits, math.ceil(shown / _LEAST_KEPT))


def as_input(pixels: NDArray[np.uint8]) -> Tensor:
    """Pixels (N, 28, 28) as a network takes them (N, 1, 28, 28)."""
    return torch.from_numpy(pixels).float()[:, None] / 255

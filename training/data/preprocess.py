"""Preprocessing of a whole part, as the service preprocesses one image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.preprocessing.normalize import DigitImage, open_array
from training.data.datasets import Part
from training.data.parallel import parallel_map
from training.distributed import SINGLE_PROCESS, World


@dataclass(frozen=True, eq=False)
class Inputs:
    """Preprocessed images.

    Attributes:
        pixels: The network's input, uint8 (N, 28, 28).
        flagged: Whether preprocessing sends the image to a person (N,).
    """

    pixels: NDArray[np.uint8]
    flagged: NDArray[np.bool_]

    @classmethod
    def of(cls, images: Sequence[DigitImage]) -> "Inputs":
        """Stack single preprocessed images, at least one."""
        return cls(
            np.stack([image.pixels for image in images]),
            np.array([bool(image.reasons) for image in images]),
        )


def preprocess(
    part: Part, name: str, *, processes: int = 1, world: World = SINGLE_PROCESS
) -> Inputs:
    """Preprocess every image of a part.

    Args:
        part: The images.
        name: Their name on the progress bar.
        processes: How many worker processes to use.
        world: The processes that share the work; each gets all results.
    """
    title = f"preprocessing {name}"
    images = list(part.images)
    return Inputs.of(parallel_map(open_array, images, title, processes=processes, world=world))

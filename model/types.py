"""Types that several modules of this package share."""

from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
"""Probabilities and what is computed from them."""

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
"""Where to run the network; `auto` is CUDA if available, else the CPU."""

Decision: TypeAlias = Literal["accept", "review"]
"""Accept the prediction, or have a person review the image."""

Reason: TypeAlias = Literal[
    "uncertain", "unlike_training", "no_ink", "several_shapes", "not_digit_shaped"
]
"""Why a person should review an image: two from the decision rule, three from preprocessing."""

Score: TypeAlias = Literal[
    "predictive_entropy",
    "mutual_information",
    "one_minus_max_probability",
    "not_a_digit",
    "one_minus_joint_probability",
]
"""An uncertainty that a decision rule can threshold.

`one_minus_joint_probability` is the probability that "it is a digit, and it is that one" is wrong.
Without a not-a-digit output, it equals `one_minus_max_probability`, and `not_a_digit` is 0.
"""

SCORES: tuple[Score, ...] = get_args(Score)
"""Every `Score`."""

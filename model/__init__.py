"""A Bayesian convolutional network for digits, and everything needed to ask it.

::

    from model import load

    answer = load().predict("seven.png")
    print(answer.prediction, answer.probability, answer.decision)

The layers and the network need PyTorch and are imported only when they are asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from model.architecture import Conv, ModelConfig
from model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from model.classifier import Classifier, ClassProbability, NotADigit, Prediction, load
from model.decision import ConformalRule, SelectiveRule
from model.door import DigitImage, open_array, open_bytes
from model.errors import (
    CheckpointError,
    CorruptPictureError,
    ModelError,
    PictureError,
    PictureTooLargeError,
    RequestError,
    UnsupportedFormatError,
)
from model.posterior import Posterior
from model.uncertainty import (
    PredictiveSummary,
    credible_interval,
    expected_entropy,
    mutual_information,
    predictive,
    predictive_entropy,
    summarise,
)

if TYPE_CHECKING:
    from model.layers import AffineWeights, BayesianConv2d, BayesianLinear, gaussian_kl
    from model.network import BayesianCNN

__all__ = [
    "AffineWeights",
    "BayesianCNN",
    "BayesianConv2d",
    "BayesianLinear",
    "Checkpoint",
    "CheckpointError",
    "ClassProbability",
    "Classifier",
    "ConformalRule",
    "Conv",
    "CorruptPictureError",
    "DigitImage",
    "ModelConfig",
    "ModelError",
    "NotADigit",
    "PictureError",
    "PictureTooLargeError",
    "Posterior",
    "Prediction",
    "PredictiveSummary",
    "RequestError",
    "SelectiveRule",
    "UnsupportedFormatError",
    "credible_interval",
    "expected_entropy",
    "gaussian_kl",
    "load",
    "load_checkpoint",
    "mutual_information",
    "open_array",
    "open_bytes",
    "predictive",
    "predictive_entropy",
    "save_checkpoint",
    "summarise",
]

_NEEDS_TORCH = {
    "AffineWeights": "model.layers",
    "BayesianCNN": "model.network",
    "BayesianConv2d": "model.layers",
    "BayesianLinear": "model.layers",
    "gaussian_kl": "model.layers",
}


def __getattr__(name: str) -> Any:
    if name in _NEEDS_TORCH:
        return getattr(importlib.import_module(_NEEDS_TORCH[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

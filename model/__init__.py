"""A Bayesian convolutional network for handwritten digits: model, preprocessing and inference.

::

    from model import load

    prediction = load().predict("seven.png")
    print(prediction.prediction, prediction.probability, prediction.decision)

The layers and the network need PyTorch and are imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from model.architecture import Conv, ModelConfig
from model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from model.classifier import Classifier, ClassProbability, NotADigit, Prediction, load
from model.decision import ConformalRule, SelectiveRule
from model.errors import (
    CheckpointError,
    CorruptImageError,
    ImageError,
    ImageTooLargeError,
    ModelError,
    RequestError,
    UnsupportedFormatError,
)
from model.posterior import Posterior
from model.preprocessing import DigitImage, open_array, open_bytes
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
    from model.nn import AffineWeights, BayesianCNN, BayesianConv2d, BayesianLinear, gaussian_kl

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
    "CorruptImageError",
    "DigitImage",
    "ImageError",
    "ImageTooLargeError",
    "ModelConfig",
    "ModelError",
    "NotADigit",
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


def __getattr__(name: str) -> Any:
    if name in __all__:  # not imported above, so it needs PyTorch
        return getattr(importlib.import_module("model.nn"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The bodies of answers: their fields, and how they are made from a prediction.

A field of `PredictResponse` takes the value of the attribute of `Prediction` with the same name.
"""

import base64
import io
from dataclasses import asdict
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from model.classifier import Prediction
from model.types import Decision, Reason
from service.errors import Problem
from service.model_lifecycle.loading import LoadedModel


def _rounded(value: float) -> float:
    return round(value, 6)


_Number = Annotated[float, BeforeValidator(_rounded)]
_Probability = Annotated[_Number, Field(ge=0, le=1)]
_Entropy = Annotated[_Number, Field(ge=0)]
_Lower = Annotated[_Probability, Field(description="The quantile over draws at (1 - level)/2.")]
_Upper = Annotated[_Probability, Field(description="The quantile over draws at (1 + level)/2.")]
_Std = Annotated[_Number, Field(ge=0, description="Standard deviation over the draws.")]


class _FromAttributes(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ClassEntry(_FromAttributes):
    """One class: its probability, with the credible interval from `lower` to `upper`."""

    label: str = Field(description="The class, one of the model's `labels`.")
    probability: _Probability = Field(description="Mean over draws; all classes sum to 1.")
    lower: _Lower
    upper: _Upper
    std: _Std


class NotADigitEntry(_FromAttributes):
    """The outcome "not a digit": its probability and credible interval."""

    probability: _Probability = Field(description="Mean over the draws.")
    lower: _Lower
    upper: _Upper
    std: _Std


class Uncertainty(_FromAttributes):
    """Entropies in nats: predictive (total) = expected (aleatoric) + mutual (epistemic)."""

    predictive_entropy: _Entropy = Field(description="Total, at most ln C for C classes.")
    expected_entropy: _Entropy = Field(description="Aleatoric: ambiguity of the picture itself.")
    mutual_information: _Entropy = Field(description="Epistemic: disagreement of the draws.")


class ModelName(BaseModel):
    """The model that answered."""

    name: str = Field(description="Its name, as in its checkpoint.")
    version: str = Field(
        pattern="^[0-9a-f]{12}$", description="A hash of everything that decides an answer."
    )


class PredictResponse(_FromAttributes):
    """The answer for one picture."""

    prediction: str = Field(description="The most probable label.")
    probability: _Probability = Field(description="Its probability: the mean over the draws.")
    decision: Decision = Field(description="`review`: a person should look.")
    reasons: list[Reason] = Field(description="Why a person should look; empty if accepted.")
    calibrated: bool = Field(
        description="Whether the guarantee applies: only for the calibrated number of draws."
    )
    classes: list[ClassEntry] = Field(
        description="One entry per class, in label order, given that the picture is a digit."
    )
    not_a_digit: NotADigitEntry | None = Field(
        description="The probability that the picture is not a digit; null if the model has no "
        "such outcome."
    )
    uncertainty: Uncertainty = Field(description="Total, aleatoric and epistemic entropy.")
    prediction_set: list[str] = Field(description="The conformal set; the top class is in it.")
    samples: int = Field(ge=2, description="Posterior draws used.")
    level: _Number = Field(ge=0.5, lt=1, description="Mass of the credible intervals.")
    model: ModelName = Field(description="The model that answered.")
    preview: str | None = Field(
        description="The 28×28 input of the network as a PNG data URL; null if not asked for."
    )
    draws: list[list[float]] | None = Field(
        description="Each draw's probabilities, in label order; null if not asked for."
    )


class BatchError(BaseModel):
    """The entry of a file that could not be answered."""

    error: Problem = Field(description="What `/predict` would have answered for this file alone.")


class BatchResponse(BaseModel):
    """One entry per file, in order."""

    results: list[PredictResponse | BatchError] = Field(description="One entry per file.")


class Health(BaseModel):
    """The answer of a health probe."""

    status: Literal["live", "ready"] = Field(description="The state that holds.")


class ModelResponse(BaseModel):
    """The model in service, and what is known about it."""

    name: str = Field(description="Its name, as in its checkpoint.")
    version: str = Field(
        pattern="^[0-9a-f]{12}$", description="A hash of exactly what decides an answer."
    )
    source: Literal["shipped", "file"] = Field(
        description="`shipped`: the bundled model; `file`: the operator's checkpoint."
    )
    reload_error: str | None = Field(
        description="Why the newest checkpoint is not in service; null if it is."
    )
    labels: list[str] = Field(description="The classes, in the order of all lists of classes.")
    input_contract: str = Field(description="The network's input, and how it is preprocessed.")
    draws: int = Field(ge=2, description="Posterior draws held, the most that can be asked for.")
    draws_reproduced: bool = Field(
        description="Whether this installation samples the draws that were calibrated."
    )
    seed: int = Field(ge=0, description="Seed of the draws.")
    parameters: int = Field(ge=1, description="Weights and biases of one network.")
    mflop_per_draw: float = Field(ge=0, description="Cost of one picture and one draw.")
    architecture: dict[str, Any] = Field(description="The layers, the labels and the prior.")
    decision: dict[str, Any] = Field(
        description="The decision rule: score, threshold, target, calibration, guarantee."
    )
    conformal: dict[str, Any] = Field(
        description="The conformal sets: coverage, threshold, calibration, guarantee."
    )
    metrics: dict[str, Any] = Field(description="Held-out metrics by data set, each with its `n`.")
    training: dict[str, Any] = Field(description="Data, configuration, versions and time.")
    device: str = Field(description="The device: `cpu` or `cuda`.")
    engine: str = Field(description="The inference engine.")
    worker_threads: int = Field(ge=1, description="Threads that compute answers.")


def predict_response(
    prediction: Prediction, model: LoadedModel, *, preview: bool, draws: bool
) -> PredictResponse:
    """Build the body of an answer: probabilities rounded to 6 decimals, draws to 4."""
    same_names = PredictResponse.model_fields.keys() - {"uncertainty", "model", "preview", "draws"}
    return PredictResponse.model_validate(
        {
            **{name: getattr(prediction, name) for name in same_names},
            "uncertainty": prediction,
            "model": {"name": model.name, "version": model.version},
            "preview": _data_url(prediction.pixels) if preview else None,
            "draws": np.round(prediction.draws, 4).tolist() if draws else None,
        }
    )


def model_response(
    model: LoadedModel, *, worker_threads: int, reload_error: str | None
) -> ModelResponse:
    """Build the body of `GET /model`."""
    classifier, checkpoint = model.classifier, model.classifier.checkpoint
    rule, sets = checkpoint.selective, checkpoint.conformal
    config = checkpoint.posterior.config
    return ModelResponse(
        name=model.name,
        version=model.version,
        source=model.source,
        reload_error=reload_error,
        labels=list(classifier.labels),
        input_contract=checkpoint.input_contract,
        draws=classifier.engine.n_draws,
        draws_reproduced=classifier.draws_reproduced,
        seed=checkpoint.posterior.seed,
        parameters=config.n_parameters,
        mflop_per_draw=round(config.mflop_per_draw, 3),
        architecture=asdict(config),
        decision={**asdict(rule), "guarantee": rule.guarantee()},
        conformal={**asdict(sets), "guarantee": sets.guarantee()},
        metrics=dict(checkpoint.metrics),
        training=dict(checkpoint.training),
        device=classifier.engine.device,
        engine=classifier.engine.name,
        worker_threads=worker_threads,
    )


def _data_url(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

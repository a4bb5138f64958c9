"""The bodies that clients receive, and how they are made from an answer."""

import base64
import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field

from model.classifier import Decision, Prediction
from model.decision import Reason
from service.holder import Served
from service.problems import Problem

__all__ = [
    "BatchError",
    "BatchResponse",
    "Health",
    "ModelResponse",
    "PredictResponse",
    "model_response",
    "predict_response",
]

Probability = Field(ge=0, le=1)
Nats = Field(ge=0)


class ClassEntry(BaseModel):
    """One class: mean over draws, credible interval, standard deviation over draws."""

    label: str
    probability: float = Probability
    lower: float = Probability
    upper: float = Probability
    std: float = Field(ge=0)


class NotADigitEntry(BaseModel):
    """Being no digit: mean over draws, credible interval, standard deviation over draws."""

    probability: float = Probability
    lower: float = Probability
    upper: float = Probability
    std: float = Field(ge=0)


class Uncertainty(BaseModel):
    """Entropies in nats: total = expected (ambiguous picture) + mutual (networks disagree)."""

    predictive_entropy: float = Nats
    expected_entropy: float = Nats
    mutual_information: float = Nats


class ModelName(BaseModel):
    """Which model answered."""

    name: str
    version: str


class PredictResponse(BaseModel):
    """The answer for one picture."""

    prediction: str = Field(description="The most probable label.")
    probability: float = Field(ge=0, le=1, description="Its probability: the mean over draws.")
    decision: Decision = Field(description="`review`: a person should look.")
    reasons: list[Reason] = Field(description="Why a person should look; empty if accepted.")
    calibrated: bool = Field(description="Whether the decision's guarantee applies.")
    classes: list[ClassEntry] = Field(
        description="One entry per class, in label order, given that the picture is a digit."
    )
    not_a_digit: NotADigitEntry | None = Field(
        description="How probable it is that the picture is no digit at all; null if the model "
        "has no outcome for that."
    )
    uncertainty: Uncertainty
    prediction_set: list[str] = Field(description="The conformal set; the top class is in it.")
    samples: int = Field(description="Posterior draws used.")
    level: float = Field(description="Mass of the credible intervals.")
    model: ModelName
    preview: str | None = Field(description="What the network saw, as a PNG data URL.")
    draws: list[list[float]] | None = Field(description="Probabilities of every draw.")


class BatchError(BaseModel):
    """The entry of a file that could not be answered."""

    error: Problem


class BatchResponse(BaseModel):
    """One entry per file, in order."""

    results: list[PredictResponse | BatchError]


class Health(BaseModel):
    """The state of a probe."""

    status: Literal["live", "ready"]


class ModelResponse(BaseModel):
    """What is being served, and what is known about it."""

    name: str
    version: str
    source: Literal["shipped", "file"]
    refresh_error: str | None = Field(
        description="Why the newest checkpoint was not taken; null if what is served is the newest."
    )
    labels: list[str]
    input_contract: str
    draws: int
    draws_reproduced: bool
    seed: int
    parameters: int
    mflop_per_draw: float
    architecture: dict[str, Any]
    decision: dict[str, Any]
    conformal: dict[str, Any]
    metrics: dict[str, Any]
    training: dict[str, Any]
    device: str
    engine: str
    lanes: int


def predict_response(
    answer: Prediction, served: Served, *, preview: bool, draws: bool
) -> PredictResponse:
    """The body for an answer: probabilities to 6 decimals, draws to 4."""
    checkpoint = served.classifier.checkpoint
    return PredictResponse(
        prediction=answer.prediction,
        probability=round(answer.probability, 6),
        decision=answer.decision,
        reasons=list(answer.reasons),
        calibrated=answer.calibrated,
        classes=[
            ClassEntry(
                label=entry.label,
                probability=round(entry.probability, 6),
                lower=round(entry.lower, 6),
                upper=round(entry.upper, 6),
                std=round(entry.std, 6),
            )
            for entry in answer.classes
        ],
        not_a_digit=answer.not_a_digit
        and NotADigitEntry(
            probability=round(answer.not_a_digit.probability, 6),
            lower=round(answer.not_a_digit.lower, 6),
            upper=round(answer.not_a_digit.upper, 6),
            std=round(answer.not_a_digit.std, 6),
        ),
        uncertainty=Uncertainty(
            predictive_entropy=round(answer.predictive_entropy, 6),
            expected_entropy=round(answer.expected_entropy, 6),
            mutual_information=round(answer.mutual_information, 6),
        ),
        prediction_set=list(answer.prediction_set),
        samples=answer.samples,
        level=round(answer.level, 6),
        model=ModelName(name=checkpoint.name, version=served.classifier.version),
        preview=_data_url(answer.pixels) if preview else None,
        draws=np.round(answer.draws, 4).tolist() if draws else None,
    )


def model_response(served: Served, *, lanes: int, refresh_error: str | None) -> ModelResponse:
    """The body of `GET /model`."""
    classifier = served.classifier
    checkpoint = classifier.checkpoint
    rule, sets = checkpoint.selective, checkpoint.conformal
    config = checkpoint.posterior.config
    return ModelResponse(
        name=checkpoint.name,
        version=classifier.version,
        source=served.source,
        refresh_error=refresh_error,
        labels=list(classifier.labels),
        input_contract=checkpoint.input_contract,
        draws=classifier.engine.n_draws,
        draws_reproduced=classifier.draws_reproduced,
        seed=checkpoint.posterior.seed,
        parameters=config.n_parameters,
        mflop_per_draw=round(config.mflop_per_draw, 3),
        architecture=config.to_dict(),
        decision={**rule.to_dict(), "guarantee": rule.guarantee()},
        conformal={**sets.to_dict(), "guarantee": sets.guarantee()},
        metrics=dict(checkpoint.metrics),
        training=dict(checkpoint.training),
        device=classifier.engine.device,
        engine=classifier.engine.name,
        lanes=lanes,
    )


def _data_url(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

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
from service.errors import Problem
from service.model_lifecycle.provider import Served

__all__ = [
    "BatchError",
    "BatchResponse",
    "Health",
    "ModelResponse",
    "PredictResponse",
    "model_response",
    "predict_response",
]


def _share(description: str) -> Any:
    """A field for a number from 0 to 1."""
    return Field(ge=0, le=1, description=description)


def _nats(description: str) -> Any:
    """A field for an entropy."""
    return Field(ge=0, description=description)


class ClassEntry(BaseModel):
    """One class: mean over draws, credible interval, standard deviation over draws."""

    label: str = Field(description="The class, one of the model's `labels`.")
    probability: float = _share("Mean over the draws; those of all classes sum to 1.")
    lower: float = _share("Lower end of the credible interval: the quantile at (1 - level)/2.")
    upper: float = _share("Upper end of the credible interval: the quantile at (1 + level)/2.")
    std: float = Field(ge=0, description="Standard deviation over the draws.")


class NotADigitEntry(BaseModel):
    """Being no digit: mean over draws, credible interval, standard deviation over draws."""

    probability: float = _share("Mean over the draws.")
    lower: float = _share("Lower end of the credible interval: the quantile at (1 - level)/2.")
    upper: float = _share("Upper end of the credible interval: the quantile at (1 + level)/2.")
    std: float = Field(ge=0, description="Standard deviation over the draws.")


class Uncertainty(BaseModel):
    """Entropies in nats: total = expected (ambiguous picture) + mutual (networks disagree)."""

    predictive_entropy: float = _nats("Total, in nats, at most ln C for C classes.")
    expected_entropy: float = _nats("What is ambiguous in the picture itself, in nats.")
    mutual_information: float = _nats("What the drawn networks disagree on, in nats.")


class ModelName(BaseModel):
    """Which model answered."""

    name: str = Field(description="Its name, as in its checkpoint.")
    version: str = Field(
        pattern="^[0-9a-f]{12}$", description="A hash of everything that decides an answer."
    )


class PredictResponse(BaseModel):
    """The answer for one picture."""

    prediction: str = Field(description="The most probable label.")
    probability: float = _share("Its probability: the mean over draws.")
    decision: Decision = Field(description="`review`: a person should look.")
    reasons: list[Reason] = Field(description="Why a person should look; empty if accepted.")
    calibrated: bool = Field(
        description="Whether the decision's guarantee applies: only for as many draws as it was "
        "calibrated with."
    )
    classes: list[ClassEntry] = Field(
        description="One entry per class, in label order, given that the picture is a digit."
    )
    not_a_digit: NotADigitEntry | None = Field(
        description="How probable it is that the picture is no digit at all; null if the model "
        "has no outcome for that."
    )
    uncertainty: Uncertainty = Field(description="Total, aleatoric and epistemic entropy.")
    prediction_set: list[str] = Field(description="The conformal set; the top class is in it.")
    samples: int = Field(ge=2, description="Posterior draws used.")
    level: float = Field(ge=0.5, lt=1, description="Mass of the credible intervals.")
    model: ModelName = Field(description="Which model answered.")
    preview: str | None = Field(
        description="What the network saw, 28×28, as a PNG data URL; null if not asked for."
    )
    draws: list[list[float]] | None = Field(
        description="Each draw's probabilities of the classes, in label order; null if not asked "
        "for."
    )


class BatchError(BaseModel):
    """The entry of a file that could not be answered."""

    error: Problem = Field(description="What `/predict` would have answered for this file alone.")


class BatchResponse(BaseModel):
    """One entry per file, in order."""

    results: list[PredictResponse | BatchError] = Field(
        description="For each file its answer or its error, in the order of the files."
    )


class Health(BaseModel):
    """The state of a probe."""

    status: Literal["live", "ready"] = Field(description="What was asked for, and is so.")


class ModelResponse(BaseModel):
    """What is being served, and what is known about it."""

    name: str = Field(description="Its name, as in its checkpoint.")
    version: str = Field(
        pattern="^[0-9a-f]{12}$",
        description="A hash of everything that decides an answer, and of nothing else.",
    )
    source: Literal["shipped", "file"] = Field(
        description="Whether these are the weights that come with the package, or those of the "
        "operator's file."
    )
    refresh_error: str | None = Field(
        description="Why the newest checkpoint was not taken; null if what is served is the newest."
    )
    labels: list[str] = Field(description="The classes, in the order of all lists of classes.")
    input_contract: str = Field(description="What the network is fed, and how it is prepared.")
    draws: int = Field(ge=2, description="Posterior draws held, the most that can be asked for.")
    draws_reproduced: bool = Field(
        description="Whether this installation draws the very networks that were calibrated; if "
        "not, no answer is `calibrated`."
    )
    seed: int = Field(ge=0, description="Seed of the draws.")
    parameters: int = Field(ge=1, description="Weights and biases of one network.")
    mflop_per_draw: float = Field(
        ge=0, description="Millions of floating-point operations for one picture and one draw."
    )
    architecture: dict[str, Any] = Field(description="The layers, the labels and the prior.")
    decision: dict[str, Any] = Field(
        description="When an answer is accepted: score, threshold, target, confidence, how many "
        "pictures of which population it was calibrated on, and what that guarantees."
    )
    conformal: dict[str, Any] = Field(
        description="What `prediction_set` promises: coverage, threshold, how many pictures it "
        "was calibrated on, and what that guarantees."
    )
    metrics: dict[str, Any] = Field(description="Held-out figures by data set, each with its `n`.")
    training: dict[str, Any] = Field(description="Data, configuration, versions and time.")
    device: str = Field(description="Where it is computed: `cpu` or `cuda`.")
    engine: str = Field(description="What computes it.")
    lanes: int = Field(ge=1, description="Threads that answer.")


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

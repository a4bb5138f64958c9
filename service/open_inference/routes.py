"""`/v2`: the Open Inference Protocol, for clients that speak it already."""

import asyncio
import importlib.metadata
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from model.classifier import DEFAULT_LEVEL, Prediction
from model.preprocessing.normalize import SIDE, DigitImage
from service import encoding as compression
from service import errors
from service.dependencies import Model, Service, ServiceDep
from service.encoding import CompressionError
from service.errors import encoding_error, inference_responses
from service.inference.jobs import TensorJob
from service.inference.run_jobs import run_jobs
from service.model_lifecycle.loading import LoadedModel
from service.open_inference import codec as tensors
from service.open_inference.codec import JSON_LENGTH, InferenceRequest, TensorError
from service.open_inference.schemas import (
    INFER_REQUEST,
    INFER_RESPONSE,
    PATH,
    VERSION_PATH,
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
    TensorMetadata,
)
from service.settings import Settings

__all__ = ["body_limits", "router"]

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

_MODEL = "/models/{name}"
_VERSION = "/models/{name}/versions/{version}"
_WITH_PATH, _WITH_VERSION = {"parameters": PATH}, {"parameters": VERSION_PATH}
_ASKED = {
    200: {"description": "The model that the address names."},
    **inference_responses(401, 404, 500, 503),
}
_INFERRED = INFER_RESPONSE | inference_responses(
    400, 401, 404, 408, 413, 415, 422, 429, 500, 503, 504
)

_SMALL = 16 * 1024  # bytes that are read or written sooner than a thread could be asked to
_WORTH_COMPRESSING = 1024

T = TypeVar("T")


def body_limits(settings: Settings) -> dict[str, int]:
    """Return the most bytes of a body, by route."""
    limit = min(tensors.MAX_BODY_BYTES, settings.max_body_bytes)
    return {f"/v2{path}/infer": limit for path in (_MODEL, _VERSION)}


@router.get("", responses=inference_responses(401, 500), response_description="This service.")
@router.get("/", include_in_schema=False)
async def server_metadata() -> ServerMetadata:
    """What answers here, and which extensions of the protocol it knows."""
    return ServerMetadata(
        name="maybe-neural-network",
        version=importlib.metadata.version("maybe-neural-network"),
        extensions=["binary_tensor_data"],
    )


@router.get("/health/live", response_description="It runs.")
async def live() -> Live:
    """200 while the process runs."""
    return Live(live=True)


@router.get(
    "/health/ready",
    responses=inference_responses(503),
    response_description="Requests should be sent here.",
)
async def ready(service: ServiceDep) -> Ready:
    """200 when requests should be sent here, else 503."""
    service.provider.check_ready()
    return Ready(ready=True)


@router.get(_MODEL, responses=_ASKED, openapi_extra=_WITH_PATH)
@router.get(_VERSION, responses=_ASKED, openapi_extra=_WITH_VERSION)
async def model_metadata(request: Request, model: Model) -> ModelMetadata:
    """The tensors that the model takes and gives."""
    _check_name(request, model)
    classifier = model.classifier
    return ModelMetadata(
        name=classifier.checkpoint.name,
        versions=[classifier.version],
        platform="maybe-neural-network_safetensors",
        inputs=[TensorMetadata(name=tensors.INPUT, datatype="UINT8", shape=[-1, SIDE, SIDE])],
        outputs=[
            TensorMetadata(
                name=name,
                datatype=tensor.datatype,
                shape=[-1, len(classifier.labels)] if tensor.per_class else [-1],
            )
            for name, tensor in tensors.OUTPUTS.items()
        ],
    )


@router.get(f"{_MODEL}/ready", responses=_ASKED, openapi_extra=_WITH_PATH)
@router.get(f"{_VERSION}/ready", responses=_ASKED, openapi_extra=_WITH_VERSION)
async def model_ready(request: Request, model: Model, service: ServiceDep) -> ModelReady:
    """200 when requests about this model should be sent here, else 503 or 404."""
    service.provider.check_ready()
    _check_name(request, model)
    return ModelReady(name=model.name, ready=True)


def _infer_extra(path: list[dict[str, Any]]) -> dict[str, Any]:
    return {**INFER_REQUEST, "parameters": [*path, *INFER_REQUEST["parameters"]]}


@router.post(f"{_MODEL}/infer", responses=_INFERRED, openapi_extra=_infer_extra(PATH))
@router.post(f"{_VERSION}/infer", responses=_INFERRED, openapi_extra=_infer_extra(VERSION_PATH))
async def infer(request: Request, model: Model, service: ServiceDep) -> Response:
    """Answer for images that are the network's input already: the digit door is not run."""
    _check_name(request, model)
    body = await request.body()
    settings = service.settings
    since = time.monotonic()
    try:
        # Reading, waiting, computing and writing together.
        async with asyncio.timeout(settings.request_timeout_s):
            asked = await _asked(request, body, service.large_bodies)
            return await _answer(request, model, service, asked, since)
    except TimeoutError:
        raise errors.deadline_exceeded(settings.request_timeout_s) from None


async def _answer(
    request: Request,
    model: LoadedModel,
    service: Service,
    asked: InferenceRequest,
    since: float,
) -> Response:
    level = DEFAULT_LEVEL if asked.level is None else asked.level
    samples = model.classifier.check_request(asked.samples, level)
    results = await run_jobs(
        request,
        [
            TensorJob(
                classifier=model.classifier,
                samples=samples,
                level=level,
                image=DigitImage(pixels),
            )
            for pixels in asked.images
        ],
        pool=service.provider.pool,
        metrics=service.metrics,
        since=since,
    )
    answers = [result.get() for result in results]
    accepted = request.headers.get("accept-encoding", "")
    small = len(answers) <= 8
    return await _anywhere(small, lambda: _response(model, asked, answers, accepted))


async def _asked(request: Request, body: bytes, large_bodies: asyncio.Lock) -> InferenceRequest:
    """Read the request's body, a large one when no other is being read.

    What comes of compressed bodies, and of reading any, is then there for one at a time; and since
    reading needs Python's lock for a good part, more at once would not be done sooner.

    Raises:
        ProblemError: What is wrong with it.
    """
    try:
        if len(body) <= _SMALL and "content-encoding" not in request.headers:
            return _read(request, body)
        async with large_bodies:
            return await asyncio.to_thread(_read, request, body)
    except (TensorError, CompressionError) as error:
        raise encoding_error(error.status, str(error)) from error


def _check_name(request: Request, model: LoadedModel) -> None:
    """Check that the path names the model in service.

    Raises:
        ProblemError: 404 if it is another.
    """
    asked = request.path_params
    if asked["name"] != model.name:
        raise errors.no_model(asked["name"], model.name)
    if asked.get("version", model.version) != model.version:
        raise errors.no_version(asked["version"], model.name, model.version)


def _read(request: Request, body: bytes) -> InferenceRequest:
    headers = request.headers
    encoding = ", ".join(headers.getlist("content-encoding"))
    plain = compression.decompress(body, encoding, tensors.MAX_BODY_BYTES)
    length = tensors.read_json_length(headers.get(JSON_LENGTH), len(plain))
    return tensors.read_request(plain, length)


def _response(
    model: LoadedModel, asked: InferenceRequest, answers: Sequence[Prediction], accepted: str
) -> Response:
    head: dict[str, Any] = {
        "model_name": model.name,
        "model_version": model.version,
    }
    if asked.id is not None:
        head["id"] = asked.id
    first = answers[0]
    head["parameters"] = {
        "samples": first.samples,
        "level": round(first.level, 6),
        "calibrated": first.calibrated,
    }
    body, json_length = tensors.write_answer(
        head, _tensors(answers, model.classifier.labels), asked.outputs
    )
    headers = {"Vary": "Accept-Encoding"}
    if json_length is not None:
        headers[JSON_LENGTH] = str(json_length)
    encoding = compression.choose_encoding(accepted)
    if encoding is not None and len(body) >= _WORTH_COMPRESSING:
        headers["Content-Encoding"] = encoding
        body = compression.compress(body, encoding)
    media_type = "application/json" if json_length is None else "application/octet-stream"
    return Response(body, headers=headers, media_type=media_type)


def _tensors(answers: Sequence[Prediction], labels: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The outputs by name, in the precision in which they were computed."""
    classes = np.array(
        [
            [(entry.probability, entry.lower, entry.upper, entry.std) for entry in answer.classes]
            for answer in answers
        ]
    )
    entropies = np.array(
        [
            (answer.predictive_entropy, answer.expected_entropy, answer.mutual_information)
            for answer in answers
        ]
    )
    names = tuple(tensors.OUTPUTS)
    index = {label: i for i, label in enumerate(labels)}
    return {
        **{name: classes[..., i] for i, name in enumerate(names[:4])},
        **{name: entropies[..., i] for i, name in enumerate(names[4:7])},
        "prediction": np.array([index[answer.prediction] for answer in answers]),
        "accept": np.array([answer.decision == "accept" for answer in answers]),
    }


async def _anywhere(small: bool, work: Callable[[], T]) -> T:
    """Do it here if it is small, else where the event loop does not wait for it."""
    return work() if small else await asyncio.to_thread(work)

"""Routes of the Open Inference Protocol v2, below `/v2`."""

import asyncio
import importlib.metadata
import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from model.classifier import DEFAULT_LEVEL, Prediction
from model.preprocessing.normalize import SIDE, DigitImage
from service import errors
from service.dependencies import Model, Service, ServiceDep
from service.encoding import CompressionError, choose_encoding, compress, decompress
from service.errors import inference_responses, tensor_error
from service.inference.jobs import TensorJob
from service.inference.run_jobs import run_jobs
from service.model_lifecycle.loading import LoadedModel
from service.open_inference import codec, schemas
from service.open_inference.codec import JSON_LENGTH, TensorError, TensorRequest
from service.settings import Settings

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

_MODEL = "/models/{name}"
_VERSION = "/models/{name}/versions/{version}"
_WITH_PATH, _WITH_VERSION = {"parameters": schemas.PATH}, {"parameters": schemas.VERSION_PATH}
_MODEL_RESPONSES = {
    200: {"description": "The model that the path names."},
    **inference_responses(401, 404, 500, 503),
}
_INFER_RESPONSES = schemas.INFER_RESPONSE | inference_responses(
    400, 401, 404, 408, 413, 415, 422, 429, 500, 503, 504
)

_SMALL_BODY = 16 * 1024  # bytes that take less time than the hand-over to a thread
_SMALL_RESPONSE = 8  # the same in images
_MIN_COMPRESSED = 1024


def body_limits(settings: Settings) -> dict[str, int]:
    """Return the most bytes of a body, by route."""
    limit = min(codec.MAX_BODY_BYTES, settings.max_body_bytes)
    return {f"/v2{path}/infer": limit for path in (_MODEL, _VERSION)}


@router.get("", responses=inference_responses(401, 500), response_description="This service.")
@router.get("/", include_in_schema=False)
async def server_metadata() -> schemas.ServerMetadata:
    """This service, and the extensions of the protocol that it supports."""
    return schemas.ServerMetadata(
        name="maybe-neural-network",
        version=importlib.metadata.version("maybe-neural-network"),
        extensions=["binary_tensor_data"],
    )


@router.get("/health/live", response_description="The process runs.")
async def live() -> schemas.Live:
    """200 while the process runs."""
    return schemas.Live(live=True)


@router.get(
    "/health/ready",
    responses=inference_responses(503),
    response_description="Requests should be sent here.",
)
async def ready(service: ServiceDep) -> schemas.Ready:
    """200 when requests should be sent here, else 503."""
    service.provider.check_ready()
    return schemas.Ready(ready=True)


@router.get(_MODEL, responses=_MODEL_RESPONSES, openapi_extra=_WITH_PATH)
@router.get(_VERSION, responses=_MODEL_RESPONSES, openapi_extra=_WITH_VERSION)
async def model_metadata(request: Request, model: Model) -> schemas.ModelMetadata:
    """The inputs and outputs of the model."""
    _check_name(request, model)
    n_classes = len(model.classifier.labels)
    return schemas.ModelMetadata(
        name=model.name,
        versions=[model.version],
        platform="maybe-neural-network_safetensors",
        inputs=[schemas.TensorMetadata(name=codec.INPUT, datatype="UINT8", shape=[-1, SIDE, SIDE])],
        outputs=[
            schemas.TensorMetadata(
                name=name,
                datatype=tensor.datatype,
                shape=[-1, n_classes] if tensor.per_class else [-1],
            )
            for name, tensor in codec.OUTPUTS.items()
        ],
    )


@router.get(f"{_MODEL}/ready", responses=_MODEL_RESPONSES, openapi_extra=_WITH_PATH)
@router.get(f"{_VERSION}/ready", responses=_MODEL_RESPONSES, openapi_extra=_WITH_VERSION)
async def model_ready(request: Request, model: Model, service: ServiceDep) -> schemas.ModelReady:
    """200 when requests about this model should be sent here, else 503 or 404."""
    service.provider.check_ready()
    _check_name(request, model)
    return schemas.ModelReady(name=model.name, ready=True)


def _infer_extra(path: list[dict[str, Any]]) -> dict[str, Any]:
    return {**schemas.INFER_REQUEST, "parameters": [*path, *schemas.INFER_REQUEST["parameters"]]}


@router.post(
    f"{_MODEL}/infer", responses=_INFER_RESPONSES, openapi_extra=_infer_extra(schemas.PATH)
)
@router.post(
    f"{_VERSION}/infer",
    responses=_INFER_RESPONSES,
    openapi_extra=_infer_extra(schemas.VERSION_PATH),
)
async def infer(request: Request, model: Model, service: ServiceDep) -> Response:
    """Predict for images that are the network's input already: they are not preprocessed."""
    _check_name(request, model)
    body = await request.body()
    timeout_s = service.settings.request_timeout_s
    since = time.monotonic()
    try:
        # Decoding, waiting, computing and encoding together.
        async with asyncio.timeout(timeout_s):
            tensors = await _decode_body(request, body, service.large_bodies)
            predictions = await _predict(request, tensors, model, service, since)
            arguments = model, tensors, predictions, request.headers.get("accept-encoding", "")
            if len(predictions) <= _SMALL_RESPONSE:
                return _encode(*arguments)
            return await asyncio.to_thread(_encode, *arguments)
    except TimeoutError:
        raise errors.deadline_exceeded(timeout_s=timeout_s) from None


async def _predict(
    request: Request, tensors: TensorRequest, model: LoadedModel, service: Service, since: float
) -> list[Prediction]:
    level = DEFAULT_LEVEL if tensors.level is None else tensors.level
    samples = model.classifier.check_request(tensors.samples, level)
    jobs = [
        TensorJob(
            classifier=model.classifier, samples=samples, level=level, image=DigitImage(pixels)
        )
        for pixels in tensors.images
    ]
    results = await run_jobs(
        request, jobs, pool=service.provider.pool, metrics=service.metrics, since=since
    )
    return [result.get() for result in results]


async def _decode_body(request: Request, body: bytes, large_bodies: asyncio.Lock) -> TensorRequest:
    """Decode the request's body, a large one in a thread.

    Large bodies take turns: that bounds memory, and since decoding holds Python's lock, decoding
    several at once would not be faster.

    Raises:
        ProblemError: If the body is invalid.
    """
    try:
        if len(body) <= _SMALL_BODY and "content-encoding" not in request.headers:
            return _decode(request, body)
        async with large_bodies:
            return await asyncio.to_thread(_decode, request, body)
    except (TensorError, CompressionError) as error:
        raise tensor_error(error.status, str(error)) from error


def _check_name(request: Request, model: LoadedModel) -> None:
    """Check that the path names the model in service.

    Raises:
        ProblemError: 404 if it is another.
    """
    named = request.path_params
    if named["name"] != model.name:
        raise errors.no_model(name=ascii(named["name"]), served=model.name)
    if named.get("version", model.version) != model.version:
        raise errors.no_version(
            version=ascii(named["version"]), name=model.name, served=model.version
        )


def _decode(request: Request, body: bytes) -> TensorRequest:
    headers = request.headers
    encoding = ", ".join(headers.getlist("content-encoding"))
    plain = decompress(body, encoding, codec.MAX_BODY_BYTES)
    return codec.read_request(plain, codec.read_json_length(headers.get(JSON_LENGTH), len(plain)))


def _encode(
    model: LoadedModel, tensors: TensorRequest, predictions: Sequence[Prediction], accepted: str
) -> Response:
    """Encode the response, compressed if it is large and the client accepts that."""
    head: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if tensors.id is not None:
        head["id"] = tensors.id
    first = predictions[0]
    head["parameters"] = {
        "samples": first.samples,
        "level": round(first.level, 6),
        "calibrated": first.calibrated,
    }
    body, json_length = codec.write_response(head, predictions, tensors.outputs)
    headers = {"Vary": "Accept-Encoding"}
    if json_length is not None:
        headers[JSON_LENGTH] = str(json_length)
    encoding = choose_encoding(accepted)
    if encoding is not None and len(body) >= _MIN_COMPRESSED:
        headers["Content-Encoding"] = encoding
        body = compress(body, encoding)
    media_type = "application/json" if json_length is None else "application/octet-stream"
    return Response(body, headers=headers, media_type=media_type)

"""`GET /model` and its reloading, the health probes and the metrics."""

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import PlainTextResponse

from service.api.schemas import Health, ModelName, ModelResponse, model_response
from service.errors import ProblemError, responses
from service.middleware.api_key import RELOAD, needs_key
from service.model_lifecycle.provider import ModelHolder
from service.model_lifecycle.reloader import Refresher, ReloadError
from service.observability.metrics import Metrics

__all__ = ["router"]

router = APIRouter()


@router.get(
    "/model",
    tags=["model"],
    summary="What is served",
    response_description="The model that is served.",
    responses=responses(503),
)
async def model(request: Request) -> ModelResponse:
    """What is being served: provenance, decision rule with its guarantee, held-out figures."""
    holder: ModelHolder = request.app.state.holder
    return model_response(
        holder.get(), lanes=request.app.state.lanes.n_lanes, refresh_error=holder.refresh_error
    )


@router.post(
    RELOAD,
    tags=["model"],
    summary="Take the newest checkpoint now",
    response_description="What is served from now on.",
    responses=responses(401, 403, 409, 503),
    dependencies=[Depends(needs_key)],
)
async def reload(request: Request) -> ModelName:
    """Load what the checkpoint's file holds now, and serve it; on any failure nothing changes.

    It needs the key that the service was started with, as `Authorization: Bearer …`.
    """
    holder: ModelHolder = request.app.state.holder
    holder.get()
    if request.app.state.rolled_out:
        raise ProblemError(
            409, "The weights of this service are rolled out with its deployment, and only so."
        )
    refresher: Refresher = request.app.state.refresher
    try:
        served = await refresher.reload()
    except ReloadError as error:
        raise ProblemError(409, f"The old model is served still: {error}") from error
    return ModelName(name=served.classifier.checkpoint.name, version=served.classifier.version)


@router.get(
    "/metrics",
    tags=["operations"],
    summary="Metrics for Prometheus",
    response_description="Prometheus' text, or OpenMetrics where that is accepted.",
    response_class=PlainTextResponse,
    responses={200: {"content": {"application/openmetrics-text": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """What Prometheus reads: requests, waiting and computing, decisions, the model."""
    registered: Metrics = request.app.state.metrics
    text, media_type = registered.exposition(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": media_type})


@router.get(
    "/health/live",
    tags=["health"],
    summary="Whether the process runs",
    response_description="It runs.",
)
async def live() -> Health:
    """200 while the process runs."""
    return Health(status="live")


@router.get(
    "/health/ready",
    tags=["health"],
    summary="Whether digits are answered",
    response_description="The model is loaded and warm.",
    responses=responses(503),
)
async def ready(request: Request) -> Health:
    """200 once the model is loaded and warm; 503 before, and once the service is to stop."""
    request.app.state.holder.check_ready()
    return Health(status="ready")

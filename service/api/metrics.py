"""`GET /metrics` for Prometheus."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from service.dependencies import ServiceDep

router = APIRouter(tags=["operations"])


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_description="Prometheus' text format.",
    response_class=PlainTextResponse,
)
async def metrics(service: ServiceDep) -> Response:
    """Requests, queue wait and compute time, decisions, the model."""
    return Response(service.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

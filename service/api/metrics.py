"""`GET /metrics` for Prometheus."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from service.dependencies import ServiceDep

__all__ = ["router"]

router = APIRouter(tags=["operations"])


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_description="Prometheus text, or OpenMetrics where that is accepted.",
    response_class=PlainTextResponse,
    responses={200: {"content": {"application/openmetrics-text": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, service: ServiceDep) -> Response:
    """Requests, queue wait and compute time, decisions, the model."""
    text, media_type = service.metrics.exposition(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": media_type})

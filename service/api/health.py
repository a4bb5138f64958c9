"""Health probes."""

from fastapi import APIRouter

from service.api.schemas import Health
from service.dependencies import ServiceDep
from service.errors import responses

router = APIRouter(tags=["health"])


@router.get(
    "/health/live",
    summary="Liveness",
    response_description="The process runs.",
)
async def live() -> Health:
    """200 while the process runs."""
    return Health(status="live")


@router.get(
    "/health/ready",
    summary="Readiness",
    response_description="The model is loaded and warm.",
    responses=responses(503),
)
async def ready(service: ServiceDep) -> Health:
    """200 once the model is loaded and warm; 503 before, and while the service is draining."""
    service.provider.check_ready()
    return Health(status="ready")

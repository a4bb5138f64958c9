"""`GET /model` and the health probes."""

from fastapi import APIRouter, Request

from service.holder import ModelHolder
from service.problems import responses
from service.schemas import Health, ModelResponse, model_response

__all__ = ["router"]

router = APIRouter()


@router.get("/model", tags=["model"], responses=responses(500, 503))
async def model(request: Request) -> ModelResponse:
    """What is being served: provenance, decision rule with its guarantee, held-out figures."""
    holder: ModelHolder = request.app.state.holder
    return model_response(
        holder.get(), lanes=request.app.state.lanes.n_lanes, refresh_error=holder.refresh_error
    )


@router.get("/health/live", tags=["health"])
async def live() -> Health:
    """200 while the process runs."""
    return Health(status="live")


@router.get("/health/ready", tags=["health"], responses=responses(503))
async def ready(request: Request) -> Health:
    """200 once the model is loaded and warm; 503 before."""
    request.app.state.holder.get()
    return Health(status="ready")

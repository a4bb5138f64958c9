"""`GET /docs`: Swagger UI on `openapi.json`, from this service alone (decision 8)."""

from fastapi import APIRouter, Request, Response

from service.api.assets import read_assets, send

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_ASSETS = read_assets("swagger")


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The page."""
    return send(request, _ASSETS, "index.html")


@router.get("/docs/{name}")
async def part(request: Request, name: str) -> Response:
    """A part of the page."""
    return send(request, _ASSETS, name)

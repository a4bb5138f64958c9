"""The web page at `/` and Swagger UI at `/docs` (decision 8), both from this service alone."""

from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.responses import Response as StarletteResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

router = APIRouter(include_in_schema=False)

# Nothing from elsewhere, and nothing inline but pictures.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_STATIC = Path(__file__).parents[1] / "static"


def security_headers(policy: str) -> dict[str, str]:
    """Return the headers of everything that a browser shows."""
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",  # revalidated each time, sent only when changed
    }


class _Assets(StaticFiles):
    """Static files with the page's security headers."""

    async def get_response(self, path: str, scope: Scope) -> StarletteResponse:
        response = await super().get_response(path, scope)
        response.headers.update(security_headers(PAGE_POLICY))
        return response


_WEB, _SWAGGER = _Assets(directory=_STATIC / "web"), _Assets(directory=_STATIC / "swagger")


@router.get("/")
async def page(request: Request) -> Response:
    """The web page."""
    return await _WEB.get_response("index.html", request.scope)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Swagger UI on `openapi.json`."""
    return await _SWAGGER.get_response("index.html", request.scope)


def mount_pages(app: FastAPI) -> None:
    """Serve the files that the two pages are made of."""
    app.mount("/web", _WEB)
    app.mount("/docs", _SWAGGER)

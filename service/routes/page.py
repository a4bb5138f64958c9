"""`GET /` and what belongs to it: the page, its parts, and the report of the model."""

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from model.checkpoint import SHIPPED
from service.holder import ModelHolder
from service.problems import ProblemError, responses
from service.settings import Settings

__all__ = ["router"]

router = APIRouter()

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# The report is one file: its style and its pictures are in it, and no script.
_REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_MOST_REPORT_BYTES = 16 * 2**20
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class _Asset:
    """One file of the page, held in memory."""

    body: bytes
    media_type: str
    tag: str


def _read_assets() -> dict[str, _Asset]:
    """The files of the page by name; nothing else can be asked for."""
    assets = {}
    for file in resources.files("service").joinpath("web").iterdir():
        suffix = "." + file.name.rpartition(".")[2]
        if suffix in _TYPES:
            body = file.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            assets[file.name] = _Asset(body, f"{_TYPES[suffix]}; charset=utf-8", tag)
    return assets


_ASSETS = _read_assets()


@router.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    """The page."""
    return _send(request, "index.html")


@router.get("/web/{name}", include_in_schema=False)
async def asset(request: Request, name: str) -> Response:
    """A part of the page."""
    return _send(request, name)


@router.get(
    "/model/report", tags=["model"], responses=responses(404, 500, 503), response_class=HTMLResponse
)
def report(request: Request) -> Response:
    """The report on the model that is served, as HTML: what made it, and how good it is."""
    holder: ModelHolder = request.app.state.holder
    served = holder.get()
    settings: Settings = request.app.state.settings
    weights = SHIPPED if served.source == "shipped" else settings.checkpoint
    checkpoint = served.classifier.checkpoint
    # Written with the draws that the rule was calibrated with, however many are served.
    version = checkpoint.version(checkpoint.selective.n_draws)
    found = _read_report(weights.with_suffix(".html"))
    if found is None or version.encode() not in found:
        raise ProblemError(
            404,
            "There is no report on this model. `python -m training.evaluate CHECKPOINT` writes it "
            "beside the checkpoint.",
        )
    headers = {
        "Content-Security-Policy": _REPORT_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return HTMLResponse(found, headers=headers)


def _read_report(path: Path) -> bytes | None:
    try:
        if path.stat().st_size > _MOST_REPORT_BYTES:
            return None
        return path.read_bytes()
    except OSError:
        return None


def _send(request: Request, name: str) -> Response:
    found = _ASSETS.get(name)
    if found is None:
        raise ProblemError(404, "There is no such part of the page.")
    headers = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",  # asked about each time, sent only when it has changed
        "ETag": found.tag,
    }
    if request.headers.get("If-None-Match") == found.tag:
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type=found.media_type, headers=headers)

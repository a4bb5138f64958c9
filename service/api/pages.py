"""`GET /` and what belongs to it: the page, its parts, and the report of the model."""

from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from service.api.assets import read_assets, send, shield
from service.errors import ProblemError, responses
from service.model_lifecycle.provider import ModelHolder

__all__ = ["router"]

router = APIRouter()

# The report is one file: its style and its pictures are in it, and no script.
_REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_MOST_REPORT_BYTES = 16 * 2**20
_ASSETS = read_assets("web")


@router.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    """The page."""
    return send(request, _ASSETS, "index.html")


@router.get("/web/{name}", include_in_schema=False)
async def asset(request: Request, name: str) -> Response:
    """A part of the page."""
    return send(request, _ASSETS, name)


@router.get(
    "/model/report",
    tags=["model"],
    summary="The report on the model",
    response_description="The report, one page without scripts.",
    responses=responses(404, 503),
    response_class=HTMLResponse,
)
def report(request: Request) -> Response:
    """The report on the model that is served, as HTML: what made it, and how good it is."""
    holder: ModelHolder = request.app.state.holder
    served = holder.get()
    checkpoint = served.classifier.checkpoint
    # Written with the draws that the rule was calibrated with, however many are served.
    version = checkpoint.version(checkpoint.selective.n_draws)
    found = _read_report(served.path.with_suffix(".html"))
    if found is None or version.encode() not in found:
        raise ProblemError(
            404,
            "There is no report on this model. `python -m training.evaluate CHECKPOINT` writes it "
            "beside the checkpoint.",
        )
    return HTMLResponse(found, headers=shield(_REPORT_POLICY))


def _read_report(path: Path) -> bytes | None:
    try:
        if path.stat().st_size > _MOST_REPORT_BYTES:
            return None
        return path.read_bytes()
    except OSError:
        return None

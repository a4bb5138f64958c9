"""`GET /model`, its report, and `POST /model/reload`."""

import asyncio
from pathlib import Path

from fastapi import APIRouter, Depends, Response
from fastapi.responses import HTMLResponse

from service import errors
from service.api.pages import security_headers
from service.api.schemas import ModelName, ModelResponse, model_response
from service.dependencies import Model, ServiceDep, require_key
from service.errors import responses
from service.model_lifecycle.reloader import ReloadError
from service.security import RELOAD

router = APIRouter(tags=["model"])

# The report is one file, with its styles and pictures and without scripts.
_REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_MAX_REPORT_BYTES = 16 * 2**20


@router.get(
    "/model",
    summary="The model in service",
    response_description="The model in service.",
    responses=responses(503),
)
async def model(model: Model, service: ServiceDep) -> ModelResponse:
    """Provenance, decision rule with its guarantee, held-out metrics."""
    return model_response(
        model,
        worker_threads=service.provider.pool.n_workers,
        reload_error=service.provider.reload_error,
    )


@router.post(
    RELOAD,
    summary="Reload the checkpoint now",
    response_description="The model in service from now on.",
    responses=responses(401, 403, 409, 503),
    dependencies=[Depends(require_key)],
)
async def reload(_model: Model, service: ServiceDep) -> ModelName:
    """Load the checkpoint's file and serve it; on any failure nothing changes.

    It needs the API key of the service, as `Authorization: Bearer …`.
    """
    if service.externally_managed:
        raise errors.externally_managed()
    try:
        loaded = await service.reloader.reload()
    except ReloadError as error:
        raise errors.reload_failed(why=error) from error
    return ModelName(name=loaded.name, version=loaded.version)


@router.get(
    "/model/report",
    summary="The evaluation report of the model",
    response_description="The report, one page without scripts.",
    responses=responses(404, 503),
    response_class=HTMLResponse,
)
async def report(model: Model) -> Response:
    """The report on the model in service, as HTML: what made it, and how good it is."""
    checkpoint = model.classifier.checkpoint
    # Written for the draws that the rule was calibrated with, however many are served.
    version = checkpoint.version(checkpoint.selective.n_draws)
    found = await asyncio.to_thread(_read_report, model.path.with_suffix(".html"))
    if found is None or version.encode() not in found:
        raise errors.no_report()
    return HTMLResponse(found, headers=security_headers(_REPORT_POLICY))


def _read_report(path: Path) -> bytes | None:
    try:
        if path.stat().st_size > _MAX_REPORT_BYTES:
            return None
        return path.read_bytes()
    except OSError:
        return None

"""`POST /predict` and `POST /predict/batch`: digits as pictures."""

import logging
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, File, Query, Request, UploadFile
from pydantic import BaseModel, Field

from model.classifier import DEFAULT_LEVEL, MIN_DRAWS, MIN_LEVEL
from model.errors import ImageError
from service import errors
from service.api.schemas import BatchError, BatchResponse, PredictResponse, predict_response
from service.dependencies import Model, Service, ServiceDep, State
from service.errors import ProblemError, image_error, problem_body, responses
from service.inference.jobs import ImageJob, JobResult
from service.inference.run_jobs import run_jobs
from service.model_lifecycle.loading import LoadedModel
from service.settings import Settings

router = APIRouter(tags=["digits"])

_log = logging.getLogger("service")

_FORM_OVERHEAD = 64 * 1024  # boundaries and part headers around one file
_PROBLEMS = responses(408, 413, 422, 429, 500, 503, 504)


def body_limits(settings: Settings) -> dict[str, int]:
    """Return the most bytes of a body, by route."""
    one_file = settings.max_upload_bytes + _FORM_OVERHEAD
    return {
        "/predict": min(one_file, settings.max_body_bytes),
        "/predict/batch": settings.max_body_bytes,
    }


class PredictQuery(BaseModel):
    """What a client may ask of an answer."""

    samples: int | None = Field(
        None, ge=MIN_DRAWS, description="Posterior draws to use, the first N; default: all."
    )
    level: float = Field(
        DEFAULT_LEVEL,
        ge=MIN_LEVEL,
        lt=1,
        description="Mass of the credible intervals, at most 1 - 2/samples.",
    )
    preview: bool = Field(False, description="Also return the 28×28 input of the network.")
    draws: bool = Field(False, description="Also return the probabilities of every draw.")


@router.post(
    "/predict",
    summary="Classify one digit",
    response_description="The answer; `decision` says whether a person should look.",
    responses={**_PROBLEMS, **responses(415)},
)
async def predict(
    request: Request,
    model: Model,
    service: ServiceDep,
    file: Annotated[UploadFile, File(description="PNG, JPEG, WebP, BMP, GIF or TIFF.")],
    query: Annotated[PredictQuery, Query()],
) -> PredictResponse:
    """Classify one digit: probabilities, credible intervals, entropies and a decision.

    `curl -F file=@seven.png http://127.0.0.1:8000/predict`
    """
    n_files = len((await request.form()).getlist("file"))  # parsed already
    if n_files > 1:  # the answer for one would hide the others
        raise errors.several_files(n_files=n_files)
    (result,) = await _run(request, [file], query, model, service)
    return _response(result, query, model)


@router.post(
    "/predict/batch",
    summary="Classify several digits",
    response_description="One entry per file, in their order: an answer or an error.",
    responses=_PROBLEMS,
)
async def predict_batch(  # noqa: PLR0917 - FastAPI passes them by name
    request: Request,
    model: Model,
    service: ServiceDep,
    state: State,
    files: Annotated[list[UploadFile], File(description="Pictures, as for `/predict`.")],
    query: Annotated[PredictQuery, Query()],
) -> BatchResponse:
    """Classify several digits; a file that cannot be read is an `error` entry of its own.

    `curl -F files=@seven.png -F files=@four.png http://127.0.0.1:8000/predict/batch`
    """
    if len(files) > service.settings.max_batch_files:
        raise errors.too_many_files(n_files=len(files), limit=service.settings.max_batch_files)
    entries: list[PredictResponse | BatchError] = []
    for i, result in enumerate(await _run(request, files, query, model, service)):
        try:
            entries.append(_response(result, query, model))
        except ProblemError as error:
            entries.append(BatchError(error=problem_body(state.request_id, error)))
        except Exception:  # noqa: BLE001 - an error at one file must not lose the others
            _log.exception("request %s failed at file %d", state.request_id, i)
            service.metrics.record_internal_error()
            body = problem_body(state.request_id, errors.internal_error())
            entries.append(BatchError(error=body))
    return BatchResponse(results=entries)


async def _run(
    request: Request,
    files: Sequence[UploadFile],
    query: PredictQuery,
    model: LoadedModel,
    service: Service,
) -> list[JobResult]:
    samples = model.classifier.check_request(query.samples, query.level)
    jobs = [
        ImageJob(
            classifier=model.classifier,
            samples=samples,
            level=query.level,
            file=file,
            max_bytes=service.settings.max_upload_bytes,
        )
        for file in files
    ]
    return await run_jobs(request, jobs, pool=service.provider.pool, metrics=service.metrics)


def _response(result: JobResult, query: PredictQuery, model: LoadedModel) -> PredictResponse:
    try:
        prediction = result.get()
    except ImageError as error:
        raise image_error(error) from error
    return predict_response(prediction, model, preview=query.preview, draws=query.draws)

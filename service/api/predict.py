"""`POST /predict` and `POST /predict/batch`: digits as pictures."""

import logging
from typing import Annotated

from fastapi import APIRouter, File, Query, Request, UploadFile
from pydantic import BaseModel, Field

from model.classifier import DEFAULT_LEVEL, MIN_DRAWS, MIN_LEVEL
from model.errors import ImageError
from service import errors
from service.api.schemas import BatchError, BatchResponse, PredictResponse, predict_response
from service.dependencies import Model, ServiceDep, State
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
    samples = model.classifier.check_request(query.samples, query.level)
    await _check_single_file(request)
    _check_size(file, service.settings)
    (result,) = await run_jobs(
        request,
        [_job(file, model, samples, query.level)],
        pool=service.provider.pool,
        metrics=service.metrics,
    )
    return _response(result, model, query)


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
    samples = model.classifier.check_request(query.samples, query.level)
    if len(files) > service.settings.max_batch_files:
        raise errors.too_many_files(n_files=len(files), limit=service.settings.max_batch_files)
    entries: dict[int, PredictResponse | BatchError] = {}
    jobs = {}
    for i, file in enumerate(files):
        try:
            _check_size(file, service.settings)
        except ProblemError as error:
            entries[i] = BatchError(error=problem_body(state.request_id, error))
        else:
            jobs[i] = _job(file, model, samples, query.level)
    results = await run_jobs(
        request, list(jobs.values()), pool=service.provider.pool, metrics=service.metrics
    )
    for i, result in zip(jobs, results, strict=True):
        try:
            entries[i] = _response(result, model, query)
        except ProblemError as error:
            entries[i] = BatchError(error=problem_body(state.request_id, error))
        except Exception:  # noqa: BLE001 - an error at one file must not lose the others
            _log.exception("request %s failed at file %d", state.request_id, i)
            service.metrics.record_internal_error()
            fault = errors.internal_error()
            entries[i] = BatchError(error=problem_body(state.request_id, fault))
    return BatchResponse(results=[entries[i] for i in range(len(files))])


def _job(file: UploadFile, model: LoadedModel, samples: int, level: float) -> ImageJob:
    return ImageJob(classifier=model.classifier, samples=samples, level=level, file=file)


def _response(result: JobResult, model: LoadedModel, query: PredictQuery) -> PredictResponse:
    try:
        prediction = result.get()
    except ImageError as error:
        raise image_error(error) from error
    return predict_response(prediction, model, preview=query.preview, draws=query.draws)


async def _check_single_file(request: Request) -> None:
    """Reject a form with several files: the answer for one would hide the others."""
    form = await request.form()  # parsed already
    n_files = len(form.getlist("file"))
    if n_files > 1:
        raise errors.several_files(n_files=n_files)


def _check_size(file: UploadFile, settings: Settings) -> None:
    size = file.size or 0
    if size > settings.max_upload_bytes:
        raise errors.file_too_large(size=size, limit=settings.max_upload_bytes)

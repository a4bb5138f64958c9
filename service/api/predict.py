"""`POST /predict` and `POST /predict/batch`: digits as pictures."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, File, Query, Request, UploadFile
from pydantic import BaseModel, Field

from model.classifier import DEFAULT_LEVEL, LEAST_DRAWS, LEAST_LEVEL, Prediction
from model.errors import ImageError
from service.api.schemas import BatchError, BatchResponse, PredictResponse, predict_response
from service.errors import FAULT, ProblemError, from_picture, problem, responses
from service.inference.jobs import InputQuestion, PictureLanes, Question
from service.inference.worker_pool import Done
from service.middleware.load_shedding import ENTRY, Entry
from service.middleware.request_context import Timing
from service.model_lifecycle.provider import Served
from service.observability.metrics import Metrics
from service.settings import Settings

__all__ = ["ask", "router"]

router = APIRouter(tags=["digits"])

_log = logging.getLogger("service")

_PROBLEMS = responses(408, 413, 422, 429, 500, 503, 504)


class PredictQuery(BaseModel):
    """What a client may ask of an answer."""

    samples: int | None = Field(
        None, ge=LEAST_DRAWS, description="Posterior draws to use, the first N; default: all held."
    )
    level: float = Field(
        DEFAULT_LEVEL,
        ge=LEAST_LEVEL,
        lt=1,
        description="Mass of the credible intervals, at most 1 - 2/samples.",
    )
    preview: bool = Field(False, description="Also return what the network saw.")
    draws: bool = Field(False, description="Also return every draw's probabilities.")


@router.post(
    "/predict",
    summary="Read one digit",
    response_description="The answer; `decision` says whether a person should look.",
    responses={**_PROBLEMS, **responses(415)},
)
async def predict(
    request: Request,
    file: Annotated[UploadFile, File(description="PNG, JPEG, WebP, BMP, GIF or TIFF.")],
    query: Annotated[PredictQuery, Query()],
) -> PredictResponse:
    """Read one digit: probabilities, credible intervals, entropies and a decision.

    `curl -F file=@seven.png http://127.0.0.1:8000/predict`
    """
    served = request.app.state.holder.get()
    settings: Settings = request.app.state.settings
    samples = served.classifier.check_request(query.samples, query.level)
    await _check_only(request)
    _check_size(file, settings)
    question = Question(served, file, samples, query.level)
    (done,) = await ask(request, [question])
    return _response(done, served, query)


@router.post(
    "/predict/batch",
    summary="Read several digits",
    response_description="One entry per file, in their order: an answer or an error.",
    responses=_PROBLEMS,
)
async def predict_batch(
    request: Request,
    files: Annotated[list[UploadFile], File(description="Pictures, as for `/predict`.")],
    query: Annotated[PredictQuery, Query()],
) -> BatchResponse:
    """Read several digits; a file that cannot be read is an `error` entry of its own.

    `curl -F files=@seven.png -F files=@four.png http://127.0.0.1:8000/predict/batch`
    """
    served = request.app.state.holder.get()
    settings: Settings = request.app.state.settings
    samples = served.classifier.check_request(query.samples, query.level)
    if len(files) > settings.max_batch_files:
        raise ProblemError(
            413,
            f"{len(files)} files, allowed are {settings.max_batch_files}; send several batches.",
        )
    results: dict[int, PredictResponse | BatchError] = {}
    questions = {}
    for i, file in enumerate(files):
        try:
            _check_size(file, settings)
        except ProblemError as error:
            results[i] = _batch_error(request, error)
        else:
            questions[i] = Question(served, file, samples, query.level)
    dones = await ask(request, list(questions.values()))
    for i, done in zip(questions, dones, strict=True):
        try:
            results[i] = _response(done, served, query)
        except ProblemError as error:
            results[i] = _batch_error(request, error)
        except Exception:  # noqa: BLE001 - a fault at one file is that file's own
            _log.exception("request %s failed at file %d", request.state.request_id, i)
            request.app.state.metrics.saw_fault()
            results[i] = _batch_error(request, ProblemError(500, FAULT))
    return BatchResponse(results=[results[i] for i in range(len(files))])


async def ask(
    request: Request,
    questions: Sequence[Question | InputQuestion],
    *,
    since: float | None = None,
) -> list[Done[Prediction]]:
    """Have the lanes answer, unless the client leaves, and note where the time went.

    The time for an answer began at `since`, by `time.monotonic`, or begins now.
    """
    lanes: PictureLanes = request.app.state.lanes
    client_left = asyncio.ensure_future(_until_left(request))
    entry: Entry = getattr(request.state, ENTRY)
    entry.end()
    try:
        dones = await lanes.run(questions, client_left, since=since)
    finally:
        client_left.cancel()
    metrics: Metrics = request.app.state.metrics
    metrics.saw_times((done.queue_ms, done.compute_ms) for done in dones)
    answers = [done.answer for done in dones if done.answer is not None]
    for answer in answers:
        metrics.saw_answer(answer)
    request.state.log_fields.update(
        pictures=len(questions),
        answered=len(answers),
        accepted=sum(answer.decision == "accept" for answer in answers),
    )
    timing: Timing = request.state.timing
    # Until the last picture was begun, and from then until all were answered.
    timing.queue_ms = max((done.queue_ms for done in dones), default=0.0)
    answered_ms = max((done.queue_ms + done.compute_ms for done in dones), default=0.0)
    timing.compute_ms = answered_ms - timing.queue_ms
    return dones


async def _until_left(request: Request) -> None:
    """Wait until the client has left; its body has been received."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _response(done: Done[Prediction], served: Served, query: PredictQuery) -> PredictResponse:
    try:
        answer = done.result()
    except ImageError as error:
        raise from_picture(error) from error
    return predict_response(answer, served, preview=query.preview, draws=query.draws)


def _batch_error(request: Request, error: ProblemError) -> BatchError:
    body = problem(request.state.request_id, error.status_code, str(error.detail))
    return BatchError(error=body)


async def _check_only(request: Request) -> None:
    """Refuse a form with several pictures: answering for one of them would pass over the others."""
    form = await request.form()  # parsed already
    n_files = len(form.getlist("file"))
    if n_files > 1:
        raise ProblemError(
            422, f"There are {n_files} parts 'file', expected is one; /predict/batch takes several."
        )


def _check_size(file: UploadFile, settings: Settings) -> None:
    size = file.size or 0
    if size > settings.max_upload_bytes:
        raise ProblemError(
            413,
            f"The file has {size:,} bytes, allowed are {settings.max_upload_bytes:,}; send a "
            "smaller picture.",
        )

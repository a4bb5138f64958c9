"""The application: this module only assembles."""

import asyncio
import importlib.metadata
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from model.checkpoint import BUNDLED
from model.errors import CheckpointError
from service import errors as problems
from service.api import docs, operations, pages, predict
from service.api.openapi import INFO, complete_document, operation_id
from service.errors import ProblemError
from service.inference.jobs import make_lanes
from service.middleware.api_key import Keys
from service.middleware.head import Head
from service.middleware.load_shedding import Admission, Gate
from service.middleware.request_context import Guard
from service.model_lifecycle.provider import ModelHolder, announce
from service.model_lifecycle.reloader import CheckpointFile, Refresher
from service.observability.metrics import Metrics
from service.open_inference import routes as inference
from service.open_inference.codec import JSON_LENGTH
from service.settings import Settings

__all__ = ["create_app"]

_ROUTERS = (
    predict.router,
    inference.router,
    inference.infer_router,
    operations.router,
    pages.router,
    docs.router,
)

_log = logging.getLogger("service")


def create_app(
    settings: Settings | None = None,
    *,
    rolled_out: bool = False,
    on_ready: Callable[[], None] = lambda: None,
    on_failed_start: Callable[[], None] = lambda: None,
) -> FastAPI:
    """Make the application; the model is loaded in the background once it starts, and watched.

    Until then `GET /health/ready` answers 503. If the weights cannot be used, the reason is
    logged and the application never becomes ready.

    Args:
        settings: Read from the environment if None.
        rolled_out: Whether the weights come by `app.state.refresher.follow` alone, from whoever
            deploys several of these at once: it starts with the shipped ones, watches no file, and
            refuses `POST /model/reload`.
        on_ready: Called once the model is served.
        on_failed_start: Called when the weights cannot be used, so that the server can stop.
    """
    settings = settings or Settings()
    if rolled_out:
        settings = settings.model_copy(update={"checkpoint": BUNDLED})

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load_and_watch(app, on_ready, on_failed_start))
        try:
            yield
        finally:
            loading.cancel()
            app.state.holder.served = None
            if app.state.lanes is not None:
                await asyncio.to_thread(app.state.lanes.close)

    app = FastAPI(
        **INFO,
        version=importlib.metadata.version("maybe-neural-network"),
        lifespan=lifespan,
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        docs_url=None,  # its pages would take their parts from elsewhere; see routes/docs.py
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.rolled_out = rolled_out
    app.state.holder = ModelHolder()
    app.state.lanes = None  # made with the model, since their number depends on its device
    app.state.refresher = None  # made with the model
    app.state.metrics = Metrics(
        pending=lambda: app.state.lanes.n_pending if app.state.lanes else 0,
        ready=lambda: app.state.holder.is_ready,
    )
    app.state.reading = asyncio.Lock()  # large bodies of tensors, one after another
    problems.add_handlers(app)
    for router in _ROUTERS:
        app.include_router(router)
    complete_document(app, settings)
    # The last that is added stands outermost: every answer gets its id and is counted, and pages of
    # listed origins may read a refusal, too.
    app.state.gate = Gate(
        [*predict.router.routes, *inference.infer_router.routes],
        lambda n_entering: _refusal(app, n_entering),
    )
    app.add_middleware(Admission, gate=app.state.gate)
    app.add_middleware(Head)
    if settings.api_key is not None and settings.require_api_key:
        app.add_middleware(
            Keys,
            api_key=settings.api_key,
            routes=[route for router in _ROUTERS for route in router.routes],
        )
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=[
                "Authorization",
                "Content-Encoding",
                "Content-Type",
                "X-Request-ID",
                JSON_LENGTH,
            ],
            expose_headers=["X-Request-ID", "Server-Timing", "Retry-After", JSON_LENGTH],
        )
    app.add_middleware(
        Guard,
        max_upload_bytes=settings.max_upload_bytes,
        max_body_bytes=settings.max_body_bytes,
        max_inflight_bytes=settings.max_inflight_bytes,
        body_timeout_s=settings.body_timeout_s,
        metrics=app.state.metrics,
        holder=app.state.holder,
    )
    return app


def _refusal(app: FastAPI, n_entering: int) -> ProblemError | None:
    """What pictures are refused with while there is no model, or no place in the queue."""
    state = app.state
    refused: ProblemError | None = state.holder.refusal() or state.lanes.refusal(1, n_entering)
    return refused


async def _load_and_watch(
    app: FastAPI, on_ready: Callable[[], None], on_failed_start: Callable[[], None]
) -> None:
    settings: Settings = app.state.settings
    try:
        file = CheckpointFile(settings)
        served = await file.fetch()
        app.state.lanes = make_lanes(settings, served.classifier.engine.device, app.state.metrics)
        _log.info("%d lanes, at most %d pictures waiting", app.state.lanes.n_lanes, settings.max_queued_images)
        app.state.refresher = Refresher(file, app.state.holder, settings, app.state.metrics)
        app.state.holder.served = served
        app.state.metrics.serves(served)
        announce(served, settings, "ready")
        on_ready()
    except Exception as error:  # noqa: BLE001 - whatever it is, the process must not linger
        if isinstance(error, (CheckpointError, RuntimeError)):
            _log.error("cannot serve: %s", error)
        else:
            _log.exception("cannot serve: a fault while loading the model")
        app.state.holder.served = None
        on_failed_start()
        return
    if not app.state.rolled_out:
        await app.state.refresher.watch()

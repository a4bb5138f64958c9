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
from service import errors
from service.api import health, metrics, model, pages, predict
from service.api.openapi import INFO, complete_document, operation_id
from service.dependencies import Service
from service.middleware.api_key import APIKeyMiddleware
from service.middleware.body_limits import BodyLimitsMiddleware
from service.middleware.head import HeadMiddleware
from service.middleware.load_shedding import LoadSheddingMiddleware
from service.middleware.request_context import RequestContextMiddleware
from service.model_lifecycle.provider import ModelProvider
from service.model_lifecycle.reloader import ModelReloader
from service.observability.metrics import Metrics
from service.open_inference import routes as open_inference
from service.open_inference.codec import JSON_LENGTH
from service.paths import RouteMatcher
from service.settings import Settings

_ROUTERS = (
    predict.router,
    open_inference.router,
    model.router,
    health.router,
    metrics.router,
    pages.router,
)

_log = logging.getLogger("service")


def create_app(
    settings: Settings | None = None,
    *,
    externally_managed: bool = False,
    on_ready: Callable[[], None] = lambda: None,
    on_failed_start: Callable[[], None] = lambda: None,
) -> FastAPI:
    """Make the application; it loads the model in the background once it starts.

    Until then `GET /health/ready` answers 503. If the weights cannot be used, the reason is
    logged and the application never becomes ready.

    Args:
        settings: Read from the environment if None.
        externally_managed: Whether the deployment alone decides which weights are served, by
            `app.state.service.reloader.switch_checkpoint`. The application then starts with the
            bundled model, polls no file and rejects `POST /model/reload`.
        on_ready: Called once a model is in service.
        on_failed_start: Called if the weights cannot be used, so that the server can stop.
    """
    settings = settings or Settings()
    service = _make_service(settings, externally_managed=externally_managed)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load_and_watch(service, on_ready, on_failed_start))
        try:
            yield
        finally:
            loading.cancel()
            service.reloader.close()
            await service.provider.close()

    app = FastAPI(
        **INFO,
        version=importlib.metadata.version("maybe-neural-network"),
        lifespan=lifespan,
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        docs_url=None,  # FastAPI's page loads Swagger UI from elsewhere; see service.api.pages
        redoc_url=None,
    )
    app.state.service = service
    errors.add_handlers(app)
    for router in _ROUTERS:
        app.include_router(router)
    pages.mount_pages(app)
    complete_document(app, settings)
    _add_middleware(app, service)
    return app


def _make_service(settings: Settings, *, externally_managed: bool) -> Service:
    metrics = Metrics(pending=lambda: provider.n_pending, ready=lambda: provider.is_ready)
    provider = ModelProvider(settings, metrics)
    return Service(
        settings=settings,
        metrics=metrics,
        provider=provider,
        reloader=ModelReloader(provider, settings, metrics),
        externally_managed=externally_managed,
    )


def _add_middleware(app: FastAPI, service: Service) -> None:
    """Add the middleware, from the inside out."""
    settings, provider = service.settings, service.provider
    limits = {**predict.body_limits(settings), **open_inference.body_limits(settings)}
    routes = [route for router in _ROUTERS for route in router.routes]
    match_route = RouteMatcher([*routes, *app.routes]).match
    app.add_middleware(
        LoadSheddingMiddleware,
        routes=limits.keys(),
        check_capacity=provider.check_capacity,
        reserve=provider.reserve,
    )
    app.add_middleware(HeadMiddleware)
    if settings.api_key is not None and settings.require_api_key:
        app.add_middleware(APIKeyMiddleware, api_key=settings.api_key)
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
        RequestContextMiddleware,
        match_route=match_route,
        metrics=service.metrics,
        provider=provider,
    )
    app.add_middleware(
        BodyLimitsMiddleware,
        limits=limits,
        match_route=match_route,
        max_inflight_bytes=settings.max_inflight_bytes,
        timeout_s=settings.body_timeout_s,
    )


async def _load_and_watch(
    service: Service, on_ready: Callable[[], None], on_failed_start: Callable[[], None]
) -> None:
    try:
        await service.reloader.start(BUNDLED if service.externally_managed else None)
        on_ready()
    except Exception as error:  # noqa: BLE001 - whatever it is, the process must not linger
        if isinstance(error, (CheckpointError, RuntimeError)):
            _log.error("cannot serve: %s", error)
        else:
            _log.exception("cannot serve: an unexpected error while loading the model")
        on_failed_start()
        return
    if not service.externally_managed:
        await service.reloader.watch()

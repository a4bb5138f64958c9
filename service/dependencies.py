"""Typed access to the parts of the application, for routes: `Depends()` instead of `app.state`."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from service.errors import reload_disabled, wrong_key
from service.model_lifecycle.loading import LoadedModel
from service.model_lifecycle.provider import ModelProvider
from service.model_lifecycle.reloader import ModelReloader
from service.observability.metrics import Metrics
from service.request_state import RequestState, request_state
from service.security import key_matches
from service.settings import Settings


@dataclass(frozen=True)
class Service:
    """The parts of one application.

    Attributes:
        settings: Its settings.
        metrics: Its metrics.
        provider: The model in service and its worker pool.
        reloader: Puts other models into service.
        externally_managed: Whether the deployment alone decides which weights are served.
        large_bodies: Held while a large tensor body is decoded: one at a time.
    """

    settings: Settings
    metrics: Metrics
    provider: ModelProvider
    reloader: ModelReloader
    externally_managed: bool = False
    large_bodies: asyncio.Lock = field(default_factory=asyncio.Lock)


# Asynchronous, or FastAPI would run each in a thread.


async def get_service(request: Request) -> Service:
    """Return the parts of the application."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(get_service)]


async def _get_model(service: ServiceDep) -> LoadedModel:
    return service.provider.get()


Model = Annotated[LoadedModel, Depends(_get_model)]
"""The model in service; answers 503 while there is none."""


async def _get_state(request: Request) -> RequestState:
    return request_state(request.scope)


State = Annotated[RequestState, Depends(_get_state)]


async def require_key(request: Request, service: ServiceDep) -> None:
    """Require the API key for a route, whatever the settings say of the others.

    Raises:
        ProblemError: 403 if no key is configured, 401 if the request has another or none.
    """
    key = service.settings.api_key
    if key is None:
        raise reload_disabled()
    if not key_matches(request.headers, key):
        raise wrong_key()

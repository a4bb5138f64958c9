"""The service as a Ray Serve application: `serve run deploy.ray_app:app`, or `deploy/ray.yaml`.

Each replica is the very application that `python -m service` serves, with a lane for each CPU that
Ray grants it. Its weights come with the deployment's `user_config`, and from nowhere else.
"""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import serve
from ray.exceptions import RayError
from ray.serve import metrics
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import Settings, create_app
from service.model_lifecycle.provider import ModelHolder
from service.model_lifecycle.reloader import Refresher, ReloadError
from service.process.memory import settle
from service.process.tuning import prepare

__all__ = [
    "BehindProxy",
    "DigitReader",
    "Options",
    "Replica",
    "Rollout",
    "app",
    "build",
    "granted_settings",
]

_log = logging.getLogger("service")


class Options(BaseModel):
    """What an operator may say of the deployment; all but the weights restarts the replicas."""

    model_config = ConfigDict(extra="forbid")

    cpus: float = Field(1, gt=0, description="CPUs of a replica, each of them a lane.")
    gpus: float = Field(
        0, ge=0, description="GPUs of a replica, or the part of one; 0 computes on CPUs."
    )
    min_replicas: int = Field(1, ge=1, description="Replicas at rest.")
    max_replicas: int = Field(4, ge=1, description="Replicas under load.")
    target_ongoing_requests: float = Field(
        8, gt=0, description="Requests under way for each replica at which their number is right."
    )
    max_ongoing_requests: int = Field(
        32, ge=1, description="Most requests that a replica is given at once."
    )
    max_queued_requests: int = Field(
        256, ge=1, description="Most requests that wait in each proxy; more are answered 429."
    )
    checkpoint: Path | None = Field(
        None, description="Weights to begin with, on every node; the shipped ones if none."
    )


class Rollout(BaseModel):
    """The deployment's `user_config`: what its replicas serve."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: Path | None = None


def granted_settings(granted: Mapping[str, float]) -> Settings:
    """The settings of the environment, with lanes and device by what Ray grants a replica.

    `MNN_LANES` and `MNN_DEVICE` have the last word where they are set.

    Args:
        granted: Amounts by resource, such as `{"CPU": 2.0}`.
    """
    settings = Settings()
    on_gpu = granted.get("GPU", 0) > 0
    lanes = 0 if on_gpu else max(1, int(granted.get("CPU", 0)))
    device = "cuda" if on_gpu else "cpu"
    return settings.model_copy(
        update={
            "lanes": settings.lanes or lanes,
            "device": device if settings.device == "auto" else settings.device,
        }
    )


def build() -> FastAPI:
    """Make the application of one replica, in the replica."""
    settings = granted_settings(ray.get_runtime_context().get_assigned_resources())
    prepare(settings)
    loaded = asyncio.Event()  # well or not

    def ready() -> None:
        settle()
        loaded.set()

    made = create_app(settings, rolled_out=True, on_ready=ready, on_failed_start=loaded.set)
    made.state.loaded = loaded
    made.add_middleware(BehindProxy)
    return made


class BehindProxy:
    """Even out where Ray's proxy and replicas are otherwise than a server of one's own.

    The proxy adds `X-Request-ID` to every answer: where both agree, it is left to it. They agree on
    every id but one that the service would not take from a client. And where a client leaves, what
    reads on is told so by an exception: it is told as ASGI has it instead.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (other ASGI events pass through)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id")

        async def receive_or_leave() -> Message:
            try:
                return await receive()
            except RayError:  # the proxy has given the request up, or is no more
                return {"type": "http.disconnect"}

        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if given is not None and headers.get("x-request-id") == given:
                    del headers["x-request-id"]
            await send(message)

        await self._app(scope, receive_or_leave, send_without)


class Replica:
    """What Ray asks of a replica beside its answers; `serve.ingress` gives it its `app`."""

    app: FastAPI
    _has_served = False

    def __init__(self) -> None:
        """Serve nothing yet."""
        # Ray's own metrics, since `GET /metrics` through its proxy is another replica's each time.
        self._serves = metrics.Gauge(
            "mnn_serves",
            description="1 for the version that a replica serves, 0 for those before.",
            tag_keys=("version",),
        )
        self._refused = metrics.Gauge(
            "mnn_refused_rollout",
            description="1 where a replica could not take what was last rolled out.",
        )

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Serve the weights of a new `user_config`.

        Ray stops a replica that raises here. So one that has served before does not: it goes on
        with its weights, and tells why in its log, its metrics and `GET /model`.

        Raises:
            ReloadError: If a replica that has yet to serve cannot use them.
            ValidationError: If it cannot read what it is told.
        """
        await self.app.state.loaded.wait()
        holder: ModelHolder = self.app.state.holder
        refresher: Refresher | None = self.app.state.refresher
        if refresher is None:
            raise RuntimeError("the service has not started; its log says why")
        before = holder.get().classifier.version
        try:
            await refresher.follow(Rollout.model_validate(config).checkpoint)
        except ReloadError:
            if not self._has_served:
                raise
        except ValidationError as error:
            if not self._has_served:
                raise
            _log.error("the new user_config was not taken: %s", error)
            holder.refresh_error = "the deployment's user_config is not one of this application"
        else:
            self._has_served = True
        self._serves.set(0, {"version": before})
        self._serves.set(1, {"version": holder.get().classifier.version})
        self._refused.set(0 if holder.refresh_error is None else 1)

    async def check_health(self) -> None:
        """Do as `GET /health/ready` does.

        Raises:
            RuntimeError: If requests should not be sent here.
        """
        await self.app.state.loaded.wait()
        holder: ModelHolder = self.app.state.holder
        if not holder.is_ready:
            raise RuntimeError("the service is not ready; its log says why")
        # Ray does not call `reconfigure` for a `user_config` of null: it serves all the same.
        self._has_served = True


# A function that makes the application, rather than the application: that one holds what cannot be
# sent to a replica, and its lanes depend on where it is.
DigitReader = serve.deployment(name="DigitReader")(serve.ingress(build)(Replica))


def app(options: Options) -> serve.Application:
    """Make the Ray Serve application.

    Args:
        options: From the command line (`serve run deploy.ray_app:app cpus=2`), or `args` of a
            configuration file.
    """
    return DigitReader.options(
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        max_ongoing_requests=options.max_ongoing_requests,
        max_queued_requests=options.max_queued_requests,
        # As the service has it: told at once, with the status and the field that clients know.
        backpressure_config={"status_code": 429, "retry_after_s": 1},
        autoscaling_config={
            "min_replicas": options.min_replicas,
            "max_replicas": options.max_replicas,
            "target_ongoing_requests": options.target_ongoing_requests,
            "upscale_delay_s": 5,
            "downscale_delay_s": 120,
        },
        user_config={"checkpoint": str(options.checkpoint) if options.checkpoint else None},
        health_check_period_s=5,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=30,
    ).bind()

"""The service as a Ray Serve application: `serve run deploy.ray_app:app`, or `deploy/ray.yaml`.

Each replica runs the application of `python -m service`, with a worker thread for each CPU that
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
from service.dependencies import Service
from service.model_lifecycle.reloader import ReloadError
from service.process.tuning import prepare, tune_gc

_log = logging.getLogger("service")


class Options(BaseModel):
    """Options of the deployment; changing any but the weights restarts the replicas."""

    model_config = ConfigDict(extra="forbid")

    cpus: float = Field(1, gt=0, description="CPUs of a replica, with a worker thread each.")
    gpus: float = Field(
        0, ge=0, description="GPUs of a replica, or a share of one; 0 computes on CPUs."
    )
    min_replicas: int = Field(1, ge=1, description="The fewest replicas.")
    max_replicas: int = Field(4, ge=1, description="The most replicas.")
    target_ongoing_requests: float = Field(
        8, gt=0, description="Requests in progress per replica that autoscaling aims at."
    )
    max_ongoing_requests: int = Field(
        32, ge=1, description="The most requests that a replica gets at once."
    )
    max_queued_requests: int = Field(
        256, ge=1, description="The most requests that wait in each proxy; more are answered 429."
    )
    checkpoint: Path | None = Field(
        None, description="The first checkpoint, on every node; default: the bundled model."
    )


class Rollout(BaseModel):
    """The deployment's `user_config`: the checkpoint that its replicas serve."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: Path | None = None


def granted_settings(granted: Mapping[str, float]) -> Settings:
    """Read the settings of the environment, with threads and device as Ray grants them.

    `MNN_WORKER_THREADS` and `MNN_DEVICE` win where they are set.

    Args:
        granted: Amounts by resource, such as `{"CPU": 2.0}`.
    """
    settings = Settings()
    on_gpu = granted.get("GPU", 0) > 0
    threads = 0 if on_gpu else max(1, int(granted.get("CPU", 0)))
    device = "cuda" if on_gpu else "cpu"
    return settings.model_copy(
        update={
            "worker_threads": settings.worker_threads or threads,
            "device": device if settings.device == "auto" else settings.device,
        }
    )


def build() -> FastAPI:
    """Make the application of one replica, in the replica."""
    settings = granted_settings(ray.get_runtime_context().get_assigned_resources())
    prepare(settings)
    started = asyncio.Event()  # successfully or not

    def on_ready() -> None:
        tune_gc()
        started.set()

    made = create_app(
        settings, externally_managed=True, on_ready=on_ready, on_failed_start=started.set
    )
    made.state.started = started
    made.add_middleware(RayProxyMiddleware)
    return made


class RayProxyMiddleware:
    """Adapt to Ray's proxy, which differs from a server in two ways.

    It adds `X-Request-ID` to every answer, so the service's own is left out where both agree. And
    it reports a client that has left by an exception instead of ASGI's `http.disconnect`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (other ASGI events pass through)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id")

        async def receive_or_disconnect() -> Message:
            try:
                return await receive()
            except RayError:  # the proxy has given up the request, or has died
                return {"type": "http.disconnect"}

        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if given is not None and headers.get("x-request-id") == given:
                    del headers["x-request-id"]
            await send(message)

        await self._app(scope, receive_or_disconnect, send_without_id)


class Replica:
    """What Ray asks of a replica beside answers; `serve.ingress` gives it its `app`."""

    app: FastAPI
    _has_served = False

    def __init__(self) -> None:
        # Ray's own metrics, since `GET /metrics` through its proxy reaches any replica.
        self._served_model = metrics.Gauge(
            "mnn_served_model",
            description="1 for the version that a replica serves, 0 for earlier ones.",
            tag_keys=("version",),
        )
        self._rollout_rejected = metrics.Gauge(
            "mnn_rollout_rejected",
            description="1 where a replica could not use the checkpoint that was rolled out.",
        )

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Serve the checkpoint of a new `user_config`.

        Ray stops a replica that raises here. A replica that has served before does not raise: it
        keeps its model, and reports why in its log, its metrics and `GET /model`.

        Raises:
            ReloadError: If a replica that has not served yet cannot use the checkpoint.
            ValidationError: If it cannot read the configuration.
        """
        await self.app.state.started.wait()
        service: Service = self.app.state.service
        provider = service.provider
        if not provider.is_ready:
            raise RuntimeError("the service has not started; see its log")
        before = provider.get().version
        try:
            await service.reloader.switch_checkpoint(Rollout.model_validate(config).checkpoint)
        except ReloadError:
            if not self._has_served:
                raise
        except ValidationError as error:
            if not self._has_served:
                raise
            _log.error("the new user_config was rejected: %s", error)
            provider.reload_error = "the deployment's user_config is invalid"
        else:
            self._has_served = True
        self._served_model.set(0, {"version": before})
        self._served_model.set(1, {"version": provider.get().version})
        self._rollout_rejected.set(0 if provider.reload_error is None else 1)

    async def check_health(self) -> None:
        """Check health as `GET /health/ready` does.

        Raises:
            RuntimeError: If no requests should be sent here.
        """
        await self.app.state.started.wait()
        service: Service = self.app.state.service
        if not service.provider.is_ready:
            raise RuntimeError("the service is not ready; see its log")
        # Ray calls no `reconfigure` for a `user_config` of null, but the replica serves.
        self._has_served = True


# `build` instead of an application: that cannot be sent to a replica, and its threads depend on the
# node.
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
        # Rejected at once, with the status and header of the service itself.
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

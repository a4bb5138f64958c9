"""The parts of the Ray Serve application that need no cluster."""

import asyncio
import re
import warnings
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI, Response

from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def ray_app(ray_installed: None) -> ModuleType:  # noqa: ARG001
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        import deploy.ray_app

    return deploy.ray_app


@pytest.mark.parametrize(
    ("granted", "environment", "expected"),
    [
        ({"CPU": 1.0}, {}, (1, "cpu")),
        ({"CPU": 4.0}, {}, (4, "cpu")),
        ({"CPU": 0.5}, {}, (1, "cpu")),
        ({"CPU": 2.0, "GPU": 0.25}, {}, (0, "cuda")),
        ({"CPU": 2.0}, {"MNN_WORKER_THREADS": "3"}, (3, "cpu")),
        ({"CPU": 2.0, "GPU": 1.0}, {"MNN_DEVICE": "cpu"}, (0, "cpu")),
    ],
)
def test_granted_resources_decide_threads_and_device_unless_they_are_set(
    ray_app: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    granted: dict[str, float],
    environment: dict[str, str],
    expected: tuple[int, str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = ray_app.granted_settings(granted)
    assert (settings.worker_threads, settings.device) == expected


def test_options_become_those_of_the_deployment(ray_app: ModuleType) -> None:
    options = ray_app.Options(
        cpus="2", gpus="0.5", min_replicas="2", max_replicas="3", checkpoint="/weights/a"
    )  # as `serve run` hands them over
    deployment = ray_app.app(options)._bound_deployment
    assert deployment.ray_actor_options["num_cpus"] == 2
    assert deployment.ray_actor_options["num_gpus"] == 0.5
    assert deployment._deployment_config.autoscaling_config.min_replicas == 2
    assert deployment._deployment_config.autoscaling_config.max_replicas == 3
    assert deployment.user_config == {"checkpoint": "/weights/a"}
    assert ray_app.app(ray_app.Options())._bound_deployment.user_config == {"checkpoint": None}
    with pytest.raises(ValueError, match="cpu"):
        ray_app.Options(cpu=2)


def test_the_configuration_file_names_every_option_with_its_default(ray_app: ModuleType) -> None:
    from ray.serve.schema import ServeDeploySchema

    config = yaml.safe_load((ROOT / "deploy" / "ray.yaml").read_text())
    (application,) = ServeDeploySchema(**config).applications
    defaults = {
        name: field.default
        for name, field in ray_app.Options.model_fields.items()
        if name != "checkpoint"  # which is the `user_config`'s
    }
    assert application.args == defaults
    (deployment,) = application.deployments
    assert deployment.name == ray_app.DigitReader.name
    assert ray_app.Rollout(**deployment.user_config) == ray_app.Rollout()


def test_every_option_is_documented_with_its_default_and_meaning(ray_app: ModuleType) -> None:
    text = (ROOT / "docs" / "scaling.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `([^`]*)` \| (.*) \|$", text, re.MULTILINE)
    assert rows == [
        (name, "null" if field.default is None else str(field.default), field.description)
        for name, field in ray_app.Options.model_fields.items()
    ]


def test_a_replica_is_healthy_when_it_is_ready(ray_app: ModuleType) -> None:
    replica = ray_app.Replica()
    provider: Any = SimpleNamespace(is_ready=False)
    service = SimpleNamespace(provider=provider)
    started = asyncio.Event()
    replica.app = SimpleNamespace(state=SimpleNamespace(started=started, service=service))

    async def check() -> None:
        with pytest.raises(TimeoutError):  # the model is being loaded: no verdict yet
            await asyncio.wait_for(replica.check_health(), 0.05)
        started.set()
        with pytest.raises(RuntimeError, match="not ready"):
            await replica.check_health()
        with pytest.raises(RuntimeError, match="not started"):
            await replica.reconfigure({"checkpoint": None})
        provider.is_ready = True
        await replica.check_health()
        provider.is_ready = False  # while the service drains
        with pytest.raises(RuntimeError, match="not ready"):
            await replica.check_health()

    asyncio.run(check())


@pytest.mark.parametrize(
    ("sent", "given", "left"),
    [("a", "a", []), ("a b", "made", ["made"]), (None, "made", ["made"])],
)
def test_an_id_that_ray_adds_is_left_to_ray(
    ray_app: ModuleType, sent: str | None, given: str, left: list[str]
) -> None:
    app = FastAPI()

    @app.get("/")
    def answer() -> Response:
        return Response(headers={"X-Request-ID": given})

    app.add_middleware(ray_app.RayProxyMiddleware)

    async def ask() -> list[str]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.get("/", headers={"X-Request-ID": sent} if sent else {})
        return answer.headers.get_list("x-request-id")

    assert asyncio.run(ask()) == left


def test_a_client_that_has_left_is_an_asgi_disconnect(ray_app: ModuleType) -> None:
    from ray.exceptions import TaskCancelledError

    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
        received.append(await receive())

    async def receive() -> Any:
        raise TaskCancelledError

    asyncio.run(ray_app.RayProxyMiddleware(app)({"type": "http", "headers": []}, receive, None))
    assert received == [{"type": "http.disconnect"}]

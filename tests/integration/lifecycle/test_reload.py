"""Reloading: a changed checkpoint is served without a restart, a bad one changes nothing."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from model import save_checkpoint
from model.checkpoint import BUNDLED
from service import Settings, create_app
from service.model_lifecycle.loading import LoadedModel, load_model
from service.model_lifecycle.provider import ModelProvider
from service.model_lifecycle.reloader import ModelReloader, ReloadError
from service.observability.metrics import Metrics
from tests.support.checkpoints import TINY, spoil, tiny_checkpoint
from tests.support.service.api_key import KEY, bearer
from tests.support.service.metrics import counted, metric_value
from tests.support.service.server import Server

pytestmark = pytest.mark.not_through_ray("on Ray, the deployment manages the weights")

INTERVAL_S = 0.05


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "digits.safetensors"


@pytest.fixture(scope="module")
def watched(make_server: Callable[..., Server], tmp_path_factory: Any) -> tuple[Server, Path]:
    """A service that polls a file, which is absent at first."""
    path: Path = tmp_path_factory.mktemp("watched") / "digits.safetensors"
    settings = {"draws": 40, "device": "cpu", "api_key": KEY}
    return make_server(checkpoint=path, reload_poll_interval_s=INTERVAL_S, **settings), path


@pytest.fixture
def watching(watched: tuple[Server, Path]) -> Server:
    """The service that polls `watched_path`, with the bundled model."""
    server, path = watched
    path.unlink(missing_ok=True)
    until(server, lambda body: body["source"] == "shipped" and body["reload_error"] is None)
    return server


@pytest.fixture
def watched_path(watched: tuple[Server, Path]) -> Path:
    return watched[1]


def described(server: Server) -> dict[str, Any]:
    with server.client() as client:
        body: dict[str, Any] = client.get("/model").json()
    return body


def until(server: Server, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while not condition(body := described(server)):
        assert time.monotonic() < deadline, (body, server.log.read_text())
        time.sleep(0.02)
    return body


# By polling


def test_a_new_checkpoint_is_served_and_its_removal_restores_the_bundled_model(
    watching: Server, watched_path: Path
) -> None:
    path = watched_path
    before = described(watching)
    assert before["source"] == "shipped"
    save_checkpoint(tiny_checkpoint(), path)
    first = until(watching, lambda body: body["source"] == "file")
    assert first["version"] != before["version"]
    assert first["reload_error"] is None

    save_checkpoint(tiny_checkpoint(threshold=1.0), path)
    second = until(watching, lambda body: body["version"] != first["version"])
    assert second["decision"]["threshold"] == 1.0

    path.unlink()
    assert until(watching, lambda body: body["source"] == "shipped")["version"] == before["version"]


def test_a_bad_file_changes_nothing_and_is_reported_without_its_folder(
    watching: Server, watched_path: Path, seven_png: bytes
) -> None:
    path = watched_path
    save_checkpoint(tiny_checkpoint(), path)
    good = until(watching, lambda body: body["source"] == "file")
    spoil(path, lambda tensors, _: tensors["conv2.bias.mean"].fill(float("nan")))
    bad = until(watching, lambda body: body["reload_error"] is not None)
    assert bad["version"] == good["version"]
    assert bad["reload_error"].startswith("digits.safetensors: tensor conv2.bias.mean")
    assert str(path.parent) not in bad["reload_error"]
    log = watching.log.read_text()
    rejected = f"the new checkpoint was rejected, {good['version']} stays in service: {path}"
    assert log.count(rejected) == 1
    assert "Traceback" not in log
    time.sleep(10 * INTERVAL_S)  # it is tried again when it changes, not at every poll
    assert watching.log.read_text().count(rejected) == 1
    with watching.client() as client:
        answer = client.post("/predict", files={"file": seven_png}).json()
    assert answer["model"]["version"] == good["version"]

    save_checkpoint(tiny_checkpoint(threshold=1.0), path)
    mended = until(watching, lambda body: body["version"] != good["version"])
    assert mended["reload_error"] is None


def test_a_file_that_is_written_in_place_is_served_once_it_is_whole(
    watching: Server, watched_path: Path
) -> None:
    data = BUNDLED.read_bytes()
    with watched_path.open("wb") as file:
        file.write(data[:1000])
        file.flush()
        until(watching, lambda body: body["reload_error"] is not None)
        file.write(data[1000:])
    body = until(watching, lambda body: body["source"] == "file")
    assert body["reload_error"] is None


def test_without_the_bundled_model_a_removal_changes_nothing(
    make_server: Callable[..., Server], path: Path
) -> None:
    save_checkpoint(tiny_checkpoint(), path)
    server = make_server(
        checkpoint=path,
        device="cpu",
        draws=40,
        reload_poll_interval_s=INTERVAL_S,
        allow_bundled_model=False,
    )
    version = described(server)["version"]
    path.unlink()
    body = until(server, lambda body: body["reload_error"] is not None)
    assert (body["version"], body["source"]) == (version, "file")
    assert "there is no such file" in body["reload_error"]


def test_during_reloads_no_request_fails_and_every_answer_is_of_one_model(
    watching: Server, watched_path: Path, seven_png: bytes
) -> None:
    path = watched_path
    answers: list[dict[str, Any]] = []
    failures: list[str] = []
    over = threading.Event()

    def ask() -> None:
        with watching.client() as client:
            while not over.is_set():
                answer = client.post("/predict", files={"file": seven_png})
                if answer.status_code == httpx.codes.OK:
                    answers.append(answer.json())
                else:
                    failures.append(answer.text)

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask) for _ in range(4)]
        try:
            seen = {described(watching)["version"]}
            for threshold in (1.0, 1.1, 1.2, 1.3):
                save_checkpoint(tiny_checkpoint(TINY, threshold=threshold), path)
                seen.add(until(watching, lambda body: body["version"] not in seen)["version"])
            time.sleep(0.2)
        finally:
            over.set()
    for client in clients:
        client.result()
    assert not failures
    assert len(seen) == 5
    bundled = {a["probability"] for a in answers if a["classes"][7]["probability"] > 0.9}
    others = {a["probability"] for a in answers if a["classes"][7]["probability"] <= 0.9}
    # The four share their weights, so there are two different answers.
    assert (len(bundled), len(others)) == (1, 1)
    assert {a["model"]["version"] for a in answers} == seen


# By POST /model/reload


@pytest.fixture(scope="module")
def unpolled(make_server: Callable[..., Server], tmp_path_factory: Any) -> tuple[Server, Path]:
    """A service that does not poll its file, which is absent at first."""
    path: Path = tmp_path_factory.mktemp("unpolled") / "digits.safetensors"
    settings = {"draws": 40, "device": "cpu", "api_key": KEY}
    return make_server(checkpoint=path, reload_poll_interval_s=0, **settings), path


def test_without_polling_a_reload_serves_the_new_checkpoint(unpolled: tuple[Server, Path]) -> None:
    server, path = unpolled
    before = described(server)
    assert before["source"] == "shipped"
    save_checkpoint(tiny_checkpoint(), path)
    time.sleep(0.5)
    assert described(server) == before
    with server.client() as client, counted(client) as growth:
        answer = client.post("/model/reload", headers=bearer())
    assert answer.status_code == 200
    after = described(server)
    assert after["version"] != before["version"]
    assert answer.json() == {"name": after["name"], "version": after["version"]}
    assert metric_value(growth, "mnn_reloads_total", outcome="success") == 1


def test_a_failed_reload_says_why_and_changes_nothing(unpolled: tuple[Server, Path]) -> None:
    server, path = unpolled
    before = described(server)
    path.write_bytes(b"no checkpoint")
    with server.client() as client, counted(client) as growth:
        answer = client.post("/model/reload", headers=bearer())
    assert answer.status_code == 409
    detail = answer.json()["detail"]
    assert detail.startswith("The previous model stays in service: digits.safetensors")
    assert str(path.parent) not in answer.text
    after = described(server)
    assert after["version"] == before["version"]
    assert after["reload_error"] in detail
    assert metric_value(growth, "mnn_reloads_total", outcome="failure") == 1


# In this process


@pytest.fixture
def settings(path: Path) -> Settings:
    return Settings(checkpoint=path, draws=40, device="cpu", reload_poll_interval_s=0.01)


@pytest.fixture
def provider(settings: Settings) -> Iterator[ModelProvider]:
    """A provider without a model."""
    provider = ModelProvider(settings, Metrics(pending=lambda: 0, ready=lambda: True))
    yield provider
    asyncio.run(provider.close())


def run_with_reloader(
    provider: ModelProvider,
    settings: Settings,
    scenario: Callable[[ModelReloader], Coroutine[Any, Any, None]],
) -> None:
    """Run a scenario with a reloader that has started, then close the reloader."""

    async def run() -> None:
        metrics = Metrics(pending=lambda: 0, ready=lambda: True)
        reloader = ModelReloader(provider, settings, metrics)
        try:
            await reloader.start()
            await scenario(reloader)
        finally:
            reloader.close()

    asyncio.run(asyncio.wait_for(run(), 30))


async def watch_until(reloader: ModelReloader, condition: Callable[[], bool]) -> None:
    """Have the file polled until a condition holds."""
    watching = asyncio.ensure_future(reloader.watch())
    while not condition():
        await asyncio.sleep(0.01)
    watching.cancel()


LOAD = "service.model_lifecycle.reloader.load_model"


def test_a_change_during_a_load_is_loaded_afterwards(
    provider: ModelProvider, settings: Settings, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thresholds = iter((1.0, 1.1))
    save_checkpoint(tiny_checkpoint(), path)

    def overtaken(*args: Any, **options: Any) -> LoadedModel:
        model = load_model(*args, **options)
        if threshold := next(thresholds, None):
            save_checkpoint(tiny_checkpoint(threshold=threshold), path)
        return model

    monkeypatch.setattr(LOAD, overtaken)

    def newest_is_served() -> bool:
        return provider.get().classifier.checkpoint.selective.threshold == 1.1

    run_with_reloader(provider, settings, lambda reloader: watch_until(reloader, newest_is_served))


def test_an_unexpected_failure_is_tried_again_and_logged_once(
    provider: ModelProvider,
    settings: Settings,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = 5

    def failing(*args: Any, **options: Any) -> LoadedModel:
        nonlocal failures
        if failures:
            failures -= 1
            raise MemoryError("in /some/path")
        return load_model(*args, **options)

    def is_reloaded() -> bool:
        assert "/some/path" not in (provider.reload_error or "")
        return provider.get().source == "file"

    async def scenario(reloader: ModelReloader) -> None:
        monkeypatch.setattr(LOAD, failing)
        save_checkpoint(tiny_checkpoint(), path)
        await watch_until(reloader, is_reloaded)

    run_with_reloader(provider, settings, scenario)
    assert provider.reload_error is None
    assert [record.levelname for record in caplog.records].count("ERROR") == 1


def test_the_folder_of_the_bundled_model_is_never_shown(
    provider: ModelProvider, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(reloader: ModelReloader) -> None:
        monkeypatch.setattr("model.checkpoint._MAX_BYTES", 10)
        with pytest.raises(ReloadError, match=f"^{BUNDLED.name}: .* bytes") as caught:
            await reloader.reload()
        assert provider.reload_error == str(caught.value)

    run_with_reloader(provider, settings, scenario)
    assert "/" not in (provider.reload_error or "")


def test_a_poll_that_fails_is_logged_and_not_the_last(
    provider: ModelProvider,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    polls = 0

    def identity(_path: Path) -> None:
        nonlocal polls
        polls += 1
        raise RuntimeError("can't start new thread")

    async def scenario(reloader: ModelReloader) -> None:
        monkeypatch.setattr("service.model_lifecycle.reloader._identity", identity)
        await watch_until(reloader, lambda: polls >= 3)

    run_with_reloader(provider, settings, scenario)
    logged = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(logged) >= 2
    assert "polling the checkpoint failed" in logged[0].getMessage()


def test_one_thread_loads_all_models_and_ends_with_the_reloader(
    provider: ModelProvider, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def load(*args: Any, **options: Any) -> LoadedModel:
        threads.append(threading.current_thread())
        return load_model(*args, **options)

    monkeypatch.setattr(LOAD, load)

    async def scenario(reloader: ModelReloader) -> None:
        for _ in range(2):
            await reloader.reload()

    run_with_reloader(provider, settings, scenario)
    assert len(threads) == 3
    assert len(set(threads)) == 1
    threads[0].join(timeout=10)
    assert not threads[0].is_alive()


def test_reloads_run_one_after_the_other(
    provider: ModelProvider, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = most = 0

    def slow(*args: Any, **options: Any) -> LoadedModel:
        nonlocal loading, most
        loading += 1
        most = max(most, loading)
        time.sleep(0.05)
        loading -= 1
        return load_model(*args, **options)

    async def scenario(reloader: ModelReloader) -> None:
        monkeypatch.setattr(LOAD, slow)
        await asyncio.gather(*(reloader.reload() for _ in range(3)))

    run_with_reloader(provider, settings, scenario)
    assert most == 1


# By the deployment


def test_a_switched_checkpoint_is_served_and_a_rejected_one_changes_nothing(
    path: Path, tmp_path: Path
) -> None:
    other, absent = tmp_path / "other.safetensors", tmp_path / "absent.safetensors"
    save_checkpoint(tiny_checkpoint(), path)
    save_checkpoint(tiny_checkpoint(threshold=1.0), other)
    other.with_suffix(".html").write_text(tiny_checkpoint(threshold=1.0).version(20))
    ready = asyncio.Event()
    chosen = Settings(
        draws=40, device="cpu", api_key=KEY, reload_poll_interval_s=0.01, checkpoint=absent
    )
    app = create_app(chosen, externally_managed=True, on_ready=ready.set)

    async def switch() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            await ready.wait()
            model = (await client.get("/model")).json()
            assert (model["source"], model["reload_error"]) == ("shipped", None)
            reloader: ModelReloader = app.state.service.reloader
            first = await reloader.switch_checkpoint(path)
            assert (first.source, first.path) == ("file", path)
            assert (await client.get("/model")).json()["version"] == first.version
            for unusable in (absent, tmp_path):
                with pytest.raises(ReloadError):
                    await reloader.switch_checkpoint(unusable)
                model = (await client.get("/model")).json()
                assert model["version"] == first.version
                assert model["reload_error"].startswith(unusable.name)
            assert (await reloader.reload()).path == path
            second = await reloader.switch_checkpoint(other)
            assert second.version != first.version
            assert (await client.get("/model/report")).status_code == 200
            save_checkpoint(tiny_checkpoint(threshold=1.5), other)
            await asyncio.sleep(0.2)
            model = (await client.get("/model")).json()
            assert (model["version"], model["reload_error"]) == (second.version, None)
            rejected = await client.post("/model/reload", headers=bearer())
            assert rejected.status_code == 409
            assert "deployment manages the weights" in rejected.json()["detail"]
            assert (await reloader.switch_checkpoint(None)).source == "shipped"

    asyncio.run(asyncio.wait_for(switch(), 30))

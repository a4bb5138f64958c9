"""The watched checkpoint: news is served without a restart, and bad news changes nothing."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from model import save_checkpoint
from model.checkpoint import BUNDLED
from service import Settings, create_app
from service.model_lifecycle.provider import ModelHolder, Served, load_served
from service.model_lifecycle.reloader import CheckpointFile, Refresher, ReloadError
from service.observability.metrics import Metrics
from tests.support.checkpoints import TINY, spoil, tiny_checkpoint
from tests.support.server import Server

INTERVAL_S = 0.05


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "digits.safetensors"


@pytest.fixture
def watching(make_server: Callable[..., Server], path: Path) -> Server:
    """A service that watches `path`, where there is nothing yet."""
    return make_server(checkpoint=path, draws=40, watch_interval_s=INTERVAL_S, device="cpu")


def described(server: Server) -> dict[str, Any]:
    with server.client() as client:
        body: dict[str, Any] = client.get("/model").json()
    return body


def until(server: Server, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while not condition(body := described(server)):
        assert time.monotonic() < deadline, (body, server.log.read_text())
        time.sleep(0.02)
    return body


def test_a_new_checkpoint_is_served_and_its_removal_goes_back(watching: Server, path: Path) -> None:
    before = described(watching)
    assert before["source"] == "shipped"
    save_checkpoint(tiny_checkpoint(), path)
    first = until(watching, lambda body: body["source"] == "file")
    assert first["version"] != before["version"]
    assert first["refresh_error"] is None

    save_checkpoint(tiny_checkpoint(threshold=1.0), path)
    second = until(watching, lambda body: body["version"] != first["version"])
    assert second["decision"]["threshold"] == 1.0

    path.unlink()
    assert until(watching, lambda body: body["source"] == "shipped")["version"] == before["version"]


def test_a_bad_file_changes_nothing_and_is_reported_without_its_folder(
    watching: Server, path: Path, seven_png: bytes
) -> None:
    save_checkpoint(tiny_checkpoint(), path)
    good = until(watching, lambda body: body["source"] == "file")
    spoil(path, lambda tensors, _: tensors["conv2.bias.mean"].fill(float("nan")))
    bad = until(watching, lambda body: body["refresh_error"] is not None)
    assert bad["version"] == good["version"]
    assert bad["refresh_error"].startswith("digits.safetensors: tensor conv2.bias.mean")
    assert str(path.parent) not in bad["refresh_error"]
    log = watching.log.read_text()
    assert f"the new checkpoint was not taken, {good['version']} is served still: {path}" in log
    assert "Traceback" not in log
    time.sleep(10 * INTERVAL_S)  # it is tried again when it changes, not at every look
    assert watching.log.read_text().count("was not taken") == log.count("was not taken")
    with watching.client() as client:
        answer = client.post("/predict", files={"file": seven_png}).json()
    assert answer["model"]["version"] == good["version"]

    save_checkpoint(tiny_checkpoint(threshold=1.0), path)
    mended = until(watching, lambda body: body["version"] != good["version"])
    assert mended["refresh_error"] is None


def test_a_file_that_is_written_in_place_is_taken_once_it_is_whole(
    watching: Server, path: Path
) -> None:
    data = BUNDLED.read_bytes()
    with path.open("wb") as file:
        file.write(data[:1000])
        file.flush()
        until(watching, lambda body: body["refresh_error"] is not None)
        file.write(data[1000:])
    body = until(watching, lambda body: body["source"] == "file")
    assert body["refresh_error"] is None


def test_where_the_shipped_weights_may_not_stand_in_a_removal_changes_nothing(
    make_server: Callable[..., Server], path: Path
) -> None:
    save_checkpoint(tiny_checkpoint(), path)
    server = make_server(
        checkpoint=path, draws=40, watch_interval_s=INTERVAL_S, allow_shipped=False
    )
    version = described(server)["version"]
    path.unlink()
    body = until(server, lambda body: body["refresh_error"] is not None)
    assert (body["version"], body["source"]) == (version, "file")
    assert "there is no such file" in body["refresh_error"]


def test_an_interval_of_0_never_looks(make_server: Callable[..., Server], path: Path) -> None:
    server = make_server(checkpoint=path, draws=40, watch_interval_s=0)
    save_checkpoint(tiny_checkpoint(), path)
    time.sleep(1)
    assert described(server)["source"] == "shipped"


def test_no_request_fails_while_the_model_changes_and_every_answer_is_of_one_model(
    watching: Server, path: Path, seven_png: bytes
) -> None:
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

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    seen = {described(watching)["version"]}
    for threshold in (1.0, 1.1, 1.2, 1.3):
        save_checkpoint(tiny_checkpoint(TINY, threshold=threshold), path)
        seen.add(until(watching, lambda body: body["version"] not in seen)["version"])
    time.sleep(0.2)
    over.set()
    for client in clients:
        client.join(timeout=30)
    assert not failures
    assert len(seen) == 5
    shipped = {a["probability"] for a in answers if a["classes"][7]["probability"] > 0.9}
    others = {a["probability"] for a in answers if a["classes"][7]["probability"] <= 0.9}
    # The four share their weights: with the shipped ones that makes two different answers, no more.
    assert (len(shipped), len(others)) == (1, 1)
    assert {a["model"]["version"] for a in answers} == seen


def test_a_change_while_loading_is_seen_afterwards(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tiny_checkpoint(), path)

    def overtaken(_settings: Settings) -> None:
        save_checkpoint(tiny_checkpoint(threshold=1.0), path)

    monkeypatch.setattr("service.model_lifecycle.reloader.load_served", overtaken)
    file = CheckpointFile(Settings(checkpoint=path))
    file.load()
    assert file.has_changed()


def test_a_failure_that_is_no_verdict_on_the_file_is_tried_again_and_logged_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = 5

    def failing(settings: Settings) -> Served:
        nonlocal failures
        if failures:
            failures -= 1
            raise MemoryError("in /some/path")
        return load_served(settings)

    settings = Settings(checkpoint=path, watch_interval_s=0.01, draws=40, device="cpu")
    file, holder = CheckpointFile(settings), ModelHolder()
    holder.served = file.load()
    monkeypatch.setattr("service.model_lifecycle.reloader.load_served", failing)
    save_checkpoint(tiny_checkpoint(), path)

    async def refreshed() -> None:
        refresher = Refresher(
            file, holder, settings, Metrics(pending=lambda: 0, ready=lambda: True)
        )
        watching = asyncio.ensure_future(refresher.watch())
        while holder.get().source == "shipped":
            assert "/some/path" not in (holder.refresh_error or "")
            await asyncio.sleep(0.01)
        watching.cancel()

    asyncio.run(asyncio.wait_for(refreshed(), 20))
    assert holder.refresh_error is None
    assert [record.levelname for record in caplog.records].count("ERROR") == 1


# At once, by POST /model/reload

KEY = "a key of no importance"
BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def reloading(make_server: Callable[..., Server], path: Path) -> Server:
    """A service that does not look at `path` by itself, and has a key."""
    return make_server(checkpoint=path, draws=40, watch_interval_s=0, device="cpu", api_key=KEY)


def test_a_reload_serves_what_the_file_holds_at_once(reloading: Server, path: Path) -> None:
    before = described(reloading)
    save_checkpoint(tiny_checkpoint(), path)
    with reloading.client() as client:
        answer = client.post("/model/reload", headers=BEARER)
    assert answer.status_code == 200
    after = described(reloading)
    assert after["version"] != before["version"]
    assert answer.json() == {"name": after["name"], "version": after["version"]}


def test_a_reload_that_fails_says_why_and_changes_nothing(reloading: Server, path: Path) -> None:
    before = described(reloading)
    path.write_bytes(b"no checkpoint")
    with reloading.client() as client:
        answer = client.post("/model/reload", headers=BEARER)
        metrics = client.get("/metrics").text
    assert answer.status_code == 409
    detail = answer.json()["detail"]
    assert detail.startswith("The old model is served still: digits.safetensors")
    assert str(path.parent) not in answer.text
    after = described(reloading)
    assert after["version"] == before["version"]
    assert after["refresh_error"] in detail
    assert 'mnn_reloads_total{outcome="refused"} 1.0' in metrics


def test_where_the_shipped_weights_cannot_be_used_either_their_folder_is_told_to_nobody(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(checkpoint=path, draws=40, device="cpu")
    file, holder = CheckpointFile(settings), ModelHolder()
    holder.served = file.load()
    monkeypatch.setattr("model.checkpoint._MAX_BYTES", 10)
    refresher = Refresher(file, holder, settings, Metrics(pending=lambda: 0, ready=lambda: True))
    with pytest.raises(ReloadError, match=f"^{BUNDLED.name}: .* bytes") as caught:
        asyncio.run(refresher.reload())
    assert holder.refresh_error == str(caught.value)
    assert "/" not in holder.refresh_error


def test_a_look_that_fails_is_told_and_not_the_last(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(checkpoint=path, watch_interval_s=0.01, draws=40, device="cpu")
    file, holder = CheckpointFile(settings), ModelHolder()
    looks = 0

    def look() -> bool:
        nonlocal looks
        looks += 1
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(file, "has_changed", look)

    async def watched() -> None:
        refresher = Refresher(
            file, holder, settings, Metrics(pending=lambda: 0, ready=lambda: True)
        )
        watching = asyncio.ensure_future(refresher.watch())
        while looks < 3:
            await asyncio.sleep(0.01)
        watching.cancel()

    asyncio.run(asyncio.wait_for(watched(), 20))
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) >= 2
    assert "could not look at the checkpoint" in told[0].getMessage()


def test_all_weights_are_loaded_by_one_thread_that_ends_with_what_it_loads_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    monkeypatch.setattr(
        "service.model_lifecycle.reloader.load_served",
        lambda _: threads.append(threading.current_thread()),
    )
    files = [CheckpointFile(Settings(checkpoint=path))]

    async def load() -> None:
        for _ in range(3):
            await files[0].fetch()

    asyncio.run(load())
    asyncio.run(load())
    assert len(threads) == 6
    assert len(set(threads)) == 1
    assert threads[0].daemon
    files.clear()
    threads[0].join(timeout=10)
    assert not threads[0].is_alive()


def test_reloads_come_one_after_the_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(checkpoint=path, draws=40, device="cpu")
    file, holder = CheckpointFile(settings), ModelHolder()
    holder.served = file.load()
    loading = most = 0

    def slow(settings: Settings) -> Served:
        nonlocal loading, most
        loading += 1
        most = max(most, loading)
        time.sleep(0.05)
        loading -= 1
        return load_served(settings)

    monkeypatch.setattr("service.model_lifecycle.reloader.load_served", slow)
    refresher = Refresher(file, holder, settings, Metrics(pending=lambda: 0, ready=lambda: True))

    async def together() -> None:
        await asyncio.gather(*(refresher.reload() for _ in range(3)))

    asyncio.run(together())
    assert most == 1


# Rolled out, by whoever deploys several services at once


def test_what_is_rolled_out_is_served_and_a_refused_file_leaves_the_one_before(
    path: Path, tmp_path: Path
) -> None:
    other, absent = tmp_path / "other.safetensors", tmp_path / "absent.safetensors"
    save_checkpoint(tiny_checkpoint(), path)
    save_checkpoint(tiny_checkpoint(threshold=1.0), other)
    other.with_suffix(".html").write_text(tiny_checkpoint(threshold=1.0).version(20))
    ready = asyncio.Event()
    settings = Settings(
        draws=40, device="cpu", api_key=KEY, watch_interval_s=0.01, checkpoint=absent
    )
    app = create_app(settings, rolled_out=True, on_ready=ready.set)

    async def roll_out() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            await ready.wait()
            model = (await client.get("/model")).json()
            assert (model["source"], model["refresh_error"]) == ("shipped", None)
            refresher: Refresher = app.state.refresher
            first = await refresher.follow(path)
            assert (first.source, first.path) == ("file", path)
            assert (await client.get("/model")).json()["version"] == first.classifier.version
            for unusable in (absent, tmp_path):
                with pytest.raises(ReloadError):
                    await refresher.follow(unusable)
                model = (await client.get("/model")).json()
                assert model["version"] == first.classifier.version
                assert model["refresh_error"].startswith(unusable.name)
            assert (await refresher.reload()).path == path
            second = await refresher.follow(other)
            assert second.classifier.version != first.classifier.version
            assert (await client.get("/model/report")).status_code == 200
            save_checkpoint(tiny_checkpoint(threshold=1.5), other)
            await asyncio.sleep(0.2)
            model = (await client.get("/model")).json()
            assert (model["version"], model["refresh_error"]) == (second.classifier.version, None)
            refused = await client.post("/model/reload", headers=BEARER)
            assert refused.status_code == 409
            assert "rolled out" in refused.json()["detail"]
            assert (await refresher.follow(None)).source == "shipped"

    asyncio.run(asyncio.wait_for(roll_out(), 30))

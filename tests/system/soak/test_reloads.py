"""Reloads under load; every third checkpoint is unusable."""

import asyncio
import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model import load_checkpoint, save_checkpoint
from model.checkpoint import BUNDLED, Checkpoint
from tests.support.checkpoints import spoil
from tests.support.load.generator import Address, Answer, Load, digest, run
from tests.support.load.measurements import Measurements, growth_per_item
from tests.support.load.soak import LONG, address, choose, progress
from tests.support.load.traffic import form, get, post
from tests.support.process import rss_kb
from tests.support.service.api_key import KEY
from tests.support.service.server import Server

# Memory at rest scatters by 10 MB: of 200 reloads, that alone could look like 60 kB a reload.
RELOADS = choose(9, 600)
DRAWS = 100
WINDOW = choose(9, 10)
REST_S = 2.0  # the service returns a model's memory a second after it was replaced
BEARER = f"Authorization: Bearer {KEY}"


@dataclass
class Reign:
    """A version, from when it may have been served until when it was replaced for certain."""

    version: str
    begins: float
    ends: float = float("inf")


def version_and_digest(status: int, body: bytes) -> object:
    version = json.loads(body)["model"]["version"] if status == 200 else None
    return version, digest(status, body)


def body_of(_status: int, body: bytes) -> object:
    return json.loads(body)


def another(bundled: Checkpoint, i: int) -> Checkpoint:
    """Return the bundled weights with another rule, which makes another version."""
    rule = dataclasses.replace(bundled.selective, threshold=1 + i / 1000)
    return dataclasses.replace(bundled, selective=rule)


def break_file(path: Path, i: int) -> None:
    """Write an unusable file, each time of another kind."""
    whole = BUNDLED.read_bytes()
    kinds: list[Callable[[], object]] = [
        lambda: path.write_bytes(whole[: len(whole) * (i + 1) // (RELOADS + 1)]),
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(b"no checkpoint"),
        lambda: spoil(path, lambda tensors, _: tensors["conv1.bias.mean"].fill(np.nan)),
        lambda: spoil(path, lambda tensors, _: tensors.pop("conv1.bias.mean")),
    ]
    kinds[(i // 3) % len(kinds)]()


class Reloading:
    """A service whose checkpoint changes; `reigns` is what it has served, and when."""

    def __init__(self, server: Server, path: Path) -> None:
        self.address: Address = address(server)
        self.pid = server.process.pid
        self.path, self.bundled = path, load_checkpoint(BUNDLED)
        self.reigns: list[Reign] = []
        self.memory_kb: list[int] = []  # after each reload
        self.kept_kb: list[int] = []  # after every tenth, when the models before are gone
        self.wrong: list[str] = []

    async def reload(self, number: int) -> None:
        """Write one file after the other, by turns polled and reloaded by request."""
        with progress(number, "reloads") as bar:
            for i in range(number):
                await self._reload_once(i)
                self.memory_kb.append(rss_kb(self.pid))
                if (i + 1) % WINDOW == 0:
                    await asyncio.sleep(REST_S)
                    self.kept_kb.append(rss_kb(self.pid))
                bar.update()

    async def _reload_once(self, i: int) -> None:
        broken, posted = i % 3 == 2, i % 2 == 0
        began, version = time.monotonic(), ""
        if broken:
            break_file(self.path, i)
        else:
            checkpoint = another(self.bundled, i)
            version = checkpoint.version(DRAWS)
            self.reigns.append(Reign(version, began))
            save_checkpoint(checkpoint, self.path)
        if posted:
            status, body = await self._ask(post("/model/reload", BEARER))
            if status != (409 if broken else 200) or body.get("version", version) != version:
                self.wrong.append(f"reload {i}: {status} {body}")
        else:
            await self._until_seen(i, version)
        if not broken and len(self.reigns) > 1:
            self.reigns[-2].ends = time.monotonic()

    async def _until_seen(self, i: int, version: str) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            _, body = await self._ask(get("/model"))
            seen = body["version"] == version if version else body["reload_error"] is not None
            if seen:
                return
            await asyncio.sleep(0.02)
        self.wrong.append(f"reload {i} was never seen: {body}")

    async def _ask(self, request: bytes) -> tuple[int, dict[str, object]]:
        (answer,) = await Load(self.address, [request], read=body_of).closed_loop(1, number=1)
        assert isinstance(answer.kept, dict), answer
        return answer.status, answer.kept

    def was_served(self, answer: Answer) -> bool:
        """Whether an answer's version was served at some moment between its request and itself."""
        assert isinstance(answer.kept, tuple)
        return any(
            reign.version == answer.kept[0]
            and reign.begins <= answer.due + answer.latency_s
            and answer.due <= reign.ends
            for reign in self.reigns
        )


def test_reloads_under_load_lose_no_answer_and_no_memory(
    make_server: Callable[..., Server],
    seven_png: bytes,
    tmp_path: Path,
    measure: Callable[[str], Measurements],
) -> None:
    found = measure(f"{RELOADS} reloads under load, a third of them broken")
    path = tmp_path / "digits.safetensors"
    save_checkpoint(another(load_checkpoint(BUNDLED), -1), path)
    server = make_server(
        device="cpu", checkpoint=path, draws=DRAWS, reload_poll_interval_s=0.05, api_key=KEY
    )
    reloading = Reloading(server, path)
    reloading.reigns.append(Reign(load_checkpoint(path).version(DRAWS), 0.0))

    async def both() -> list[Answer]:
        over = asyncio.Event()
        load = Load(reloading.address, [form("/predict", seven_png)], read=version_and_digest)
        asking = asyncio.create_task(load.closed_loop(8, until=over))
        await reloading.reload(RELOADS)
        over.set()
        return await asking

    answers = run(both())
    code = server.stop()

    failed = [answer for answer in answers if answer.status != 200]
    strange = [
        answer for answer in answers if answer not in failed and not reloading.was_served(answer)
    ]
    by_version: dict[str, set[bytes]] = {}
    for answer in answers:
        if answer.status == 200:
            version, body = answer.kept  # type: ignore[misc]
            by_version.setdefault(version, set()).add(body)
    differing = sum(len(bodies) != 1 for bodies in by_version.values())
    found.note("predictions", len(answers))
    found.note("versions seen in answers", len(by_version))
    found.require(
        "reloads that went otherwise", "; ".join(reloading.wrong) or 0, "0", not reloading.wrong
    )
    found.require("predictions that failed", len(failed), "0", not failed)
    found.require("answers of a version not served then", len(strange), "0", not strange)
    found.require("versions with several answers", differing, "0", differing == 0)
    found.require("exit code", code, "0", code == 0)
    found.note("memory at rest at first, MB", reloading.kept_kb[0] / 1000)
    found.note("memory at rest at the end, MB", reloading.kept_kb[-1] / 1000)
    found.note("memory at most, MB", max(reloading.memory_kb) / 1000)
    if LONG:  # the short form only warms up
        slope = growth_per_item(reloading.kept_kb, window=WINDOW)
        found.require("growth, kB a reload", slope, "≤ 50", slope <= 50)
    found.check()

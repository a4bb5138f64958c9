"""The model is exchanged under load, again and again, and every third file is no good."""

import asyncio
import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from model import load_checkpoint, save_checkpoint
from model.checkpoint import BUNDLED, Checkpoint
from tests.support.checkpoints import spoil
from tests.support.figures import Figures
from tests.support.load import Address, Answer, Load, digest, run
from tests.support.process import rss_kb
from tests.support.server import Server
from tests.support.traffic import form, get, post
from tests.system.soak.conftest import LONG, address, choose, progress

pytestmark = pytest.mark.soak

# Three times as many as are asked for: rests scatter by 10 MB, and of 200 reloads that alone could
# be taken for 60 kB a reload.
RELOADS = choose(12, 600)
DRAWS = 100
WINDOW = 10
ENOUGH = 10  # rests, for a growth to be told
REST_S = 2.0  # the service gives back a model's memory a second after it was replaced
KEY = "a key of no importance"
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


def another(shipped: Checkpoint, i: int) -> Checkpoint:
    """The shipped weights with another rule, which makes it another version."""
    rule = dataclasses.replace(shipped.selective, threshold=1 + i / 1000)
    return dataclasses.replace(shipped, selective=rule)


def break_file(path: Path, i: int) -> None:
    """Leave something at the path that is no usable checkpoint, each time of another kind."""
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
    """One service whose file is exchanged; `reigns` is what it has served, and when."""

    def __init__(self, server: Server, path: Path) -> None:
        self.address: Address = address(server)
        self.pid = server.process.pid
        self.path, self.shipped = path, load_checkpoint(BUNDLED)
        self.reigns: list[Reign] = []
        self.memory_kb: list[int] = []  # after each reload
        self.kept_kb: list[int] = []  # after every tenth, when the models before are gone
        self.wrong: list[str] = []

    async def exchange(self, number: int) -> None:
        """Put one file after the other in place, by turns watched and posted."""
        with progress(number, "reloads") as bar:
            for i in range(number):
                await self._exchange_once(i)
                self.memory_kb.append(rss_kb(self.pid))
                if (i + 1) % WINDOW == 0:
                    await asyncio.sleep(REST_S)
                    self.kept_kb.append(rss_kb(self.pid))
                bar.update()

    async def _exchange_once(self, i: int) -> None:
        broken, posted = i % 3 == 2, i % 2 == 0
        began, version = time.monotonic(), ""
        if broken:
            break_file(self.path, i)
        else:
            checkpoint = another(self.shipped, i)
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
            seen = body["version"] == version if version else body["refresh_error"] is not None
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


def warm(kept_kb: list[int]) -> int:
    """Which rest is the first after the warm-up."""
    return len(kept_kb) // 4


def slope_kb(kept_kb: list[int]) -> float:
    """Growth for each reload, by least squares, after a quarter of the reloads to warm up.

    How much is held between two reloads says little: it differs by tens of MB, since a new model is
    made beside the old. What stays shows in the rests.

    Raises:
        ValueError: If there are too few of them to tell.
    """
    later = kept_kb[warm(kept_kb) :]
    if len(later) < ENOUGH:
        raise ValueError(f"{len(later)} rests after the warm-up say nothing of a growth")
    return float(np.polyfit(np.arange(len(later)), later, 1)[0]) / WINDOW


def test_a_growth_is_measured_after_the_warm_up_and_never_from_too_little() -> None:
    warming, growing = [100, 900, 950, 990], [1000 + 50 * WINDOW * i for i in range(12)]
    assert slope_kb(warming + growing) == pytest.approx(50)
    with pytest.raises(ValueError, match="1 rests"):
        slope_kb([1000])


def test_reloads_under_load_cost_no_answer_and_no_memory(
    make_server: Callable[..., Server],
    seven_png: bytes,
    tmp_path: Path,
    figures: Callable[[str], Figures],
) -> None:
    found = figures(f"{RELOADS} reloads under load, a third of them broken")
    path = tmp_path / "digits.safetensors"
    save_checkpoint(another(load_checkpoint(BUNDLED), -1), path)
    server = make_server(
        device="cpu", checkpoint=path, draws=DRAWS, watch_interval_s=0.05, api_key=KEY
    )
    reloading = Reloading(server, path)
    reloading.reigns.append(Reign(load_checkpoint(path).version(DRAWS), 0.0))

    async def both() -> list[Answer]:
        over = asyncio.Event()
        load = Load(reloading.address, [form("/predict", seven_png)], read=version_and_digest)
        asking = asyncio.create_task(load.closed_loop(8, until=over))
        await reloading.exchange(RELOADS)
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
    first = warm(reloading.kept_kb)
    found.note(f"memory kept after {(first + 1) * WINDOW}, MB", reloading.kept_kb[first] / 1000)
    found.note("memory kept at the end, MB", reloading.kept_kb[-1] / 1000)
    found.note("memory at most, MB", max(reloading.memory_kb) / 1000)
    if LONG:  # the short form only warms up
        slope = slope_kb(reloading.kept_kb)
        found.require("growth, kB a reload", slope, "≤ 50", slope <= 50)
    found.check()

"""Rollouts and failures on a cluster, under load: every answer is whole and of one version."""

import asyncio
import contextlib
import dataclasses
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from model import load_checkpoint, save_checkpoint
from model.checkpoint import BUNDLED
from tests.support.images import crossed_strokes, drawn_seven, encoded
from tests.support.ray.cluster import DEFAULTS, Cluster, Json
from tests.support.service.raw_http import head
from tests.support.service.server import start_service, wait_until_ready

IMAGES = [encoded(drawn_seven()), encoded(drawn_seven(60, ink=250, paper=5)), crossed_strokes()]
# Where Ray has lost the replica amid a request it answers 500, without a word of ours; and 503
# where it knows of none.
RETRIED = {500, 503}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two files whose answers differ in every number, and one that is cut off."""
    folder = tmp_path_factory.mktemp("weights")
    files = {name: folder / f"{name}.safetensors" for name in ("old", "new", "broken")}
    bundled = load_checkpoint(BUNDLED)
    save_checkpoint(bundled, files["old"])
    posterior = dataclasses.replace(bundled.posterior, seed=bundled.posterior.seed + 1)
    other = dataclasses.replace(bundled, posterior=posterior, digest=posterior.digest())
    save_checkpoint(other, files["new"])
    files["broken"].write_bytes(BUNDLED.read_bytes()[:100_000])
    return files


@pytest.fixture(scope="module")
def answers(
    weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[bytes]]:
    """What the service by itself answers to `IMAGES` with either file, to the last byte."""
    found = {}
    for name in ("old", "new"):
        folder = tmp_path_factory.mktemp(name)
        server = start_service(folder / "log.txt", folder, checkpoint=weights[name], **DEFAULTS)
        try:
            wait_until_ready(server)
            with server.client() as client:
                found[name] = [
                    client.post("/predict", files={"file": picture}).content for picture in IMAGES
                ]
        finally:
            server.stop()
    assert not set(found["old"]) & set(found["new"])
    return found


@dataclass
class Load:
    """Clients that send images by turns, and repeat requests that Ray has lost.

    The load generator of the soak tests needs a `Content-Length`, which Ray's own answers lack.

    Attributes:
        right: Answers by version, each with the times of its request and itself.
        wrong: Other answers with status 200.
        lost: Requests that a client gave up.
        again: Answers that were no 200, by status; 0 for none.
    """

    address: str
    answers: dict[str, list[bytes]]
    concurrency: int = 6
    right: list[tuple[str, float, float]] = field(default_factory=list)
    wrong: list[bytes] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    again: Counter[int] = field(default_factory=Counter)

    def versions(self) -> Counter[str]:
        return Counter(version for version, _, _ in self.right)

    async def ask_on(self, over: asyncio.Event) -> None:
        limits = httpx.Limits(max_connections=self.concurrency)
        async with httpx.AsyncClient(base_url=self.address, limits=limits, timeout=30) as client:

            async def one(offset: int) -> None:
                while not over.is_set():
                    await self._ask(client, offset % len(IMAGES))
                    offset += 1

            await asyncio.gather(*(one(i) for i in range(self.concurrency)))

    async def _ask(self, client: httpx.AsyncClient, i: int) -> None:
        began = time.monotonic()
        while time.monotonic() - began < 60:
            status, body = 0, b""
            with contextlib.suppress(httpx.TransportError):
                given = await client.post("/predict", files={"file": IMAGES[i]})
                status, body = given.status_code, given.content
            if status == 200:
                of = [name for name, bodies in self.answers.items() if bodies[i] == body]
                if of:
                    self.right.append((of[0], began, time.monotonic()))
                else:
                    self.wrong.append(body)
                return
            self.again[status] += 1
            if status not in RETRIED | {0}:
                break
            await asyncio.sleep(0.1)
        self.lost.append(f"{status} {body!r}")

    def check(self) -> None:
        """Nothing wrong and nothing lost, of a good many."""
        print(self.versions(), "asked again:", dict(self.again))
        assert not self.wrong
        assert not self.lost
        assert len(self.right) > 50


def under_load(
    load: Load, happening: Callable[[], Any], *, before_s: float = 1, after_s: float = 1
) -> Any:
    """Let something happen beside the load; returns what it returns."""

    async def both() -> Any:
        over = asyncio.Event()
        asking = asyncio.create_task(load.ask_on(over))
        try:
            await asyncio.sleep(before_s)
            found = await asyncio.to_thread(happening)
            await asyncio.sleep(after_s)
        finally:
            over.set()
            await asking
        return found

    return asyncio.run(both())


def of_all_replicas(cluster: Cluster, path: str, n: int = 40) -> list[dict[str, Any]]:
    """What is answered to a question that is asked so often that each replica is."""
    with httpx.Client(base_url=cluster.address, timeout=30) as client:
        return [client.get(path).json() for _ in range(n)]


@pytest.fixture
def deployed(cluster: Cluster, weights: dict[str, Path]) -> Iterator[Cluster]:
    """Two replicas that serve the old weights; what comes of them is of no concern to others."""
    cluster.changed()
    cluster.deploy(DEFAULTS, 2, deployment={"user_config": {"checkpoint": str(weights["old"])}})
    yield cluster
    cluster.changed()


def until_told(cluster: Cluster, name: str, value: float) -> None:
    """Wait until Ray's own metrics say the same of each replica."""
    replicas = {replica["replica_id"] for replica in cluster.do("status")["replicas"]}
    deadline = time.monotonic() + 20
    found: dict[str, float] = {}
    while found != dict.fromkeys(replicas, value):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
        found = {
            sample.labels["replica"]: sample.value
            for family in text_string_to_metric_families(cluster.do("metrics"))
            for sample in family.samples
            if sample.name == f"ray_{name}" and sample.labels["replica"] in replicas
        }


def pids(status: dict[str, Any]) -> set[int]:
    return {replica["pid"] for replica in status["replicas"]}


def test_new_weights_are_rolled_out_under_load_without_a_restart(
    deployed: Cluster, weights: dict[str, Path], answers: dict[str, list[bytes]]
) -> None:
    before = deployed.do("wait", replicas=2)
    load = Load(deployed.address, answers)

    def rolled_out() -> tuple[float, float, dict[str, Any]]:
        began = time.monotonic()
        for name in ("new", "old", "new", "old", "new"):
            deployed.do("roll_out", user_config={"checkpoint": str(weights[name])})
        after = deployed.do("wait", replicas=2)
        return began, time.monotonic(), after

    began, ended, after = under_load(load, rolled_out)
    load.check()
    assert not load.again
    assert pids(after) == pids(before)
    assert set(load.versions()) == {"old", "new"}
    # Old before it began, new after it had ended; in between either.
    assert {version for version, _, given in load.right if given < began} == {"old"}
    assert {version for version, asked, _ in load.right if asked > ended} == {"new"}
    described = of_all_replicas(deployed, "/model")
    assert len({model["version"] for model in described}) == 1
    assert {model["reload_error"] for model in described} == {None}


def test_unusable_weights_change_nothing_and_every_replica_says_why(
    deployed: Cluster, weights: dict[str, Path], answers: dict[str, list[bytes]]
) -> None:
    before = deployed.do("wait", replicas=2)
    load = Load(deployed.address, answers)

    def rolled_out() -> dict[str, Any]:
        broken = {"checkpoint": str(weights["broken"])}
        for config in (broken, {"chekpoint": "misspelt"}, broken):
            status: dict[str, Any] = deployed.do("roll_out", user_config=config)
            assert status["application"][0] == "RUNNING", status
        settled: dict[str, Any] = deployed.do("wait", replicas=2)
        return settled

    after = under_load(load, rolled_out)
    load.check()
    assert not load.again
    assert pids(after) == pids(before)
    assert set(load.versions()) == {"old"}
    described = of_all_replicas(deployed, "/model")
    errors = {model["reload_error"] for model in described}
    assert len(errors) == 1
    assert "broken.safetensors" in errors.pop()
    until_told(deployed, "mnn_rollout_rejected", 1)
    # One that takes a lost one's place has nothing to go on with: Ray says why it cannot start.
    deployed.do("kill_replica", pid=next(iter(pids(after))))
    said = deployed.do("wait_for_message", text="broken.safetensors")
    assert "RUNNING" in {replica["state"] for replica in said["replicas"]}
    last = Load(deployed.address, answers)
    under_load(last, lambda: None)
    last.check()
    assert set(last.versions()) == {"old"}
    # And the way back.
    deployed.do("roll_out", user_config={"checkpoint": str(weights["new"])})
    deployed.do("wait", replicas=2)
    described = of_all_replicas(deployed, "/model")
    assert {model["reload_error"] for model in described} == {None}
    assert len({model["version"] for model in described}) == 1
    until_told(deployed, "mnn_rollout_rejected", 0)


def test_a_replica_killed_under_load_loses_no_request_that_is_repeated(
    deployed: Cluster, answers: dict[str, list[bytes]]
) -> None:
    before = deployed.do("wait", replicas=2)
    killed = before["replicas"][0]["pid"]
    load = Load(deployed.address, answers)

    def kill() -> dict[str, Any]:
        deployed.do("kill_replica", pid=killed)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status: dict[str, Any] = deployed.do("wait", replicas=2)
            if killed not in pids(status):
                return status
            time.sleep(0.1)
        pytest.fail(f"it was not replaced: {status}")

    after = under_load(load, kill)
    load.check()
    assert set(load.versions()) == {"old"}
    assert len(pids(after) & pids(before)) == 1


def test_a_node_lost_under_load_loses_no_request_that_is_repeated(
    deployed: Cluster, answers: dict[str, list[bytes]]
) -> None:
    before = deployed.do("wait", replicas=2)
    lost = before["replicas"][0]["node_id"]
    load = Load(deployed.address, answers)

    def replace() -> dict[str, Any]:
        deployed.do("remove_node", node_id=lost)
        time.sleep(2)
        deployed.do("add_node")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status: dict[str, Any] = deployed.do("wait", replicas=2)
            if lost not in {replica["node_id"] for replica in status["replicas"]}:
                return status
            time.sleep(0.1)
        pytest.fail(f"it was not replaced: {status}")

    under_load(load, replace)
    load.check()
    assert set(load.versions()) == {"old"}


def test_replicas_scale_with_the_load(
    cluster: Cluster, weights: dict[str, Path], answers: dict[str, list[bytes]]
) -> None:
    cluster.changed()
    quick = {
        "min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 2,
        "upscale_delay_s": 1, "downscale_delay_s": 3, "look_back_period_s": 3,
    }  # fmt: skip
    cluster.deploy(
        DEFAULTS,
        1,
        max_replicas=2,
        deployment={
            "user_config": {"checkpoint": str(weights["old"])},
            "autoscaling_config": quick,
        },
    )
    load = Load(cluster.address, answers, concurrency=8)
    began = time.monotonic()
    status = under_load(load, lambda: cluster.do("wait", replicas=2), after_s=2)
    up_s = time.monotonic() - began
    assert len(status["replicas"]) == 2
    load.check()
    assert not load.again
    began = time.monotonic()
    few = Load(cluster.address, answers, concurrency=1)
    under_load(few, lambda: cluster.do("wait", replicas=1))
    few.check()
    assert not few.again
    print(f"up in {up_s:.1f} s, down in {time.monotonic() - began:.1f} s")
    cluster.changed()


def test_requests_beyond_the_queue_are_429_with_retry_after(
    cluster: Cluster, seven_png: bytes
) -> None:
    cluster.changed()
    cluster.deploy(DEFAULTS, 1, max_ongoing_requests=1, max_queued_requests=1)
    with httpx.Client(base_url=cluster.address, timeout=30) as client:

        def ask(_: int) -> httpx.Response:
            return client.post("/predict", files={"file": seven_png})

        with ThreadPoolExecutor(16) as pool:
            given = list(pool.map(ask, range(160)))
        after = ask(0)
    refused = [answer for answer in given if answer.status_code != 200]
    assert 0 < len(refused) < len(given)
    for answer in refused:
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"].startswith("text/plain")  # Ray's words, no problem
        assert answer.headers["x-request-id"]
    assert after.status_code == 200
    cluster.changed()


def log_lines(cluster: Cluster) -> list[Json]:
    """What replicas have logged since the cluster is there."""
    logs = cluster.temporary.glob("ray/session_2*/logs/worker-*.err")
    text = "".join(log.read_text() for log in logs)
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def faults(cluster: Cluster) -> str:
    return "\n".join(line["exception"] for line in log_lines(cluster) if "exception" in line)


def ask_and_find_logged(cluster: Cluster, picture: bytes, request_id: str) -> Json:
    """The line of an answered request."""
    with httpx.Client(base_url=cluster.address, timeout=30) as client:
        for name in (request_id, f"{request_id}-after"):
            client.post("/predict", files={"file": picture}, headers={"X-Request-ID": name})
    deadline = time.monotonic() + 10
    while f"{request_id}-after" not in {line.get("request_id") for line in log_lines(cluster)}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (line,) = [line for line in log_lines(cluster) if line.get("request_id") == request_id]
    return line


@pytest.mark.parametrize("path", ["/predict", "/model/reload"])  # the latter answers before
def test_a_client_that_leaves_amid_its_body_is_no_error(
    cluster: Cluster, seven_png: bytes, path: str
) -> None:
    cluster.deploy(DEFAULTS, 1)
    url = httpx.URL(cluster.address)
    for _ in range(5):
        with socket.create_connection((url.host, url.port or 80), timeout=20) as sock:
            sock.sendall(head(path, "Content-Length: 5000000", "Connection: close") + b"x")
            if path == "/model/reload":
                assert sock.recv(12) == b"HTTP/1.1 403"
            time.sleep(0.1)
    ask_and_find_logged(cluster, seven_png, f"beside-those-that-left{path.replace('/', '-')}")
    assert faults(cluster) == ""


def test_replicas_log_as_the_service_does(cluster: Cluster, seven_png: bytes) -> None:
    cluster.deploy(DEFAULTS, 1)
    line = ask_and_find_logged(cluster, seven_png, "logged")
    assert line["logger"] == "service.access"
    assert (line["route"], line["status"], line["accepted"]) == ("/predict", 200, 1)
    # Whatever these tests have done, nothing of it was a fault.
    assert faults(cluster) == ""

"""The containers on a Docker engine, by the documented commands.

They run in a Compose project of their own, which is removed again.
"""

import hashlib
import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from PIL import Image, ImageDraw

from model.checkpoint import BUNDLED
from tests.support.paths import ROOT

PROJECT = "maybe-test"
USER = "10001:10001"
FOLDER = "/srv/checkpoints"
CHECKPOINT = "checkpoints/digits.safetensors"
# Half a second of training: the weights are poor, the file is whole.
TRAIN = (
    "training", "--dataset", "digits", "--epochs", "1", "--brief", "--force",
    "--output", CHECKPOINT,
)  # fmt: skip


class Compose:
    """`docker compose` in the test's own project, with settings of the documented kind."""

    def __init__(self, **settings: str) -> None:
        self.settings = settings

    def __call__(
        self, *arguments: str, code: int = 0, timeout: float = 900
    ) -> subprocess.CompletedProcess[str]:
        """Run a command and check its exit code; standard output and error come together."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("MNN_")}
        defaults = {"MNN_PUBLISH": "127.0.0.1:", "MNN_RELOAD_POLL_INTERVAL_S": "0.2"}
        done = subprocess.run(
            ["docker", "compose", "--project-name", PROJECT, "--ansi", "never", *arguments],
            cwd=ROOT,
            env={**inherited, **defaults, **self.settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done

    def train(self, *arguments: str, code: int = 0) -> str:
        return self("run", "--rm", "--no-TTY", *(arguments or TRAIN), code=code).stdout

    def containers(self) -> list[str]:
        return self("ps", "--all", "--quiet", "service").stdout.split()


def docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def inspect(container: str, template: str) -> Any:
    return json.loads(docker("inspect", "--format", "{{json " + template + "}}", container))


def address(container: str) -> str:
    host = docker("port", container, "8000/tcp").splitlines()[0]
    return f"http://{host}"


def described(container: str) -> dict[str, Any]:
    answer = httpx.get(f"{address(container)}/model", timeout=10)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def until(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def in_volume(command: str, *, user: str = USER, volume: str = f"{PROJECT}_checkpoints") -> str:
    """Run a shell command in the folder of a volume."""
    return docker(
        "run", "--rm", "--user", user, "--volume", f"{volume}:{FOLDER}", "--workdir", FOLDER,
        "--entrypoint", "sh", f"{PROJECT}-training", "-c", command,
    )  # fmt: skip


def put_in_volume(data: bytes) -> None:
    """Write the checkpoint's file as training does: beside it, then renamed."""
    subprocess.run(
        [
            "docker", "run", "--rm", "--interactive", "--user", USER,
            "--volume", f"{PROJECT}_checkpoints:{FOLDER}", "--workdir", FOLDER,
            "--entrypoint", "sh", f"{PROJECT}-training",
            "-c", "cat > new && mv new digits.safetensors",
        ],
        input=data, check=True, timeout=60,
    )  # fmt: skip


@pytest.fixture(scope="module")
def images() -> Iterator[None]:
    """The images of service and training, built as `docker compose build` builds them."""
    try:
        found = subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=60)
        missing = found.returncode != 0
    except FileNotFoundError:
        missing = True
    if missing:
        reason = "no Docker engine answers here"
        if os.environ.get("MNN_REQUIRE_DOCKER"):
            pytest.fail(reason)
        pytest.skip(reason)
    compose = Compose()
    compose("--profile", "training", "build", timeout=900)
    yield
    compose("--profile", "training", "down", "--volumes", "--rmi", "local")


@pytest.fixture
def compose(images: None) -> Iterator[Compose]:  # noqa: ARG001 - for its effect
    """The project without a container or a volume, before and after."""
    compose = Compose()
    compose("down", "--volumes", "--remove-orphans")
    yield compose
    compose("down", "--volumes", "--remove-orphans")


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("image", ["service", "training"])
def test_an_image_has_a_user_without_a_name_and_no_tools(image: str) -> None:
    name = f"{PROJECT}-{image}"
    config = json.loads(docker("inspect", "--format", "{{json .Config}}", name))
    assert config["User"] == USER
    assert config["Labels"]["org.opencontainers.image.title"] == "Maybe Neural Network"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "MIT"
    look = "command -v pip gcc make git; python -c 'import pip' 2>&1; ls /build"
    found = docker("run", "--rm", "--entrypoint", "sh", name, "-c", f"{look}; true")
    assert "ModuleNotFoundError" in found
    assert "/" not in found.replace("/build", "")


def test_up_serves_the_bundled_weights_locked_down(compose: Compose) -> None:
    compose("up", "--wait", "--no-build")
    (container,) = compose.containers()
    body = described(container)
    assert body["source"] == "shipped"
    with (ROOT / "docs" / "examples" / "seven.png").open("rb") as file:
        answer = httpx.post(f"{address(container)}/predict", files={"file": file}, timeout=30)
    assert (answer.json()["prediction"], answer.json()["decision"]) == ("7", "accept")

    status = docker("exec", container, "cat", "/proc/1/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(facts["Uid"].split()) == {"10001"}
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0
    assert facts["NoNewPrivs"] == "1"
    for folder in ("/srv", "/srv/checkpoints", "/usr/local"):
        done = subprocess.run(
            ["docker", "exec", container, "touch", f"{folder}/x"], capture_output=True, check=False
        )
        assert b"Read-only file system" in done.stderr
    docker("exec", container, "touch", "/tmp/x")
    limits = inspect(container, ".HostConfig")
    assert limits["NanoCpus"] == 2e9
    assert limits["Memory"] == 2**30
    assert limits["PidsLimit"] == 256


def test_worker_threads_follow_the_granted_cpus_and_the_memory_suffices(compose: Compose) -> None:
    compose.settings["MNN_CPUS"] = "1"
    compose("up", "--wait", "--no-build")
    (container,) = compose.containers()
    assert described(container)["worker_threads"] == 1

    # The default, and more of the largest accepted images at once than there are worker threads.
    del compose.settings["MNN_CPUS"]
    compose.settings["MNN_REQUEST_TIMEOUT_S"] = "60"  # memory counts here, not time
    compose("up", "--wait", "--no-build")
    (container,) = compose.containers()
    assert described(container)["worker_threads"] == min(2, len(os.sched_getaffinity(0)))
    image = Image.new("RGBA", (5000, 5000), (250, 250, 250, 255))
    ImageDraw.Draw(image).line([(2500, 1000), (2500, 4000)], (10, 10, 10, 255), width=300)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")

    def ask(_: int) -> int:
        url = f"{address(container)}/predict"
        return httpx.post(url, files={"file": buffer.getvalue()}, timeout=60).status_code

    with ThreadPoolExecutor(6) as clients:
        assert set(clients.map(ask, range(6))) == {200}
    assert inspect(container, ".State.OOMKilled") is False
    assert inspect(container, ".RestartCount") == 0


def test_training_updates_every_running_service_without_a_restart(compose: Compose) -> None:
    compose("up", "--wait", "--no-build", "--scale", "service=2")
    containers = compose.containers()
    assert len(containers) == 2
    started = [inspect(container, ".State.StartedAt") for container in containers]
    assert {described(container)["source"] for container in containers} == {"shipped"}

    written = compose.train()
    for container in containers:
        until(lambda c=container: described(c)["source"] == "file", "not reloaded")
    versions = {described(container)["version"] for container in containers}
    assert len(versions) == 1
    assert f"version {versions.pop()}" in written
    assert [inspect(container, ".State.StartedAt") for container in containers] == started

    # Back to the bundled weights, as the documents say.
    compose.train("--entrypoint", "rm", "training", CHECKPOINT)
    for container in containers:
        until(lambda c=container: described(c)["source"] == "shipped", "not reset")


def test_training_may_come_first(compose: Compose) -> None:
    compose.train()
    assert in_volume("stat -c %u:%g . digits.safetensors").split() == [USER, USER]
    compose("up", "--wait", "--no-build")
    (container,) = compose.containers()
    assert described(container)["source"] == "file"


def test_a_damaged_checkpoint_changes_nothing_and_is_reported(compose: Compose) -> None:
    compose("up", "--wait", "--no-build")
    (container,) = compose.containers()
    good = described(container)["version"]
    put_in_volume(BUNDLED.read_bytes()[:100_000])
    until(lambda: described(container)["reload_error"] is not None, "not reported")
    body = described(container)
    assert body["version"] == good
    assert body["reload_error"].startswith("digits.safetensors: not a whole safetensors file")
    assert "the new checkpoint was rejected" in compose("logs", "service").stdout

    # A start with it fails instead of serving something else.
    compose("stop")
    docker("start", container)
    reason = f"cannot serve: {CHECKPOINT}: not a whole safetensors file"
    until(lambda: reason in compose("logs", "service").stdout, "not rejected")
    put_in_volume(BUNDLED.read_bytes())  # the next restart serves
    until(lambda: inspect(container, ".State.Health.Status") == "healthy", "not recovered", 90)
    assert described(container)["source"] == "file"


def test_a_read_only_volume_is_reported_and_its_weights_kept(compose: Compose) -> None:
    compose("create", "--no-build")  # makes the volume
    put_in_volume(BUNDLED.read_bytes())
    in_volume("chown -R 0:0 . && chmod 755 .", user="0:0")
    said = compose.train(code=1)
    assert "error: could not write checkpoints/digits.safetensors: user 10001 may not write" in said
    assert "Traceback" not in said
    assert digest_in_volume() == hashlib.sha256(BUNDLED.read_bytes()).hexdigest()
    compose("up", "--wait", "--no-build")  # and they can still be served
    (container,) = compose.containers()
    assert described(container)["source"] == "file"


def digest_in_volume() -> str:
    return in_volume("sha256sum digits.safetensors").split()[0]


def test_a_full_disk_is_reported_and_loses_nothing(compose: Compose) -> None:
    # A disk of 1.5 MB that holds the weights being served and something else. What is left is
    # enough for the state after an epoch (304 kB), and not for the new weights (103 kB) beside it.
    volume = f"{PROJECT}_checkpoints"
    docker(
        "volume", "create", "--driver", "local", "--label", f"com.docker.compose.project={PROJECT}",
        "--label", "com.docker.compose.volume=checkpoints", "--opt", "type=tmpfs",
        "--opt", "device=tmpfs", "--opt", "o=size=1500k,uid=10001,gid=10001", volume,
    )  # fmt: skip
    compose("up", "--wait", "--no-build")  # keeps it mounted
    bundled = BUNDLED.read_bytes()
    put_in_volume(bundled)
    in_volume(f"head -c {(1500 - 385) * 1024 - len(bundled)} /dev/zero > other")
    before = digest_in_volume()
    said = compose.train(code=1)
    assert "the disk that holds checkpoints is full" in said
    assert "Traceback" not in said
    assert digest_in_volume() == before
    files = in_volume("ls -A").split()
    assert sorted(files) == ["digits.safetensors", "digits.unfinished.safetensors", "other"]

    in_volume("rm other")
    said = compose.train()
    assert "continuing the unfinished run after epoch 1 of 1" in said
    assert digest_in_volume() != before


def test_it_restarts_after_a_kill_and_stops_within_the_grace_period(compose: Compose) -> None:
    compose("up", "--wait", "--no-build")
    (container,) = compose.containers()
    os.kill(inspect(container, ".State.Pid"), signal.SIGKILL)
    until(lambda: inspect(container, ".RestartCount") == 1, "not restarted")
    until(lambda: inspect(container, ".State.Health.Status") == "healthy", "not healthy again")
    compose("stop")  # a process that outlasts the grace period is killed: 137
    assert inspect(container, ".State.ExitCode") == 0


@pytest.mark.mnist
def test_training_reads_mnist_from_a_mounted_folder(compose: Compose, mnist_root: Path) -> None:
    compose.settings["MNN_DATA_DIR"] = str(mnist_root.resolve())
    container = f"{PROJECT}-mnist"
    compose("run", "--detach", "--name", container, "training", "--epochs", "1", "--brief")
    try:  # the fit itself is the same as on other data
        until(
            lambda: "preprocessing 47,000 images to fit" in docker("logs", container),
            "MNIST not read",
            120,
        )
    finally:
        docker("rm", "--force", container)


@pytest.mark.usefixtures("images")
def test_training_without_data_or_network_says_what_to_do() -> None:
    name = f"{PROJECT}-training"
    done = subprocess.run(
        ["docker", "run", "--rm", "--read-only", "--network", "none", name],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")


@pytest.mark.usefixtures("images")
def test_the_overlay_for_a_gpu_selects_the_image_with_cuda() -> None:
    gpu = Compose()
    files = ("--file", "docker-compose.yml", "--file", "compose.gpu.yml")
    merged = yaml.safe_load(gpu(*files, "--profile", "training", "config").stdout)
    for name, target in (("service", "service-cuda"), ("training", "training")):
        service = merged["services"][name]
        assert service["build"]["target"] == target
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
        assert service["read_only"] is True
    # Where there is no GPU the image starts all the same, on the CPU.
    gpu(*files, "build", "service", timeout=600)
    image = merged["services"]["service"]["image"]
    code = "from model import load; c = load(); print(c.engine.device, c.version)"
    assert docker("run", "--rm", image, "python", "-c", code).split()[0] in ("cpu", "cuda")

"""A clean clone: `make serve` installs little and answers; pip installs every file."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.support.service.server import Server

MAX_ENVIRONMENT_MB = 350


@pytest.fixture(scope="module")
def served(
    clone: Path,
    make_serve: Callable[..., AbstractContextManager[Server]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    start_s = time.monotonic()
    with make_serve(clone, tmp_path_factory.mktemp("log") / "log.txt") as server:
        print(f"make serve was ready after {time.monotonic() - start_s:.0f} s")
        yield server


def test_make_serve_installs_and_answers(served: Server, clone: Path) -> None:
    readme = (clone / "README.md").read_text()
    (line,) = re.findall(r"^curl .*$", readme, re.MULTILINE)
    arguments = shlex.split(line)
    (part,) = (argument for argument in arguments if argument.startswith("file=@"))
    with (clone / part.removeprefix("file=@")).open("rb") as file:
        address = arguments[-1].replace("http://127.0.0.1:8000", served.url)
        answer = httpx.post(address, files={"file": file}, timeout=30).json()
    (printed,) = re.findall(r"```json\n(.*?)```", readme, re.DOTALL)
    assert answer["prediction"] == json.loads(printed)["prediction"]
    assert answer["model"] == json.loads(printed)["model"]


@pytest.mark.usefixtures("served")
def test_the_environment_is_small_and_without_pytorch(clone: Path) -> None:
    size = sum(path.lstat().st_blocks * 512 for path in (clone / ".venv").rglob("*"))
    print(f".venv holds {size / 2**20:.0f} MB")
    assert size / 2**20 <= MAX_ENVIRONMENT_MB
    assert not list((clone / ".venv").glob("lib/*/site-packages/torch"))


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("module", ["training.run", "training.evaluate", "training.baselines"])
def test_training_without_pytorch_says_in_one_line_what_to_install(
    clone: Path, clean_environment: dict[str, str], module: str
) -> None:
    done = subprocess.run(
        [clone / ".venv" / "bin" / "python", "-m", module],
        cwd=clone,
        env=clean_environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "pip install 'maybe-neural-network[training]'" in line


def tracked(clone: Path) -> set[str]:
    """Files of the distributed packages: all of three folders, the modules of the fourth."""
    listed = subprocess.run(
        ["git", "ls-files", "deploy/*.py", "model", "service", "training"],
        cwd=clone, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return set(listed.stdout.splitlines())


def test_pip_installs_every_package_and_data_file(clone: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "-w", tmp_path, clone], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == tracked(clone)

    # Into a folder of its own, with the dependencies that the tests already have.
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--target", site, wheel], check=True)
    code = (
        "import model, service, training; from model import load;"
        f"assert model.__file__.startswith({str(site)!r});"
        f"print(load().predict({str(clone / 'docs/examples/seven.png')!r}).prediction)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == "7"

"""The commands of `make` beside `make serve`, in the environment of the tests."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.support.paths import ROOT
from tests.support.service.server import Server

Make = Callable[..., str]


@pytest.fixture
def make(clean_environment: dict[str, str]) -> Make:
    """`make` in this environment, which already holds what the targets install."""
    if not (Path(sys.prefix) / ".dev").exists():
        pytest.skip("make has not made the environment of these tests")

    def run(*arguments: str) -> str:
        return subprocess.run(
            ["make", f"VENV={sys.prefix}", *arguments],
            cwd=ROOT,
            env=clean_environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        ).stdout

    return run


def test_make_trains_and_serves_the_result(
    make: Make,
    make_serve: Callable[..., AbstractContextManager[Server]],
    tmp_path: Path,
) -> None:
    output = tmp_path / "x.safetensors"
    said = make("train", f"ARGS=--dataset digits --epochs 2 --brief --force --output {output}")
    assert "A short run, 2 of the usual" in said
    settings = (f"VENV={sys.prefix}", f"MNN_CHECKPOINT={output}")
    with make_serve(ROOT, tmp_path / "log.txt", *settings) as server:
        assert httpx.get(f"{server.url}/model").json()["source"] == "file"


def test_make_evaluates_a_folder_of_images(make: Make, tmp_path: Path) -> None:
    folder, sheet = tmp_path / "my-pictures", tmp_path / "sheet.png"
    folder.mkdir()
    shutil.copy(ROOT / "docs/examples/seven.png", folder)
    (folder / "manifest.csv").write_text("file,label,kind\nseven.png,7,drawing\n")
    said = make("evaluate", f"ARGS=--images {folder} --sheet {sheet} --draws 10")
    assert re.search(r"drawing +1 +1 +100\.0 % +1 +100\.0 % +0", said)
    assert sheet.exists()

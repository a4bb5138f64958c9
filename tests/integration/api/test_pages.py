"""The web page and its files, over a socket."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from model.checkpoint import BUNDLED
from tests.support.paths import ROOT
from tests.support.service.server import Server

WEB = ROOT / "service" / "static" / "web"


def test_the_page_and_its_files_are_served(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    parts = set(re.findall(r'(?:src|href)="(web/[^"]+)"', page.text))
    assert {"web/main.js", "web/style.css"} <= parts
    while True:  # follow the imports of the modules
        imported = {
            f"web/{name}"
            for part in parts
            if part.endswith(".js")
            for name in re.findall(r'from "\./([^"]+)"', client.get(f"/{part}").text)
        }
        if imported <= parts:
            break
        parts |= imported
    for part in parts:
        assert client.get(f"/{part}").status_code == 200, part
    assert parts | {"web/index.html"} == {f"web/{file.name}" for file in WEB.iterdir()}
    assert sum(file.stat().st_size for file in WEB.iterdir()) < 100_000


def test_the_policy_allows_only_this_service_and_nothing_inline(client: httpx.Client) -> None:
    page = client.get("/")
    policy = dict(
        part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert not re.search(r"<style|<script>|\son\w+=|\sstyle=", page.text)
    for file in WEB.iterdir():
        if file.suffix != ".svg":
            assert not re.search(r"https?://(?!127\.0\.0\.1|www\.w3\.org)", file.read_text())


def test_an_unchanged_file_is_not_sent_again(client: httpx.Client) -> None:
    first = client.get("/web/main.js")
    assert first.headers["Content-Type"] == "text/javascript; charset=utf-8"
    again = client.get("/web/main.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    tag = first.headers["ETag"]
    for known in (f"W/{tag}", f'"another", W/{tag}', f'"x",{tag}', "*"):
        again = client.get("/web/main.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
    for other in ('"another"', tag.strip('"'), f"{tag[:-1]}", "W/", ""):
        answer = client.get("/web/main.js", headers={"If-None-Match": other})
        assert answer.status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fapp.py", "%2e%2e%2fapp.py", "py.typed", ""])
def test_no_other_file_is_served(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/web/{name}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_the_report_of_the_bundled_model_is_served(client: httpx.Client) -> None:
    answer = client.get("/model/report")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "script-src" not in answer.headers["Content-Security-Policy"]  # default: 'none'
    assert "<script" not in answer.text
    assert client.get("/model").json()["version"] in answer.text


@pytest.mark.not_through_ray("on Ray, MNN_CHECKPOINT has no effect")
def test_a_report_is_served_only_with_its_model(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    weights = tmp_path / "mine.safetensors"
    shutil.copy(BUNDLED, weights)
    server = make_server(checkpoint=weights, draws=40)
    with server.client() as client:
        missing = client.get("/model/report")
        assert missing.status_code == 404
        assert "training.evaluate" in missing.json()["detail"]
        weights.with_suffix(".html").write_text("<p>Version 000000000000 of another model</p>")
        assert client.get("/model/report").status_code == 404
        shutil.copy(BUNDLED.with_suffix(".html"), weights.with_suffix(".html"))
        assert client.get("/model/report").status_code == 200  # with fewer draws, too

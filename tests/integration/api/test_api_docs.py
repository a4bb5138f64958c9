"""What `/docs` is made of, as it comes over the socket; tests/page opens it in a browser."""

import gzip
import re
import tomllib

import httpx
import pytest

from tests.support.paths import ROOT

FOLDER = ROOT / "service" / "swagger"
PACKED = ("swagger-ui-bundle.js", "swagger-ui.css")


def test_the_page_and_all_its_parts_come_from_here_under_the_policy(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {"docs/swagger-ui-bundle.js", "docs/swagger-ui.css", "docs/start.js"} <= set(parts)
    assert not [part for part in parts if ":" in part or part.startswith("/")]  # mounted, too
    for part in parts:
        assert client.get(f"/{part}").status_code == 200, part
    policy = page.headers["Content-Security-Policy"]
    assert policy == client.get("/").headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert not re.search(r"<style|<script>|\son\w+=|\sstyle=", page.text)


def test_there_is_no_other_page_of_documents(client: httpx.Client) -> None:
    for path in ("/redoc", "/docs/oauth2-redirect", "/docs/nothing.js", "/docs/VERSION"):
        assert client.get(path).status_code == 404, path


@pytest.mark.parametrize("name", PACKED)
def test_the_tool_is_sent_compressed_to_who_can_read_it_and_plain_to_others(
    client: httpx.Client, name: str
) -> None:
    kept = (FOLDER / f"{name}.gz").read_bytes()
    packed = client.get(f"/docs/{name}")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) == len(kept)
    for accepted in ("gzip;q=0", "br, gzip;q=0.0", "identity, gzip;q=0.5", "notgzip", "identity"):
        plain = client.get(f"/docs/{name}", headers={"Accept-Encoding": accepted})
        assert "Content-Encoding" not in plain.headers
    assert plain.content == packed.content == gzip.decompress(kept)
    assert packed.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
    tag = packed.headers["ETag"]
    assert tag != plain.headers["ETag"]
    assert client.get(f"/docs/{name}", headers={"If-None-Match": tag}).status_code == 304


def test_the_tool_is_small_and_comes_with_its_version_and_its_licence(client: httpx.Client) -> None:
    version = (FOLDER / "VERSION").read_text().strip()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    script = client.get("/docs/swagger-ui-bundle.js").text
    assert f'"{version}"' in script
    assert "Apache License" in (FOLDER / "LICENSE").read_text()
    assert "SmartBear" in (FOLDER / "NOTICE").read_text()
    (others,) = re.findall(r"/\*! For license information please see (\S+) \*/", script)
    assert "MIT" in client.get(f"/docs/{others}").text
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 600_000


def test_the_tool_is_part_of_what_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "swagger/*" in settings["tool"]["setuptools"]["package-data"]["service"]

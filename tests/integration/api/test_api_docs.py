"""`/docs` and its files, over a socket; tests/system/browser opens it in a browser."""

import re
import tomllib

import httpx

from tests.support.paths import ROOT

FOLDER = ROOT / "service" / "static" / "swagger"


def test_the_page_and_its_files_come_from_this_service_under_its_policy(
    client: httpx.Client,
) -> None:
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


def test_there_are_no_other_api_docs(client: httpx.Client) -> None:
    for path in ("/redoc", "/docs/oauth2-redirect", "/docs/nothing.js"):
        assert client.get(path).status_code == 404, path


def test_an_unchanged_file_is_not_sent_again(client: httpx.Client) -> None:
    first = client.get("/docs/swagger-ui.css")
    assert first.headers["Content-Type"] == "text/css; charset=utf-8"
    headers = {"If-None-Match": first.headers["ETag"]}
    assert client.get("/docs/swagger-ui.css", headers=headers).status_code == 304


def test_swagger_ui_comes_with_its_version_and_licence(client: httpx.Client) -> None:
    version = (FOLDER / "VERSION").read_text().strip()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    script = client.get("/docs/swagger-ui-bundle.js").text
    assert f'"{version}"' in script
    assert "Apache License" in (FOLDER / "LICENSE").read_text()
    assert "SmartBear" in (FOLDER / "NOTICE").read_text()
    (others,) = re.findall(r"/\*! For license information please see (\S+) \*/", script)
    assert "MIT" in client.get(f"/docs/{others}").text
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 2_500_000


def test_static_files_are_part_of_the_installed_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "static/*/*" in settings["tool"]["setuptools"]["package-data"]["service"]

"""A real browser and the page in it; tests are skipped, with the reason, where there is none."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.support.service.server import Server

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or what `MNN_BROWSER` names.

    Gone after the last of these tests: as long as it is there, an event loop runs in this thread.
    """
    named = os.environ.get("MNN_BROWSER")
    found = named or next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        reason = f"no browser: none of {', '.join(_NAMES)} is installed (apt-get install chromium)"
        if os.environ.get("MNN_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        # As root Chromium has no sandbox; the only pages are our own, from this machine.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """Open the page of a service, in a window of its own: `open_page(color_scheme="dark")`.

    When the test ends, nothing may have been written to the console as an error (but, if errors are
    expected, that a request failed), no exception may have been left uncaught, and nobody but the
    service may have been asked for anything.
    """
    contexts: list[BrowserContext] = []
    complaints: list[str] = []
    hosts: set[str] = set()
    expected: set[str] = set()

    def make(url: str = server.url, *, expect_errors: bool = False, **options: object) -> Page:
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, **options}  # type: ignore[arg-type]
        )
        contexts.append(context)
        page = context.new_page()

        def on_console(message: ConsoleMessage) -> None:
            failed = message.text.startswith("Failed to load resource")
            if message.type == "error" and not (expect_errors and failed):
                complaints.append(message.text)

        page.on("console", on_console)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        expected.add(urlsplit(url).netloc)
        page.goto(url)
        return page

    yield make
    for context in contexts:
        context.close()
    assert not complaints
    assert hosts - {""} <= expected  # blobs and data have no host


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of the page are written for people to look at (`MNN_SCREENSHOTS`)."""
    named = os.environ.get("MNN_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder

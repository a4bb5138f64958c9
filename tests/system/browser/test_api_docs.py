"""`/docs` in a real browser: shown and tried out, without any other host."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.paths import ROOT
from tests.support.service.api_key import KEY
from tests.support.service.server import Server

SEVEN = ROOT / "docs" / "examples" / "seven.png"

OpenPage = Callable[..., Page]


def operation(page: Page, method: str, path: str) -> Locator:
    """The block of an operation, opened."""
    address = page.locator(f'[data-path="{path}"]')
    block = page.locator(f".opblock-{method}").filter(has=address)
    block.locator(".opblock-summary-control").click()
    return block


def tried_out(block: Locator) -> Locator:
    """Execute an operation, and what then came back."""
    block.get_by_role("button", name="Execute").click()
    live = block.locator(".live-responses-table")
    expect(live).to_be_visible()
    return live


def status(live: Locator) -> Locator:
    return live.locator("tbody .response-col_status")


@pytest.mark.parametrize(
    ("scheme", "ground"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(28, 32, 34)")]
)
def test_an_image_is_tried_out_in_light_and_dark(
    open_page: OpenPage, server: Server, pictures: Path, scheme: str, ground: str
) -> None:
    page = open_page(f"{server.url}/docs", color_scheme=scheme)
    expect(page.get_by_role("heading", name="Maybe Neural Network")).to_be_visible()
    expect(page.locator("html")).to_have_css("background-color", ground)
    expect(page.locator(".opblock").first).to_be_visible()
    page.screenshot(path=pictures / f"docs-{scheme}.png")
    predict = operation(page, "post", "/predict")
    predict.get_by_role("button", name="Try it out").click()
    predict.locator("input[type=file]").set_input_files(SEVEN)
    live = tried_out(predict)
    expect(status(live)).to_contain_text("200")
    expect(live).to_contain_text('"prediction": "7"')
    expect(live).to_contain_text("x-request-id")


def test_several_images_are_tried_out(open_page: OpenPage, server: Server) -> None:
    page = open_page(f"{server.url}/docs")
    batch = operation(page, "post", "/predict/batch")
    batch.get_by_role("button", name="Try it out").click()
    files = batch.locator("input[type=file]")
    for _ in range(2 - files.count()):
        batch.get_by_role("button", name="Add string item").click()
    for i in range(2):
        files.nth(i).set_input_files(SEVEN)
    live = tried_out(batch)
    expect(status(live)).to_contain_text("200")
    expect(live).to_contain_text('"results"')


def test_the_key_is_entered_once_and_sent_with_each_request(
    open_page: OpenPage, make_server: Callable[..., Server]
) -> None:
    server = make_server(device="cpu", draws=40, api_key=KEY, require_api_key=True)
    page = open_page(f"{server.url}/docs", expect_errors=True)
    reload = operation(page, "post", "/model/reload")
    reload.get_by_role("button", name="Try it out").click()
    live = tried_out(reload)
    expect(status(live)).to_contain_text("401")
    page.get_by_role("button", name="Authorize").click()
    dialogue = page.locator(".dialog-ux")
    dialogue.locator("input[type=text], input[type=password]").fill(KEY)
    dialogue.get_by_role("button", name="Apply credentials").click()
    dialogue.get_by_role("button", name="Close").click()
    reload.get_by_role("button", name="Execute").click()
    expect(status(live)).to_contain_text("200")
    expect(live).to_contain_text('"version"')

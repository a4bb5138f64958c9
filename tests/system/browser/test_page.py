"""The page in a real browser, over a real socket, drawn on with real pointer events."""

import base64
import itertools
import re
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from model.uncertainty import summarise
from tests.support.benchmarks import run_benchmark
from tests.support.images import drawn_seven, encoded
from tests.support.paths import ROOT
from tests.support.service.server import Server, start_service, wait_until_ready

SEVEN = [[(0.3, 0.24), (0.5, 0.22), (0.69, 0.22), (0.61, 0.42), (0.53, 0.6), (0.46, 0.82)]]
FOUR = [
    [(0.38, 0.2), (0.34, 0.36), (0.3, 0.52), (0.45, 0.53), (0.7, 0.51)],
    [(0.6, 0.3), (0.59, 0.5), (0.58, 0.84)],
]
EXAMPLES = ROOT / "docs" / "examples"

OpenPage = Callable[..., Page]


def draw(page: Page, strokes: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Draw with the mouse, as a hand does: down, along, up."""
    box = page.locator("#pad").bounding_box()
    assert box is not None
    for stroke in strokes:
        (x, y), *others = stroke
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.mouse.down()
        for x, y in others:
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        page.mouse.up()


def line(page: Page) -> Locator:
    return page.locator("#decision-title")


def example(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=re.compile(f"^{name}"))


def bar(page: Page, label: str) -> Locator:
    return page.locator("#classes tbody tr").filter(has=page.get_by_role("rowheader", name=label))


# From a picture to an answer


@pytest.mark.parametrize(("strokes", "digit"), [(SEVEN, "7"), (FOUR, "4")])
def test_a_digit_that_is_drawn_is_accepted(
    open_page: OpenPage, strokes: list[list[tuple[float, float]]], digit: str
) -> None:
    page = open_page()
    expect(line(page)).to_have_text("Nothing drawn yet")
    draw(page, strokes)
    expect(line(page)).to_have_text(f"{digit}, accepted")
    expect(page.locator("#announcement")).to_contain_text(f"{digit}, accepted")
    expect(bar(page, digit).locator(".mean")).to_contain_text("9")
    assert bar(page, digit).locator(".bar").evaluate("e => parseFloat(e.style.width)") > 95
    expect(page.locator("#hint")).to_be_hidden()


def test_the_answer_comes_while_the_line_grows(open_page: OpenPage) -> None:
    page = open_page()
    box = page.locator("#pad").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 150, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 150, box["y"] + 300, steps=8)
    expect(page.locator("#decision")).not_to_have_attribute("data-state", "empty")
    page.mouse.up()


def test_undo_and_clear_take_back(open_page: OpenPage) -> None:
    page = open_page()
    draw(page, SEVEN)
    expect(line(page)).to_have_text("7, accepted")
    draw(page, [[(0.1, 0.9), (0.9, 0.1)]])
    expect(line(page)).not_to_have_text("7, accepted")
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(line(page)).to_have_text("7, accepted")
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(line(page)).to_have_text("Nothing drawn yet")
    page.get_by_role("button", name="Undo", exact=True).click()  # what was cleared is not lost
    expect(line(page)).to_have_text("7, accepted")


def test_a_picture_is_uploaded(open_page: OpenPage) -> None:
    page = open_page()
    page.locator("#file").set_input_files(EXAMPLES / "seven.png")
    expect(line(page)).to_have_text("7, accepted")
    page.locator("#file").set_input_files(EXAMPLES / "letter.png")
    expect(page.locator("#decision")).to_have_attribute("data-state", "review")


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_a_picture_is_pasted_or_dropped(open_page: OpenPage, event: str) -> None:
    page = open_page()
    data = base64.b64encode(encoded(drawn_seven())).decode()
    page.evaluate(
        """([event, data]) => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], "seven.png", { type: "image/png" }));
          document.getElementById("pad").dispatchEvent(event === "paste"
            ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
            : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }""",
        [event, data],
    )
    expect(line(page)).to_have_text("7, accepted")


def test_a_picture_that_is_none_is_refused_in_words_and_the_drawing_kept(
    open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(expect_errors=True)
    draw(page, SEVEN)
    expect(line(page)).to_have_text("7, accepted")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG and no more")
    page.locator("#file").set_input_files(tmp_path / "broken.png")
    expect(page.locator("#error-text")).to_contain_text("This picture cannot be read: ")
    expect(line(page)).to_have_text("7, accepted")


def test_a_picture_that_only_the_service_can_read_is_shown_as_it_sees_it(
    open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page()
    (tmp_path / "seven.tiff").write_bytes(encoded(drawn_seven(), "TIFF"))
    page.locator("#file").set_input_files(tmp_path / "seven.tiff")
    expect(line(page)).to_have_text("7, accepted")
    expect(page.locator("#hint")).to_be_hidden()


def test_every_example_is_of_its_sort(open_page: OpenPage) -> None:
    page = open_page()
    buttons = page.locator("#examples button")
    assert buttons.count() == 12
    for i in range(12):
        label = buttons.nth(i).get_attribute("aria-label")
        assert label is not None
        with page.expect_response(re.compile("/predict")) as asked:
            buttons.nth(i).click()
        decision = asked.value.json()["decision"]
        expected = "accept" if label.endswith(": easy to read") else "review"
        assert decision == expected, label
        expect(page.locator("#decision")).to_have_attribute("data-state", expected)
        page.get_by_role("button", name="Clear", exact=True).click()


# What the answer shows


def test_what_is_ambiguous_is_named_and_split(open_page: OpenPage) -> None:
    page = open_page()
    example(page, "a four or a nine").click()
    expect(line(page)).to_have_text(re.compile("^Not sure: (4 or 9|9 or 4)$"))
    expect(page.locator("#decision-detail")).to_contain_text("A person should look")
    total, expected, mutual = (
        float(page.locator(f"#{name}").inner_text()) for name in ("total", "expected", "mutual")
    )
    assert total == pytest.approx(expected + mutual, abs=0.002)
    assert total > 0.3
    assert bar(page, "4").locator(".whisker").evaluate("e => parseFloat(e.style.width)") > 10
    preview = page.locator("#preview")
    assert preview.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [28, 28]


def test_the_votes_are_the_networks_own_and_the_slider_uses_fewer(open_page: OpenPage) -> None:
    page = open_page()
    with page.expect_response(re.compile("/predict")) as asked:
        example(page, "a four or a nine").click()
    answer = asked.value.json()
    votes = [max(range(10), key=draw.__getitem__) for draw in answer["draws"]]
    cells = page.locator("#votes span")
    expect(cells).to_have_count(100)
    assert [int(text) for text in cells.all_inner_texts()] == votes
    four = bar(page, "4").locator(".mean")
    expect(page.locator("#classes-note")).to_be_empty()

    page.locator("#samples").fill("10")
    expect(page.locator("#samples-text")).to_have_text("10")
    expect(page.locator("#classes-note")).to_have_text("From the first 10 networks only")
    expect(page.locator("#votes .unused")).to_have_count(90)
    mean = sum(draw[4] for draw in answer["draws"][:10]) / 10
    assert float(four.inner_text().split()[0]) == pytest.approx(100 * mean, abs=0.6)
    expect(page.locator("#votes")).to_have_attribute("aria-label", re.compile("^Of 10 networks"))
    expect(page.locator("#convergence .dot")).to_have_count(1)
    page.locator("#samples").fill("100")
    assert float(four.inner_text().split()[0]) == pytest.approx(
        100 * answer["classes"][4]["probability"], abs=0.6
    )


def test_fewer_draws_are_summed_up_as_the_service_does(open_page: OpenPage) -> None:
    page = open_page()
    draws = np.random.default_rng(0).dirichlet(np.full(10, 0.3), size=100)
    for n in (2, 37, 100):
        found = page.evaluate(
            """async ([draws, n]) =>
              (await import("/web/statistics.js")).summarise(draws, n, 0.9)""",
            [draws.tolist(), n],
        )
        expected = summarise(draws[:n, None], 0.9)
        for key in ("probability", "lower", "upper"):
            values = [entry[key] for entry in found["classes"]]
            np.testing.assert_allclose(values, getattr(expected, key)[0], atol=1e-12)
        assert found["predictive"] == pytest.approx(expected.predictive_entropy[0])
        assert found["expected"] == pytest.approx(expected.expected_entropy[0])
        assert found["mutual"] == pytest.approx(expected.mutual_information[0])


def test_a_six_is_turned_until_it_is_a_nine(open_page: OpenPage) -> None:
    page = open_page()
    example(page, "a six").click()
    expect(line(page)).to_have_text("6, accepted")
    said = page.locator("#rotation .prediction")
    expect(said).to_have_count(25)
    assert said.nth(12).text_content() == "6"
    assert said.nth(0).text_content() == said.nth(24).text_content() == "9"
    expect(page.locator("#rotation")).to_have_attribute("aria-label", re.compile("9 at"))
    page.locator("#angle").fill("180")
    expect(page.locator("#angle-text")).to_have_text("180°")
    expect(line(page)).to_have_text("9, accepted")
    page.locator("#angle").fill("0")
    expect(line(page)).to_have_text("6, accepted")


def test_the_command_is_the_request_behind_the_answer(open_page: OpenPage, server: Server) -> None:
    page = open_page()
    with page.expect_request(re.compile("/predict")) as asked:
        example(page, "a seven").click()
    command = page.locator("#curl").inner_text()
    assert command == f"curl -F file=@digit.png '{asked.value.url}'"
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save the picture").click()
    with server.client() as client:
        answer = client.post("/predict", files={"file": saved.value.path().read_bytes()}).json()
    shown = page.locator("#facts").inner_text()
    assert answer["model"]["version"] in shown
    assert answer["prediction"] == line(page).inner_text()[0]


# Troubles


def problem(route: Route, status: int, detail: str, **headers: str) -> None:
    route.fulfill(
        status=status,
        headers={"Content-Type": "application/problem+json", **headers},
        json={"status": status, "title": "No", "detail": detail},
    )


def drawing(page: Page) -> str:
    return str(page.locator("#pad").evaluate("canvas => canvas.toDataURL()"))


@pytest.mark.parametrize(
    ("status", "detail", "said"),
    [
        (413, "12 MiB, allowed are 10 MiB.", "too large: 12 MiB, allowed are 10 MiB."),
        (500, "A fault of ours.", "No answer: A fault of ours."),
    ],
)
def test_what_the_service_refuses_is_said(
    open_page: OpenPage, status: int, detail: str, said: str
) -> None:
    page = open_page(expect_errors=True)
    page.route("**/predict?*", lambda route: problem(route, status, detail))
    example(page, "a seven").click()  # asks once, where a hand that draws asks again and again
    expect(page.locator("#error-text")).to_contain_text(said)
    expect(line(page)).to_have_text("No answer")
    before = drawing(page)
    page.unroute("**/predict?*")
    page.get_by_role("button", name="Try again").click()
    expect(line(page)).to_have_text("7, accepted")
    expect(page.locator("#error")).to_be_hidden()
    assert drawing(page) == before


def test_a_busy_service_is_asked_again_when_it_says(open_page: OpenPage) -> None:
    page = open_page(expect_errors=True)
    refusals: list[Route] = []

    def refuse_once(route: Route) -> None:
        if refusals:
            route.fallback()
            return
        refusals.append(route)
        problem(route, 429, "Full.", **{"Retry-After": "1"})

    page.route("**/predict?*", refuse_once)
    example(page, "a seven").click()
    expect(page.locator("#error-text")).to_contain_text(
        "busy. Trying again in 1 s. Your picture is kept."
    )
    expect(line(page)).to_have_text("7, accepted")
    expect(page.locator("#error")).to_be_hidden()


def test_a_service_that_wants_a_key_is_given_one(
    open_page: OpenPage, make_server: Callable[..., Server], pictures: Path
) -> None:
    guarded = make_server(device="cpu", api_key="open-sesame-please", require_api_key=True)
    page = open_page(guarded.url, expect_errors=True)
    example(page, "a seven").click()
    expect(page.locator("#error-text")).to_contain_text("The service needs an API key.")
    page.screenshot(path=pictures / "key.png")
    page.get_by_label("API key", exact=True).fill("open-nothing-at-all")
    page.get_by_role("button", name="Use key").click()
    expect(page.locator("#error-text")).to_contain_text("Wrong API key.")
    page.get_by_label("API key", exact=True).fill("open-sesame-please")
    page.keyboard.press("Enter")
    expect(line(page)).to_have_text("7, accepted")
    expect(page.locator("#error")).to_be_hidden()
    expect(page.locator("#curl")).to_contain_text('-H "Authorization: Bearer $KEY"')
    expect(page.locator("#decision-detail")).to_contain_text("0.1 %")  # the promise, from `/model`
    assert "sesame" not in page.content()


def test_a_slow_answer_is_waited_for_aloud(open_page: OpenPage) -> None:
    page = open_page()
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        waiting.append(route)

    page.route("**/predict?*", hold)
    example(page, "a seven").click()
    expect(page.locator("#error-text")).to_contain_text("Still waiting")
    assert len(waiting) == 1
    waiting[0].fallback()
    expect(line(page)).to_have_text("7, accepted")
    expect(page.locator("#error")).to_be_hidden()


def test_an_overtaken_answer_is_never_shown(open_page: OpenPage) -> None:
    page = open_page(expect_errors=True)  # the browser notes that a request was given up
    held: list[Route] = []
    given_up: list[str] = []
    page.on("requestfailed", lambda request: given_up.append(request.url))

    def hold_first(route: Route) -> None:
        if held:
            route.fallback()
        else:
            held.append(route)

    page.route("**/predict?*", hold_first)
    example(page, "a three").click()
    page.wait_for_timeout(100)
    example(page, "a seven").click()
    expect(line(page)).to_have_text("7, accepted")
    assert len(held) == 1
    assert [urlsplit(url).path for url in given_up] == ["/predict"]


def test_an_answer_that_comes_in_spite_of_that_is_dropped(open_page: OpenPage) -> None:
    page = open_page()
    # A browser that does not give up: the first answer comes, after the second.
    page.evaluate(
        """() => {
          const ask = window.fetch;
          let asked = 0;
          window.fetch = (url, {signal, ...options} = {}) => {
            const slow = String(url).startsWith("predict?") && asked++ === 0;
            const wait = new Promise((done) => setTimeout(done, slow ? 500 : 0));
            return wait.then(() => ask(url, options)).then((answer) => {
              if (slow) window.late = true;
              return answer;
            });
          };
        }"""
    )
    example(page, "a three").click()
    page.wait_for_timeout(50)
    example(page, "a seven").click()
    expect(line(page)).to_have_text("7, accepted")
    page.wait_for_function("window.late")
    page.wait_for_timeout(200)
    expect(line(page)).to_have_text("7, accepted")


def test_a_slow_service_is_waited_for_while_the_line_grows(open_page: OpenPage) -> None:
    page = open_page()
    page.evaluate(
        """() => {
          const ask = window.fetch;
          let running = 0;
          window.most = 0;
          window.fetch = async (url, options) => {
            window.most = Math.max(window.most, (running += 1));
            try {
              await new Promise((done, fail) => {
                setTimeout(done, 250);
                options?.signal?.addEventListener("abort", () => fail(options.signal.reason));
              });
              return await ask(url, options);
            } finally {
              running -= 1;
            }
          };
        }"""
    )
    box = page.locator("#pad").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 150, box["y"] + 60)
    page.mouse.down()
    for i in range(12):
        page.mouse.move(box["x"] + 150, box["y"] + 70 + 15 * i)
        page.wait_for_timeout(60)
    expect(page.locator("#decision")).not_to_have_attribute("data-state", "empty")  # still drawing
    assert page.evaluate("window.most") == 1
    page.mouse.up()


def test_an_answer_in_pieces_is_no_answer(open_page: OpenPage) -> None:
    page = open_page()
    page.route("**/predict?*", lambda route: route.fulfill(status=200, body='{"prediction": "7'))
    example(page, "a seven").click()
    expect(page.locator("#error-text")).to_contain_text("only in part")
    expect(page.locator("#error-text")).to_contain_text("Your picture is kept")
    expect(page.locator("#decision-detail")).to_have_text("")
    page.unroute("**/predict?*")
    page.get_by_role("button", name="Try again").focus()
    page.keyboard.press("Enter")
    expect(line(page)).to_have_text("7, accepted")
    expect(page.locator("#answer")).to_be_focused()  # the button that had the focus is gone


def test_what_was_cleared_is_not_asked_about_again(open_page: OpenPage) -> None:
    page = open_page(expect_errors=True)
    asked: list[Route] = []

    def refuse(route: Route) -> None:
        asked.append(route)
        problem(route, 429, "Full.", **{"Retry-After": "1"})

    page.route("**/predict?*", refuse)
    example(page, "a seven").click()
    expect(page.locator("#error-text")).to_contain_text("busy")
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(line(page)).to_have_text("Nothing drawn yet")
    page.wait_for_timeout(1300)
    assert len(asked) == 1
    expect(page.locator("#error")).to_be_hidden()


def test_a_curve_that_cannot_be_had_is_said_and_tried_again(open_page: OpenPage) -> None:
    page = open_page(expect_errors=True)
    refused: list[Route] = []

    def refuse_once(route: Route) -> None:
        if refused:
            route.fallback()
            return
        refused.append(route)
        problem(route, 429, "Full.", **{"Retry-After": "1"})

    page.route("**/predict/batch", refuse_once)
    example(page, "a six").click()
    expect(page.locator("#rotation")).to_have_attribute(
        "aria-label", "The curve could not be computed."
    )
    expect(page.locator("#rotation .prediction")).to_have_count(25)


def test_the_service_goes_away_and_comes_back(
    open_page: OpenPage, make_server: Callable[..., Server]
) -> None:
    going = make_server(device="cpu")
    page = open_page(going.url, expect_errors=True)
    draw(page, SEVEN)
    expect(line(page)).to_have_text("7, accepted")
    going.stop()
    page.get_by_role("button", name="Clear", exact=True).click()
    example(page, "a six").click()
    expect(page.locator("#error-text")).to_contain_text("does not answer")
    before = drawing(page)
    again = start_service(
        going.log, going.log.parent, device="cpu", port=int(going.url.rpartition(":")[2])
    )
    try:
        wait_until_ready(again)
        page.get_by_role("button", name="Try again").click()
        expect(line(page)).to_have_text("6, accepted")
        assert drawing(page) == before
    finally:
        again.stop()


# The pad


def strokes_now(page: Page) -> int:
    """How often undo finds something to take back."""
    n = 0
    while page.locator("#hint").is_hidden():
        page.keyboard.press("Control+z")
        n += 1
    return n


def pointer(page: Page, kind: str, x: float, y: float, **more: object) -> None:
    """An event as a browser makes it, at a place from 0 to 1."""
    page.locator("#pad").evaluate(
        """(pad, [kind, x, y, more]) => {
          const box = pad.getBoundingClientRect();
          pad.dispatchEvent(new PointerEvent(kind, {
            bubbles: true, cancelable: true, pointerId: 7, pointerType: "pen",
            button: 0, buttons: 1,
            clientX: box.left + x * box.width, clientY: box.top + y * box.height, ...more,
          }));
        }""",
        [kind, x, y, more],
    )


@pytest.fixture
def pen_page(open_page: OpenPage) -> Page:
    """A page whose pad may be given made-up pointers."""
    page = open_page()
    page.evaluate("Element.prototype.setPointerCapture = () => {}")
    return page


def test_a_pen_draws_and_a_palm_does_not(pen_page: Page) -> None:
    pointer(pen_page, "pointerdown", 0.3, 0.3)
    pointer(pen_page, "pointerdown", 0.8, 0.8, pointerId=8, pointerType="touch")  # a second one
    pointer(pen_page, "pointermove", 0.5, 0.5)
    pointer(pen_page, "pointerup", 0.5, 0.5, buttons=0)
    pointer(pen_page, "pointerdown", 0.7, 0.7)
    pointer(pen_page, "pointermove", 0.8, 0.8)
    pointer(pen_page, "pointercancel", 0.8, 0.8)  # the system took it for a palm
    pointer(pen_page, "pointerdown", 0.2, 0.2, button=2, buttons=2)  # the pen's other button
    pointer(pen_page, "pointermove", 0.4, 0.2, buttons=2)
    assert strokes_now(pen_page) == 1


def test_a_pen_that_was_lifted_elsewhere_draws_no_more(pen_page: Page) -> None:
    pointer(pen_page, "pointerdown", 0.3, 0.3)
    pointer(pen_page, "pointermove", 0.4, 0.4)
    pointer(pen_page, "pointermove", 0.6, 0.6, buttons=0)
    before = drawing(pen_page)
    pointer(pen_page, "pointermove", 0.9, 0.9, buttons=0)
    assert drawing(pen_page) == before
    pointer(pen_page, "pointerdown", 0.3, 0.8)
    pointer(pen_page, "pointerup", 0.3, 0.8, buttons=0)
    assert strokes_now(pen_page) == 2


def test_undo_brings_back_how_it_was_turned(open_page: OpenPage) -> None:
    page = open_page()
    draw(page, SEVEN)
    expect(line(page)).to_have_text("7, accepted")
    example(page, "a six").click()
    page.locator("#angle").fill("180")
    expect(line(page)).to_have_text("9, accepted")
    for _ in range(2):  # the six's one stroke, and what it replaced
        page.get_by_role("button", name="Undo", exact=True).click()
    expect(line(page)).to_have_text("7, accepted")
    expect(page.locator("#angle-text")).to_have_text("0°")
    page.locator("#angle").fill("90")
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(page.locator("#angle-text")).to_have_text("0°")  # an empty sheet has no sides


def test_a_picture_that_comes_late_is_not_laid_over_what_was_drawn_since(
    open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page()
    (tmp_path / "three.tiff").write_bytes(encoded(drawn_seven(), "TIFF"))
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/predict?*", hold)
    page.locator("#file").set_input_files(tmp_path / "three.tiff")
    page.wait_for_timeout(200)
    page.unroute("**/predict?*")
    example(page, "a six").click()
    expect(line(page)).to_have_text("6, accepted")
    held[0].fallback()
    page.wait_for_timeout(400)
    expect(line(page)).to_have_text("6, accepted")


def test_a_format_that_only_the_browser_reads_is_sent_as_it_shows_it(open_page: OpenPage) -> None:
    page = open_page(expect_errors=True)
    svg = """<svg xmlns="http://www.w3.org/2000/svg" width="200" height="200">
      <rect width="200" height="200" fill="white"/>
      <polyline points="55,50 145,50 90,165" fill="none" stroke="black" stroke-width="16"/></svg>"""
    page.evaluate(
        """async (svg) => {
          // A browser that decodes more than the service does.
          const image = new Image();
          image.src = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
          await image.decode();
          const make = window.createImageBitmap;
          window.createImageBitmap = () => make(image);
          const transfer = new DataTransfer();
          transfer.items.add(new File([svg], "seven.svg", { type: "image/svg+xml" }));
          document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer }));
        }""",
        svg,
    )
    expect(line(page)).to_have_text("7, accepted")


def test_what_is_no_picture_is_said(open_page: OpenPage) -> None:
    page = open_page()
    page.evaluate(
        """() => {
          const transfer = new DataTransfer();
          transfer.items.add(new File(["text"], "notes.txt", { type: "text/plain" }));
          document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer }));
        }"""
    )
    expect(page.locator("#error-text")).to_contain_text("This is not a picture")
    expect(page.locator("#retry")).to_be_hidden()


# What is said


def answered(page: Page, **changes: object) -> None:
    """Let the service give its answers with some of their fields replaced."""

    def change(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json={**response.json(), **changes})

    page.route("**/predict?*", change)


def test_a_likely_digit_that_is_not_accepted_names_no_other(open_page: OpenPage) -> None:
    page = open_page()
    answered(page, decision="review", reasons=["uncertain"], prediction_set=["7"])
    example(page, "a seven").click()
    expect(line(page)).to_have_text("Most likely a 7")
    expect(page.locator("#decision-detail")).to_contain_text("too low to accept it")


def test_the_promise_is_told_as_the_model_makes_it_or_not_at_all(open_page: OpenPage) -> None:
    page = open_page()
    example(page, "a seven").click()
    why = page.locator("#decision-detail")
    expect(why).to_contain_text("at most 0.1 % are wrong (with 95 % confidence)")
    answered(page, calibrated=False)
    example(page, "a two:").click()
    expect(why).to_contain_text("does not apply")
    silent = open_page(expect_errors=True)
    silent.route("**/model", lambda route: route.abort())
    silent.reload()
    example(silent, "a seven").click()
    expect(silent.locator("#decision-detail")).to_have_text("No review is needed.")


# For everybody


def test_the_keyboard_is_enough(open_page: OpenPage) -> None:
    page = open_page()
    page.keyboard.press("Tab")
    expect(page.locator("#pad")).to_be_focused()
    for _ in range(8):
        page.keyboard.press("ArrowLeft")
    for _ in range(11):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    expect(page.locator("#pen-state")).to_have_text("Pen down")
    for _ in range(15):
        page.keyboard.press("ArrowRight")
    for i in range(23):  # down, and now and then to the left
        page.keyboard.press("ArrowDown")
        if i % 3:
            page.keyboard.press("ArrowLeft" if i % 2 else "ArrowDown")
    page.keyboard.press("Space")
    expect(page.locator("#pen-state")).to_have_text("Pen lifted")
    expect(line(page)).to_have_text("7, accepted")
    page.keyboard.press("z")
    expect(line(page)).to_have_text("Nothing drawn yet")

    for name in ("Undo", "Clear"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    page.keyboard.press("Tab")  # the first example
    page.keyboard.press("Enter")
    expect(line(page)).to_have_text("2, accepted")
    page.locator("#samples").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#samples-text")).to_have_text("99")
    page.locator("#angle").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#angle-text")).to_have_text("5°")


def test_a_phone_with_a_finger(open_page: OpenPage) -> None:
    page = open_page(viewport={"width": 375, "height": 720}, has_touch=True, is_mobile=True)
    expect(page.get_by_text("Take a photo")).to_be_visible()
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 375  # nothing to scroll sideways for
    session = page.context.new_cdp_session(page)
    box = page.locator("#pad").bounding_box()
    assert box is not None

    def touch(kind: str, at: tuple[float, float] | None) -> None:
        points = []
        if at is not None:
            points = [{"x": box["x"] + at[0] * box["width"], "y": box["y"] + at[1] * box["height"]}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    for stroke in SEVEN:
        touch("touchStart", stroke[0])
        for (x0, y0), (x1, y1) in itertools.pairwise(stroke):
            for t in (0.25, 0.5, 0.75, 1.0):
                touch("touchMove", (x0 + t * (x1 - x0), y0 + t * (y1 - y0)))
        touch("touchEnd", None)
    expect(line(page)).to_have_text("7, accepted")
    assert page.evaluate("scrollY") == 0  # drawing does not scroll


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [None, "a seven", "a four or a nine", "a star"])
def test_nothing_stands_in_the_way_of_anybody(
    open_page: OpenPage, scheme: str, name: str | None
) -> None:
    page = open_page(color_scheme=scheme, reduced_motion="reduce")
    if name:
        example(page, name).click()
        expect(page.locator("#rotation .prediction")).to_have_count(25)
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert [(v["id"], [n["target"] for n in v["nodes"]]) for v in found["violations"]] == []
    assert found["passes"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_pictures_for_people_to_look_at(
    open_page: OpenPage, pictures: Path, scheme: str, width: int
) -> None:
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    for sort, name in (("clear", "a six"), ("ambiguous", "a four or"), ("no-digit", "a star")):
        example(page, name).click()
        expect(page.locator("#rotation .prediction")).to_have_count(25)
        path = pictures / f"page-{sort}-{scheme}-{width}.png"
        page.screenshot(path=path, full_page=True)
        assert path.stat().st_size > 10_000
        page.get_by_role("button", name="Clear", exact=True).click()


@pytest.mark.usefixtures("browser")
def test_the_latency_of_the_page_can_be_measured(tmp_path: Path) -> None:
    printed, results = run_benchmark(tmp_path, "serving.page")
    (row,) = results["page"]
    assert 0 < row["median ms"] <= row["max ms"]
    assert "median ms" in printed

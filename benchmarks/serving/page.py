"""Latency of the web page, measured in a real browser on this machine.

The benchmark draws a seven with the mouse, many times. The page measures the time from lifting the
pen to the frame that shows the answer: request, service and painting. Needs Chromium, or the
browser that `MNN_BROWSER` names.
"""

import contextlib
import math
import os
import shutil
import statistics
import sys
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Page, sync_playwright

from benchmarks.common.report import format_table, make_parser, write_json
from benchmarks.serving.local_service import running_service

_ROUNDS, _QUICK_ROUNDS = 40, 2
_SEVEN = [(0.3, 0.24), (0.5, 0.22), (0.69, 0.22), (0.61, 0.42), (0.53, 0.6), (0.46, 0.82)]
_PEN_UP_TO_ANSWER = """
() => new Promise((done) => {
  const announcement = document.getElementById("announcement");
  announcement.textContent = "";
  addEventListener("pointerup", () => {
    const lifted = performance.now();
    new MutationObserver((_changes, observer) => {
      if (!announcement.textContent.includes("accepted")) return;
      observer.disconnect();
      requestAnimationFrame(() => done(performance.now() - lifted));
    }).observe(announcement, { childList: true });
  }, { once: true, capture: true });
})
"""


def main() -> int:
    """Run the command; returns its exit code."""
    options = make_parser("serving.page", __doc__, quick="few repetitions").parse_args()
    if _browser() is None:
        print("error: no browser; install chromium or set MNN_BROWSER", file=sys.stderr)
        return 2
    rounds = _QUICK_ROUNDS if options.quick else _ROUNDS
    with opened_page() as page:
        _latency_ms(page)  # warm-up
        times = sorted(_latency_ms(page) for _ in range(rounds))
    row = {
        "rounds": rounds,
        "median ms": statistics.median(times),
        "p95 ms": times[math.ceil(0.95 * len(times)) - 1],
        "max ms": times[-1],
    }
    print(format_table([row]))
    write_json(options.json, {"quick": options.quick, "page": [row]})
    return 0


@contextlib.contextmanager
def opened_page(**options: Any) -> Iterator[Page]:
    """Open the page of a service in a window with these options, such as `viewport`."""
    with running_service() as url, sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=_browser(), args=arguments)
        page = chromium.new_page(**options)
        page.goto(url)
        yield page
        chromium.close()


def _latency_ms(page: Page) -> float:
    page.get_by_role("button", name="Clear", exact=True).click()
    page.wait_for_timeout(600)  # until no request about the last image is under way
    waiting = page.evaluate_handle(f"() => ({{ time: ({_PEN_UP_TO_ANSWER})() }})")
    box = page.locator("#pad").bounding_box()
    assert box is not None  # noqa: S101 - the pad is always visible
    for i, (x, y) in enumerate(_SEVEN):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=5)
        if i == 0:
            page.mouse.down()
    page.mouse.up()
    return float(waiting.evaluate("waiting => waiting.time"))


def _browser() -> str | None:
    return os.environ.get("MNN_BROWSER") or shutil.which("chromium")


if __name__ == "__main__":
    sys.exit(main())

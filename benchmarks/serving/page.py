"""`python -m benchmarks.serving.page`: how soon the page answers, in a real browser on this machine.

A seven is drawn with the mouse, again and again. Measured in the page, from the pen's lifting to
the frame that shows the answer to what was then drawn: request, service and painting are in it.
Needs Chromium, or the browser that `MNN_BROWSER` names.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from benchmarks.common.report import format_table, write_json

__all__ = ["main", "opened_page"]

_ROUNDS, _QUICK_ROUNDS = 40, 2
_SEVEN = [(0.3, 0.24), (0.5, 0.22), (0.69, 0.22), (0.61, 0.42), (0.53, 0.6), (0.46, 0.82)]
_FROM_PEN_TO_ANSWER = """
() => new Promise((done) => {
  const settled = document.getElementById("said");
  settled.textContent = "";
  addEventListener("pointerup", () => {
    const lifted = performance.now();
    new MutationObserver((_changes, observer) => {
      if (!settled.textContent.includes("accepted")) return;
      observer.disconnect();
      requestAnimationFrame(() => done(performance.now() - lifted));
    }).observe(settled, { childList: true });
  }, { once: true, capture: true });
})
"""


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.page", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the results there")
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    options = parser.parse_args()
    if _browser() is None:
        print("error: no browser; install chromium or name one with MNN_BROWSER", file=sys.stderr)
        return 2
    rounds = _QUICK_ROUNDS if options.quick else _ROUNDS
    with opened_page() as page:
        times = sorted(_answered_ms(page) for _ in range(rounds + 1))[:-1]  # the first is cold
    row = {
        "rounds": rounds,
        "median, ms": statistics.median(times),
        "95 of 100, ms": times[int(0.95 * (len(times) - 1))],
        "slowest, ms": times[-1],
    }
    print(format_table([row]))
    if options.json:
        write_json(options.json, {"quick": options.quick, "page": [row]})
    return 0


@contextmanager
def opened_page(**options: Any) -> Iterator[Page]:
    """The page of a service with the shipped weights, both started for it and ended after.

    Args:
        options: For the browser's window, such as `viewport`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MNN_PORT": str(port), "MNN_CHECKPOINT": "no-such-file"}
    service = subprocess.Popen([sys.executable, "-m", "service"], env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url)
        with sync_playwright() as playwright:
            arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
            chromium = playwright.chromium.launch(executable_path=_browser(), args=arguments)
            page = chromium.new_page(**options)
            page.goto(url)
            yield page
            chromium.close()
    finally:
        service.terminate()
        service.wait()


def _answered_ms(page: Page) -> float:
    page.get_by_role("button", name="Clear", exact=True).click()
    page.wait_for_timeout(600)  # until nothing more is asked about the picture before
    waiting = page.evaluate_handle(f"() => ({{ time: ({_FROM_PEN_TO_ANSWER})() }})")
    box = page.locator("#pad").bounding_box()
    assert box is not None  # noqa: S101 - it is always shown
    for i, (x, y) in enumerate(_SEVEN):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=5)
        if i == 0:
            page.mouse.down()
    page.mouse.up()
    return float(waiting.evaluate("held => held.time"))


def _browser() -> str | None:
    return os.environ.get("MNN_BROWSER") or shutil.which("chromium")


def _wait_until_ready(url: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{url}/health/ready")  # noqa: S310 - our own address
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("the service did not become ready within half a minute")


if __name__ == "__main__":
    sys.exit(main())

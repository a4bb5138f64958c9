"""Take the screenshot of the page: `python -m docs.make_screenshot`.

It uses a real browser and the bundled weights. `make images` runs it; it needs Chromium.
"""

import io
from pathlib import Path

from PIL import Image

from benchmarks.serving.page import opened_page

SCREENSHOT = Path(__file__).parent / "page.png"
EXAMPLE = "a four or a nine"


def main() -> None:
    """Open the page, click an example and save the screenshot."""
    window = {"width": 1120, "height": 1180}
    with opened_page(viewport=window, color_scheme="light") as page:
        page.get_by_role("button", name=EXAMPLE).click()
        page.locator("#rotation .prediction").first.wait_for()
        page.mouse.move(0, 0)
        page.wait_for_timeout(400)  # for bars that are still growing
        image = Image.open(io.BytesIO(page.screenshot()))
    # 255 colours take a third of the bytes and look the same.
    image.convert("RGB").quantize(255).save(SCREENSHOT, optimize=True)


if __name__ == "__main__":
    main()

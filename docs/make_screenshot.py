"""Take the README's picture of the page, with a real browser and the shipped weights.

`make pictures` runs it; Chromium must be installed.
"""

import io
from pathlib import Path

from PIL import Image

from benchmarks.serving.page import opened_page

PICTURE = Path(__file__).parent / "page.png"
EXAMPLE = "a four or a nine"


def main() -> None:
    """Open the page, click an example and take the picture."""
    window = {"width": 1120, "height": 1180}
    with opened_page(viewport=window, color_scheme="light") as page:
        page.get_by_role("button", name=EXAMPLE).click()
        page.locator("#curve .said").first.wait_for()
        page.mouse.move(0, 0)
        page.wait_for_timeout(400)  # for bars that are still growing
        picture = Image.open(io.BytesIO(page.screenshot()))
    # Few colours: a third of the bytes, and nobody sees it.
    picture.convert("RGB").quantize(255).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()

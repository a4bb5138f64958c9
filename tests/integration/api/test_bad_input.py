"""Invalid requests get a problem that says what is wrong."""

from collections.abc import Callable
from functools import partial

import httpx
import pytest
from PIL import Image

from tests.support.damaged_images import (
    bmp_header,
    damaged_chunk_sum,
    damaged_header,
    damaged_png,
    png_chunk,
    png_header,
    text_bomb,
    truncated,
)
from tests.support.images import drawn_seven, encoded
from tests.support.paths import ROOT
from tests.support.service.problems import TIMING, check_problem, check_problem_body, check_seven
from tests.support.service.raw_http import END, FORM_TYPE, part
from tests.support.service.server import Server

# Forms


NO_FILE: dict[str, dict[str, object]] = {
    "no body": {},
    "empty form": {"content": END, "headers": {"Content-Type": FORM_TYPE}},
    "JSON": {"json": {"file": "seven.png"}},
    "URL-encoded form": {"data": {"file": "seven.png"}},
    "bare image": {"content": encoded(drawn_seven()), "headers": {"Content-Type": "image/png"}},
    "part with another name": {"files": {"picture": encoded(drawn_seven())}},
    "text field": {"files": {"file": (None, "seven.png")}},
}


@pytest.mark.parametrize("kind", NO_FILE)
def test_a_form_without_the_part_file_is_422_and_the_detail_names_it(
    client: httpx.Client, kind: str
) -> None:
    detail = check_problem(client.post("/predict", **NO_FILE[kind]), 422)  # type: ignore[arg-type]
    assert "'file'" in detail


def test_several_files_are_422_and_the_detail_names_the_batch_route(
    client: httpx.Client, seven_png: bytes
) -> None:
    answer = client.post("/predict", files=[("file", seven_png)] * 2)
    assert "/predict/batch" in check_problem(answer, 422)


MALFORMED: dict[str, tuple[str, bytes]] = {
    "no boundary": ("multipart/form-data", part(b"x") + END),
    "another boundary": ("multipart/form-data; boundary=other", part(b"x") + END),
    "no end": (FORM_TYPE, part(encoded(drawn_seven()))[:-20]),
    "end in a part's header": (FORM_TYPE, part(b"x")[:50]),
    "noise": (FORM_TYPE, bytes(range(256)) * 8),
    "part without a name": (FORM_TYPE, part(b"x").replace(b'name="file"; ', b"") + END),
    "unknown character set": (FORM_TYPE + "; charset=klingon", END),
}


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_form_is_422(client: httpx.Client, path: str, kind: str) -> None:
    content_type, body = MALFORMED[kind]
    answer = client.post(path, content=body, headers={"Content-Type": content_type})
    check_problem(answer, 422)


# Files


UNREADABLE: dict[str, tuple[int, Callable[[], bytes]]] = {
    "text": (415, lambda: b"This is a seven."),
    "SVG": (415, lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
    "PDF": (415, lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n"),
    "PPM": (415, lambda: encoded(drawn_seven(), "PPM")),
    "empty": (422, lambda: b""),
    "PNG with damaged header": (422, damaged_header),
    "PNG with damaged compression": (422, lambda: damaged_png(0.01)),
    "PNG with damaged pixels": (422, lambda: damaged_png(0.5)),
    "PNG with damaged sum of its pixels": (422, lambda: damaged_png(1)),
    "PNG with damaged checksum": (422, damaged_chunk_sum),
    "PNG with a text bomb": (422, text_bomb),
    "JPEG marker": (422, lambda: encoded(drawn_seven(), "JPEG")[:4]),
    "81 megapixels": (413, lambda: encoded(Image.new("1", (9000, 9000)))),
    "81 megapixels, header alone": (413, lambda: png_header(9000)),
    "81 megapixels, no pixels": (413, lambda: png_header(9000) + png_chunk(b"IDAT", b"")),
    "200 megapixels, header alone": (413, lambda: png_header(14_143)),
    "200 megapixels, no pixels": (413, lambda: png_header(14_143) + png_chunk(b"IDAT", b"")),
    "81 megapixels, JPEG header": (
        413,
        lambda: encoded(Image.new("L", (9000, 9000)), "JPEG", quality=1)[:2000],
    ),
    "81 megapixels, BMP header": (413, lambda: bmp_header(9000)),
}
UNREADABLE |= {
    f"{form} cut at {share:.1%}": (422, partial(truncated, form, share))
    for form in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
    for share in (0.0, 0.2, 0.5, 0.9)
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_unreadable_file_gets_its_status(client: httpx.Client, kind: str) -> None:
    status, make = UNREADABLE[kind]
    answer = client.post("/predict", files={"file": ("digit.png", make(), "image/png")})
    detail = check_problem(answer, status)
    if status == 413:
        assert "25,000,000" in detail
        _, compute_ms, _ = map(float, TIMING.fullmatch(answer.headers["server-timing"]).groups())  # type: ignore[union-attr]
        assert compute_ms < 500  # decoding 81 megapixels would take longer
    if status == 415:
        assert all(form in detail.upper() for form in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"))


# Parameters


BAD_QUERIES = [
    ("samples=101", "samples"),
    ("samples=1", "samples"),
    ("samples=0", "samples"),
    ("samples=-5", "samples"),
    ("samples=2", "samples"),  # no tail of any interval could hold a draw
    ("samples=ten", "samples"),
    ("samples=nan", "samples"),
    ("samples=inf", "samples"),
    ("samples=20.5", "samples"),
    ("samples=", "samples"),
    ("samples=1" + 30 * "0", "samples"),
    ("samples=10", "level"),  # inconsistent with the default level
    ("samples=39&level=0.95", "level"),
    ("level=0.4", "level"),
    ("level=1", "level"),
    ("level=0.999", "level"),
    ("level=0.981", "level"),
    ("level=1.5", "level"),
    ("level=-0.95", "level"),
    ("level=nan", "level"),
    ("level=inf", "level"),
    ("level=-inf", "level"),
    ("level=95%25", "level"),
    ("preview=perhaps", "preview"),
    ("draws=100", "draws"),
]


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize(("query", "name"), BAD_QUERIES)
def test_a_parameter_out_of_range_is_422_and_the_detail_names_it(
    client: httpx.Client, seven_png: bytes, path: str, query: str, name: str
) -> None:
    field = "files" if path.endswith("batch") else "file"
    detail = check_problem(client.post(f"{path}?{query}", files={field: seven_png}), 422)
    assert name in detail.lower()


@pytest.mark.parametrize(
    "query", ["samples=40&level=0.95", "samples=100&level=0.98", "samples=4&level=0.5"]
)
def test_a_parameter_at_its_bound_is_answered(
    client: httpx.Client, seven_png: bytes, query: str
) -> None:
    check_seven(client.post(f"/predict?{query}", files={"file": seven_png}))


# Routes


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("GET", "/health"),
        ("POST", "/predict/nothing"),
        ("GET", "/model/other"),
        ("GET", "/..%2f..%2fetc/passwd"),
    ],
)
def test_an_unknown_route_is_404(client: httpx.Client, method: str, path: str) -> None:
    check_problem(client.request(method, path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predict", "POST"),
        ("PUT", "/predict/batch", "POST"),
        ("DELETE", "/model", "GET"),
        ("POST", "/health/live", "GET"),
    ],
)
def test_a_wrong_method_is_405_and_says_which_is_allowed(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    detail = check_problem(answer, 405)
    assert allowed in answer.headers["allow"]
    assert allowed in detail


@pytest.mark.not_through_ray("it reads the log of a process")
def test_none_of_this_is_logged_as_an_error(server: Server, seven_png: bytes) -> None:
    with server.client() as client:
        check_seven(client.post("/predict", files={"file": seven_png}))
    assert server.process.poll() is None
    assert "Traceback" not in server.log.read_text()
    assert "error" not in {line["level"] for line in server.logged()}


def test_check_problem_can_fail() -> None:
    good = {"type": "about:blank", "title": "t", "status": 422, "detail": "d", "request_id": "r"}
    assert check_problem_body(good, 422) == "d"
    leak = {**good, "detail": f"{ROOT}/model"}
    for bad in (leak, {**good, "status": 400}, {**good, "extra": 1}, {**good, "detail": ""}):
        with pytest.raises(AssertionError):
            check_problem_body(bad, 422)

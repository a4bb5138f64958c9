"""Whatever is sent, the answer is a problem that says what was wrong, and the service goes on."""

import asyncio
import http.client
import re
import select
import socket
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import httpx
import pytest
from PIL import Image

from service import Settings, create_app
from service.errors import ProblemError
from tests.support.images import drawn_seven, encoded
from tests.support.paths import ROOT
from tests.support.server import Server

MIB = 2**20
UPLOAD_LIMIT = 100_000
BOUNDARY = b"boundary-of-a-test"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY.decode()}"
TIMING = re.compile(r"queue;dur=(\d+\.\d+), compute;dur=(\d+\.\d+), total;dur=(\d+\.\d+)")
LEAKS = ("Traceback", "site-packages", ".py", str(ROOT), sys.prefix, tempfile.gettempdir(), "0x")


def check_problem_body(body: dict[str, object], status: int) -> str:
    """Check the fields of a problem and that it tells no secrets; returns its detail."""
    assert set(body) == {"type", "title", "status", "detail", "request_id"}
    assert body["status"] == status
    assert body["type"] == "about:blank"
    for key in ("title", "detail", "request_id"):
        assert isinstance(body[key], str)
        assert body[key]
    assert not [leak for leak in LEAKS if leak in str(body)]
    return str(body["detail"])


def check_problem(response: httpx.Response, status: int) -> str:
    """Check that an answer is the contract's problem of this status; returns its detail."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert TIMING.fullmatch(response.headers["server-timing"])
    return check_problem_body(response.json(), status)


def check_seven(response: httpx.Response) -> None:
    assert response.status_code == 200, response.text
    assert response.json()["prediction"] == "7"


def part(data: bytes, name: str = "file", filename: str = "a.png") -> bytes:
    """One part of a multipart form, without the closing boundary."""
    head = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
    head += "Content-Type: application/octet-stream\r\n\r\n"
    return b"--" + BOUNDARY + b"\r\n" + head.encode() + data + b"\r\n"


END = b"--" + BOUNDARY + b"--\r\n"


def connected(server: Server) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port or 80), timeout=20)


def head(path: str, *fields: str) -> bytes:
    """The head of a POST request with a multipart body."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {FORM_TYPE}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_answer(sock: socket.socket) -> httpx.Response:
    answer = http.client.HTTPResponse(sock)
    try:
        answer.begin()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
    finally:
        answer.close()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png_header(side: int) -> bytes:
    """A PNG file's signature and header, which is all there is of it."""
    fields = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", fields)


def truncated(form: str, share: float) -> bytes:
    data = encoded(drawn_seven(), form)
    return data[: max(12, int(share * len(data)))]


def damaged_png(place: float) -> bytes:
    """A PNG with one byte of its pixel data changed, and the checksum left as it was."""
    data = bytearray(encoded(drawn_seven()))
    start = data.index(b"IDAT")
    length = int.from_bytes(data[start - 4 : start], "big")
    data[start + 4 + int(place * (length - 1))] ^= 0x55
    return bytes(data)


def damaged_chunk_sum() -> bytes:
    """A PNG whose pixel data no longer fits the checksum of its chunk."""
    data = bytearray(encoded(drawn_seven()))
    data[data.index(b"IEND") - 5] ^= 0x55
    return bytes(data)


def damaged_header() -> bytes:
    data = bytearray(encoded(drawn_seven()))
    data[19] ^= 0xFF  # the width, so that the header's checksum no longer fits
    return bytes(data)


def text_bomb() -> bytes:
    """A PNG whose compressed comment would grow to 50 MB."""
    comment = b"Comment\0\0" + zlib.compress(bytes(50 * MIB))
    return png_header(10) + png_chunk(b"zTXt", comment) + png_chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def strict(make_server: Callable[..., Server]) -> Server:
    """A service with narrow bounds: one lane, one picture waiting, small files, a second."""
    return make_server(lanes=1, queue=1, max_upload_bytes=UPLOAD_LIMIT, body_timeout_s=1)


@pytest.fixture(scope="module")
def hasty(make_server: Callable[..., Server]) -> Server:
    """A service whose deadline nothing can meet."""
    return make_server(lanes=1, queue=4, request_timeout_s=0.001)


# A request without a picture


NO_PICTURE: dict[str, dict[str, object]] = {
    "no body": {},
    "empty form": {"content": END, "headers": {"Content-Type": FORM_TYPE}},
    "JSON": {"json": {"file": "seven.png"}},
    "URL-encoded form": {"data": {"file": "seven.png"}},
    "bare picture": {"content": encoded(drawn_seven()), "headers": {"Content-Type": "image/png"}},
    "part with another name": {"files": {"picture": encoded(drawn_seven())}},
    "text field": {"files": {"file": (None, "seven.png")}},
}


@pytest.mark.parametrize("kind", NO_PICTURE)
def test_a_request_without_the_part_file_is_422_and_names_it(
    client: httpx.Client, kind: str
) -> None:
    detail = check_problem(client.post("/predict", **NO_PICTURE[kind]), 422)  # type: ignore[arg-type]
    assert "'file'" in detail


def test_a_request_with_several_pictures_is_422_and_told_where_they_go(
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


# A file that is no picture


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


def bmp_header(side: int) -> bytes:
    header = bytearray(encoded(Image.new("L", (8, 8)), "BMP"))
    header[18:26] = struct.pack("<ii", side, side)
    return bytes(header)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_unreadable_picture_is_told_by_its_status(client: httpx.Client, kind: str) -> None:
    status, make = UNREADABLE[kind]
    answer = client.post("/predict", files={"file": ("digit.png", make(), "image/png")})
    detail = check_problem(answer, status)
    if status == 413:
        assert "25,000,000" in detail
        _, compute_ms, _ = map(float, TIMING.fullmatch(answer.headers["server-timing"]).groups())  # type: ignore[union-attr]
        assert compute_ms < 500  # decoding 81 megapixels would take longer
    if status == 415:
        assert all(form in detail.upper() for form in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"))


# A body that is too large, or too slow


def stream(data: bytes) -> Iterator[bytes]:
    """A body without a length: it is sent in chunks."""
    for start in range(0, len(data), 65_536):
        yield data[start : start + 65_536]


def test_a_body_over_the_limit_is_413_by_its_length(client: httpx.Client) -> None:
    detail = check_problem(client.post("/predict", files={"file": bytes(20 * MIB)}), 413)
    assert "bytes" in detail


def test_a_chunked_body_over_the_limit_is_413(client: httpx.Client) -> None:
    body = part(bytes(20 * MIB)) + END
    answer = client.post("/predict", content=stream(body), headers={"Content-Type": FORM_TYPE})
    assert "content-length" not in answer.request.headers
    check_problem(answer, 413)


@pytest.mark.parametrize("chunked", [False, True], ids=["with length", "chunked"])
def test_a_client_that_sends_everything_before_it_reads_still_sees_413(
    server: Server, chunked: bool
) -> None:
    body = part(bytes(20 * MIB)) + END
    with connected(server) as sock:
        if chunked:
            sock.sendall(head("/predict", "Transfer-Encoding: chunked"))
            for piece in stream(body):
                sock.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            sock.sendall(b"0\r\n\r\n")
        else:
            sock.sendall(head("/predict", f"Content-Length: {len(body)}") + body)
        check_problem(read_answer(sock), 413)


def test_a_client_that_asks_first_is_refused_before_it_sends(server: Server) -> None:
    with connected(server) as sock:
        fields = (f"Content-Length: {20 * MIB}", "Expect: 100-continue")
        sock.sendall(head("/predict", *fields))
        assert sock.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 413"  # and no "100 Continue" first
        check_problem(read_answer(sock), 413)


def test_a_chunked_body_is_counted_while_it_streams_not_at_its_end(strict: Server) -> None:
    piece = part(bytes(3 * UPLOAD_LIMIT))
    with connected(strict) as sock:
        sock.sendall(head("/predict", "Transfer-Encoding: chunked"))
        sock.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")  # and no end
        check_problem(read_answer(sock), 413)  # not 408


def test_a_file_at_the_limit_is_read_and_one_byte_more_is_413(strict: Server) -> None:
    seven = encoded(drawn_seven())
    with strict.client() as client:
        at_limit = seven.ljust(UPLOAD_LIMIT, b"\0")  # bytes after a PNG's end are of no meaning
        check_seven(client.post("/predict", files={"file": at_limit}))
        detail = check_problem(client.post("/predict", files={"file": at_limit + b"\0"}), 413)
        assert f"{UPLOAD_LIMIT:,}" in detail
        check_problem(client.post("/predict", files={"file": at_limit * 3}), 413)


def test_more_parts_than_a_form_may_have_are_413(client: httpx.Client) -> None:
    files = [("files", ("a.png", b"x"))] * 1_100
    check_problem(client.post("/predict/batch", files=files), 413)


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_a_body_that_stalls_is_408(strict: Server, path: str) -> None:
    with connected(strict) as sock:
        began = time.monotonic()
        sock.sendall(head(path, "Content-Length: 5000") + part(b"x"))
        detail = check_problem(read_answer(sock), 408)
        assert 0.5 < time.monotonic() - began < 5
        assert "1 s" in detail
        assert sock.recv(1) == b""  # closed: what else comes is no new request


def test_a_body_that_trickles_is_408_however_steadily_it_comes(strict: Server) -> None:
    with connected(strict) as sock:
        began = time.monotonic()
        sock.sendall(head("/predict", "Content-Length: 5000") + part(b"x")[:-2])
        while not select.select([sock], [], [], 0.05)[0]:
            assert time.monotonic() - began < 5
            sock.sendall(b"x")
        check_problem(read_answer(sock), 408)


# An answer that comes before the body has


@pytest.fixture(scope="module")
def keyed_server(make_server: Callable[..., Server]) -> Server:
    """A service that wants its key for everything it may."""
    return make_server(device="cpu", draws=40, api_key=16 * "k", key_for_all=True)


EARLY = {
    "401": (401, "/predict"),
    "401 of the protocol": (401, "/v2/models/digits/infer"),
    "401 of a reload": (401, "/model/reload"),
    "404": (404, "/v2/health/nothing"),
    "404 of no address": (404, "/health/live%0A"),
    "405": (405, "/health/live"),
}


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("kind", EARLY)
def test_whoever_sends_everything_before_it_reads_sees_an_answer_that_needs_no_body(
    keyed_server: Server, kind: str, version: str
) -> None:
    status, path = EARLY[kind]
    body = bytes(9 * MIB)
    for _ in range(3):
        with connected(keyed_server) as sock:
            fields = head(path, f"Content-Length: {len(body)}", "Connection: close")
            sock.sendall(fields.replace(b"HTTP/1.1", version.encode()) + body)
            assert read_answer(sock).status_code == status
            assert sock.recv(1) == b""


def test_whoever_is_refused_a_reload_sees_it_though_a_body_comes(server: Server) -> None:
    with connected(server) as sock:
        body = bytes(9 * MIB)
        fields = head("/model/reload", f"Content-Length: {len(body)}", "Connection: close")
        sock.sendall(fields + body)
        check_problem(read_answer(sock), 403)


@pytest.mark.parametrize("kind", EARLY)
@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_an_answer_that_needs_no_body_does_not_wait_for_it(
    keyed_server: Server, kind: str, connection: str
) -> None:
    status, path = EARLY[kind]
    with connected(keyed_server) as sock:
        began = time.monotonic()
        sock.sendall(head(path, "Content-Length: 5000", f"Connection: {connection}") + b"x")
        assert read_answer(sock).status_code == status
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("kind", EARLY)
def test_whoever_asks_first_and_is_refused_is_told_that_nothing_more_is_read(
    keyed_server: Server, kind: str
) -> None:
    status, path = EARLY[kind]
    with connected(keyed_server) as sock:
        sock.sendall(head(path, "Content-Length: 5000", "Expect: 100-continue"))
        answer = read_answer(sock)
        assert answer.status_code == status  # and no "100 Continue" first
        assert answer.headers["connection"] == "close"
        assert sock.recv(1) == b""


def test_a_connection_goes_on_after_an_answer_that_needed_no_body(keyed_server: Server) -> None:
    with connected(keyed_server) as sock:
        for _ in range(3):
            sock.sendall(head("/predict", "Content-Length: 100000") + bytes(100_000))
            answer = read_answer(sock)
            assert answer.status_code == 401
            assert "connection" not in answer.headers
        sock.sendall(head("/predict", "Content-Length: 0", "Expect: 100-continue"))
        assert "connection" not in read_answer(sock).headers


def ask_guard(path: str, length: str) -> tuple[int, dict[str, str]]:
    """Ask an application, without a server, with a header of this length."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "http_version": "1.1",
        "headers": [(b"content-length", length.encode()), (b"content-type", FORM_TYPE.encode())],
    }
    app = create_app(Settings(device="cpu"))
    app.state.holder.refusal = lambda: ProblemError(429, "full")  # bodies are dropped
    asyncio.run(app(scope, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    assert not sent[-1].get("more_body")
    return sent[0]["status"], headers


@pytest.mark.parametrize("length", ["9" * 19, "1" + "0" * 19, "9" * 5000, "0" * 5000 + "9" * 30])
def test_a_length_that_nothing_has_is_413(length: str) -> None:
    status, headers = ask_guard("/predict", length)
    assert status == 413
    assert headers["connection"] == "close"
    assert ask_guard("/nothing", length)[0] == 404


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
def test_a_parameter_out_of_range_is_422_and_named(
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


# Load


def check_retry(response: httpx.Response) -> None:
    check_problem(response, 429)
    assert re.fullmatch(r"[1-9]\d*", response.headers["retry-after"])


def test_a_batch_that_can_never_fit_the_queue_is_413(strict: Server, seven_png: bytes) -> None:
    with strict.client() as client:
        check_problem(client.post("/predict/batch", files=[("files", seven_png)] * 3), 413)
        answer = client.post("/predict/batch", files=[("files", seven_png)] * 2)
        assert [entry["prediction"] for entry in answer.json()["results"]] == ["7", "7"]


def test_requests_beyond_the_queue_are_429_and_the_others_are_answered(
    strict: Server, seven_png: bytes
) -> None:
    n_clients = 12
    barrier = Barrier(n_clients)

    def ask(_: int) -> httpx.Response:
        with strict.client() as client:
            client.get("/health/live")  # connected before the others start
            barrier.wait()
            return client.post("/predict", files={"file": seven_png})

    with ThreadPoolExecutor(n_clients) as pool:
        answers = list(pool.map(ask, range(n_clients)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < n_clients
    for answer in refused:
        check_retry(answer)
    with strict.client() as client:  # the queue is empty again
        check_seven(client.post("/predict", files={"file": seven_png}))


def test_an_answer_after_its_deadline_is_504_and_leaves_its_place_in_the_queue(
    hasty: Server, seven_png: bytes
) -> None:
    with hasty.client() as client:
        for _ in range(20):  # four times the queue: were places lost, the rest would be 429
            check_problem(client.post("/predict", files={"file": seven_png}), 504)
        check_problem(client.post("/predict/batch", files=[("files", seven_png)] * 3), 504)


def test_a_client_that_leaves_amid_its_body_harms_nobody(server: Server) -> None:
    for _ in range(5):
        with connected(server) as sock:
            sock.sendall(head("/predict", "Content-Length: 50000") + part(b"x"))
    with server.client() as client:
        check_seven(client.post("/predict", files={"file": encoded(drawn_seven())}))


def test_after_all_this_the_same_services_answer_and_have_logged_no_fault(
    server: Server, strict: Server, hasty: Server, seven_png: bytes
) -> None:
    for used in (server, strict):
        with used.client() as client:
            check_seven(client.post("/predict", files={"file": seven_png}))
    for used in (server, strict, hasty):
        log = used.log.read_text()
        assert used.process.poll() is None
        assert "Traceback" not in log
        assert "error" not in {line["level"] for line in used.logged()}


def test_the_checks_of_this_module_can_fail() -> None:
    """Guards the helper that everything above relies on."""
    good = {"type": "about:blank", "title": "t", "status": 422, "detail": "d", "request_id": "r"}
    assert check_problem_body(good, 422) == "d"
    leak = {**good, "detail": f"{ROOT}/model"}
    for bad in (leak, {**good, "status": 400}, {**good, "extra": 1}, {**good, "detail": ""}):
        with pytest.raises(AssertionError):
            check_problem_body(bad, 422)

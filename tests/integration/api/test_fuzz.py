"""Hostile bodies over a real socket: no 5xx, no hang, no crash, and every answer as declared.

A normal run is short; `MNN_FUZZ_EXAMPLES=20000` makes it thorough.
"""

import json
import re
import socket
import time
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.support.fuzz.hostile import edited, hostile_images
from tests.support.fuzz.strategies import fuzz_examples, image_files
from tests.support.images import drawn_seven, encoded
from tests.support.service.problems import check_problem, check_problem_body, check_seven
from tests.support.service.server import Server

# Far more than any of them takes: what takes longer hangs.
NO_HANG = timedelta(seconds=30)
REFUSED = (413, 415, 422)
SEVEN = encoded(drawn_seven(40))
IMAGES_AT_ONCE = 20

pytestmark = pytest.mark.not_through_ray("it reads the log of a process")

thorough = settings(deadline=NO_HANG, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def fuzzed(server: Server) -> Iterator[Server]:
    """A service that in the end still answers, and has logged no fault."""
    yield server
    with server.client() as client:
        check_seven(client.post("/predict", files={"file": encoded(drawn_seven())}))
    assert not [line for line in server.logged() if line["level"] in ("error", "critical")]


@pytest.fixture(scope="module")
def asking(fuzzed: Server) -> Iterator[httpx.Client]:
    with fuzzed.client() as client:
        yield client


# Pictures


@settings(thorough, max_examples=fuzz_examples(200) // IMAGES_AT_ONCE)
@given(st.lists(hostile_images(), min_size=IMAGES_AT_ONCE, max_size=IMAGES_AT_ONCE))
def test_each_hostile_image_of_a_batch_gets_an_answer_or_a_problem(
    asking: httpx.Client, pictures: list[bytes]
) -> None:
    files = [("files", ("a.png", picture)) for picture in [SEVEN, *pictures]]
    answer = asking.post("/predict/batch", files=files)
    assert answer.status_code == 200, answer.text
    first, *results = answer.json()["results"]
    assert first["prediction"] == "7"
    assert len(results) == len(pictures)
    for result in results:
        if "error" in result:
            assert result["error"]["status"] in REFUSED
            check_problem_body(result["error"], result["error"]["status"])
        else:
            total = sum(entry["probability"] for entry in result["classes"])
            assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "tag", [b"\x15\x01\x03\x00", b"\x17\x01\x04\x00"], ids=["samples", "bytes"]
)
def test_messages_of_libraries_about_damaged_images_are_not_logged(
    fuzzed: Server, asking: httpx.Client, tag: bytes
) -> None:
    # The samples of a pixel, which Pillow calls an error; the bytes of a strip, on which libtiff
    # writes a line of its own to standard error.
    picture = bytearray(encoded(drawn_seven().convert("RGB"), "TIFF", compression="tiff_lzw"))
    value = picture.index(tag) + 8
    picture[value] = 0 if tag[0] == 0x17 else 255
    picture[value + 1 : value + 4] = bytes(3)
    before = len(fuzzed.log.read_text())
    sent = {"files": {"file": bytes(picture)}, "headers": {"X-Request-ID": f"damaged-{tag[0]}"}}
    check_problem(asking.post("/predict", **sent), 422)
    deadline = time.monotonic() + 10
    while f"damaged-{tag[0]}" not in (told := fuzzed.log.read_text()[before:]):
        assert time.monotonic() < deadline, told
        time.sleep(0.01)
    levels = {json.loads(line)["level"] for line in told.splitlines()}  # each of them is an object
    assert levels == {"info"}


# Forms

WORDS = st.sampled_from(
    ["file", "files", "filename", "name", "form-data", "attachment", "é", "%22", "..", "\\", "\x00"]
)
TEXTS = st.one_of(WORDS, st.text(max_size=12))


def seldom(usual: bytes, *others: bytes) -> st.SearchStrategy[bytes]:
    """Mostly the usual, so that one oddity is met without all the others."""
    return st.sampled_from([usual] * (3 * len(others)) + list(others))


@st.composite
def part_heads(draw: st.DrawFn) -> bytes:
    """The head of a part, of which hardly anything need be in order."""
    name = draw(st.sampled_from(["file", "files"]) | TEXTS)
    lines = [f'Content-Disposition: form-data; name="{name}"']
    if draw(st.booleans()):
        mark = draw(st.sampled_from(["filename", "filename*", "FILENAME", "filename*0"]))
        lines[0] += f'; {mark}="{draw(TEXTS)}"'
    for _ in range(draw(st.integers(0, 3))):
        field = draw(st.sampled_from(["Content-Type", "Content-Transfer-Encoding", "X"]) | TEXTS)
        value = draw(
            st.sampled_from(["image/png", "base64", "text/plain; charset=klingon"]) | TEXTS
        )
        lines.append(f"{field}{draw(st.sampled_from([':', ': ', '', '::']))}{value}")
    if draw(st.integers(0, 9)) == 0:
        lines = draw(st.permutations(lines)) * draw(st.integers(0, 60))
    ends = draw(seldom(b"\r\n", b"\n", b"\r"))
    return ends.join(line.encode("utf-8", "surrogatepass") for line in lines) + ends * 2


GOOD_HEADS = st.sampled_from(
    [
        f'Content-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'.encode()
        for name in ("file", "files")
    ]
)


@st.composite
def hostile_forms(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A content type and a body that may be a form."""
    mark = draw(seldom(b"b", b"b" * 70, b"-", b"a b", b"'()+_,-./:=?"))
    body = b""
    for _ in range(draw(st.integers(0, 4))):
        content = draw(st.one_of(st.just(SEVEN), st.binary(max_size=80), image_files()))
        body += b"--" + mark + b"\r\n" + draw(GOOD_HEADS | part_heads()) + content + b"\r\n"
    body += draw(seldom(b"--" + mark + b"--\r\n", b"--" + mark + b"--", b""))
    if draw(st.integers(0, 3)) == 0:
        body = draw(edited(body, others=st.just(body)))
    kind = draw(
        seldom(
            b"multipart/form-data",
            b"multipart/mixed",
            b"application/x-www-form-urlencoded",
            b"MULTIPART/FORM-DATA",
            b"",
        )
    )
    kind += b"; boundary=" + draw(seldom(mark, b'"' + mark + b'"', b"other", b""))
    return kind + draw(seldom(b"", b"; charset=utf-16", b"; charset=\xe9", b"; b")), body


@settings(thorough, max_examples=fuzz_examples(100))
@given(form=hostile_forms(), path=st.sampled_from(["/predict", "/predict/batch"]))
def test_a_hostile_form_is_answered_or_rejected_as_declared(
    asking: httpx.Client, form: tuple[bytes, bytes], path: str
) -> None:
    kind, body = form
    answer = asking.post(path, content=body, headers={"Content-Type": kind})
    event(f"{answer.status_code}")
    if answer.status_code != 200:
        assert answer.status_code in REFUSED
        check_problem(answer, answer.status_code)


# Requests


def whole_request(path: str, body: bytes, *fields: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: multipart/form-data; boundary=b"]
    return "\r\n".join([*head, *fields]).encode() + b"\r\n\r\n" + body


FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    + SEVEN
    + b"\r\n--b--\r\n"
)
CHUNKED = f"{len(FORM):x}\r\n".encode() + FORM + b"\r\n0\r\n\r\n"
REQUESTS = (
    whole_request("/predict?samples=50&preview=1", FORM, f"Content-Length: {len(FORM)}"),
    whole_request("/predict", CHUNKED, "Transfer-Encoding: chunked"),
    b"GET /model HTTP/1.1\r\nHost: x\r\nX-Request-ID: id-1\r\nAuthorization: Bearer x\r\n\r\n",
    b"GET /docs/swagger-ui.css HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n",
)
LINES = st.sampled_from(
    [
        b"Content-Length: 99999999999999999999\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 0\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
        b"Connection: close\r\n",
        b"X-Request-ID: \xff\xfe\r\n",
        b"Host: y\r\n",
        b"Accept: application/openmetrics-text; q=x\r\n",
        b"If-None-Match: \xe9\r\n",
        b"x" * 5000 + b": y\r\n",
    ]
)


@st.composite
def hostile_requests(draw: st.DrawFn) -> bytes:
    """Bytes that were one or two requests once."""
    data = draw(st.sampled_from(REQUESTS))
    for _ in range(draw(st.integers(0, 2))):
        place = data.find(b"\r\n") + 2
        data = data[:place] + draw(LINES) + data[place:]
    data = draw(edited(data, others=st.sampled_from(REQUESTS)))
    return data + (draw(st.sampled_from(REQUESTS)) if draw(st.booleans()) else b"")


def exchanged(server: Server, data: bytes) -> bytes:
    """What comes back for these bytes; nothing more is sent after them."""
    url = httpx.URL(server.url)
    received = b""
    with socket.create_connection((url.host, url.port or 80), timeout=20) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65_536):
                received += piece
        except (ConnectionResetError, BrokenPipeError):
            event("reset")
    return received


@settings(thorough, max_examples=fuzz_examples(150))
@given(data=hostile_requests())
def test_hostile_bytes_harm_nobody(fuzzed: Server, data: bytes) -> None:
    received = exchanged(fuzzed, data)
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]
    event(f"{statuses[:1]}")
    assert all(status < 500 for status in statuses)
    assert b"Traceback" not in received

"""Bodies that are too large or too slow, and answers that come before the body."""

import asyncio
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service import Settings, create_app
from tests.support.images import drawn_seven, encoded
from tests.support.service.problems import check_problem, check_seven
from tests.support.service.raw_http import END, FORM_TYPE, connected, head, part, read_answer
from tests.support.service.server import Server

MIB = 2**20
UPLOAD_LIMIT = 100_000  # of `strict_server`


def stream(data: bytes) -> Iterator[bytes]:
    """A body without a length: it is sent in chunks."""
    for start in range(0, len(data), 65_536):
        yield data[start : start + 65_536]


# Too large


def test_a_body_over_the_limit_is_413_by_its_length(client: httpx.Client) -> None:
    detail = check_problem(client.post("/predict", files={"file": bytes(20 * MIB)}), 413)
    assert "bytes" in detail


def test_a_chunked_body_over_the_limit_is_413(client: httpx.Client) -> None:
    body = part(bytes(20 * MIB)) + END
    answer = client.post("/predict", content=stream(body), headers={"Content-Type": FORM_TYPE})
    assert "content-length" not in answer.request.headers
    check_problem(answer, 413)


@pytest.mark.parametrize("chunked", [False, True], ids=["with length", "chunked"])
def test_a_client_that_sends_everything_before_it_reads_sees_413(
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


@pytest.mark.not_through_ray("Ray's proxy answers 100 Continue before it asks the replica")
def test_a_client_that_expects_100_continue_is_refused_before_it_sends(server: Server) -> None:
    with connected(server) as sock:
        fields = (f"Content-Length: {20 * MIB}", "Expect: 100-continue")
        sock.sendall(head("/predict", *fields))
        assert sock.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 413"  # and no "100 Continue" first
        check_problem(read_answer(sock), 413)


def test_a_chunked_body_is_counted_while_it_streams(strict_server: Server) -> None:
    piece = part(bytes(3 * UPLOAD_LIMIT))
    with connected(strict_server) as sock:
        sock.sendall(head("/predict", "Transfer-Encoding: chunked"))
        sock.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")  # and no end
        check_problem(read_answer(sock), 413)  # not 408


def test_a_file_at_the_limit_is_read_and_one_byte_more_is_413(strict_server: Server) -> None:
    seven = encoded(drawn_seven())
    with strict_server.client() as client:
        at_limit = seven.ljust(UPLOAD_LIMIT, b"\0")  # bytes after a PNG's end mean nothing
        check_seven(client.post("/predict", files={"file": at_limit}))
        detail = check_problem(client.post("/predict", files={"file": at_limit + b"\0"}), 413)
        assert f"{UPLOAD_LIMIT:,}" in detail
        check_problem(client.post("/predict", files={"file": at_limit * 3}), 413)


def test_too_many_parts_of_a_form_are_413(client: httpx.Client) -> None:
    files = [("files", ("a.png", b"x"))] * 1_100
    check_problem(client.post("/predict/batch", files=files), 413)


# Too slow


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_a_body_that_stalls_is_408(strict_server: Server, path: str) -> None:
    with connected(strict_server) as sock:
        began = time.monotonic()
        sock.sendall(head(path, "Content-Length: 5000") + part(b"x"))
        detail = check_problem(read_answer(sock), 408)
        assert 0.3 < time.monotonic() - began < 5
        assert "0.5 s" in detail
        assert sock.recv(1) == b""  # closed: further bytes are no new request


def test_a_body_that_trickles_is_408(strict_server: Server) -> None:
    with connected(strict_server) as sock:
        began = time.monotonic()
        sock.sendall(head("/predict", "Content-Length: 5000") + part(b"x")[:-2])
        while not select.select([sock], [], [], 0.05)[0]:
            assert time.monotonic() - began < 5
            sock.sendall(b"x")
        check_problem(read_answer(sock), 408)


def test_a_client_that_leaves_amid_its_body_harms_nobody(server: Server) -> None:
    for _ in range(5):
        with connected(server) as sock:
            sock.sendall(head("/predict", "Content-Length: 50000") + part(b"x"))
    with server.client() as client:
        check_seven(client.post("/predict", files={"file": encoded(drawn_seven())}))


# Answers before the body


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
def test_a_client_that_sends_everything_before_it_reads_sees_an_early_answer(
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


def test_a_client_that_sends_a_body_with_a_refused_reload_sees_403(server: Server) -> None:
    with connected(server) as sock:
        body = bytes(9 * MIB)
        fields = head("/model/reload", f"Content-Length: {len(body)}", "Connection: close")
        sock.sendall(fields + body)
        check_problem(read_answer(sock), 403)


@pytest.mark.parametrize("kind", EARLY)
@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_an_early_answer_does_not_wait_for_the_body(
    keyed_server: Server, kind: str, connection: str
) -> None:
    status, path = EARLY[kind]
    with connected(keyed_server) as sock:
        began = time.monotonic()
        sock.sendall(head(path, "Content-Length: 5000", f"Connection: {connection}") + b"x")
        assert read_answer(sock).status_code == status
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("kind", EARLY)
def test_an_early_answer_to_expect_100_continue_closes_the_connection(
    keyed_server: Server, kind: str
) -> None:
    status, path = EARLY[kind]
    with connected(keyed_server) as sock:
        sock.sendall(head(path, "Content-Length: 5000", "Expect: 100-continue"))
        answer = read_answer(sock)
        assert answer.status_code == status  # and no "100 Continue" first
        assert answer.headers["connection"] == "close"
        assert sock.recv(1) == b""


def test_the_connection_stays_open_after_an_early_answer(keyed_server: Server) -> None:
    with connected(keyed_server) as sock:
        for _ in range(3):
            sock.sendall(head("/predict", "Content-Length: 100000") + bytes(100_000))
            answer = read_answer(sock)
            assert answer.status_code == 401
            assert "connection" not in answer.headers
        sock.sendall(head("/predict", "Content-Length: 0", "Expect: 100-continue"))
        assert "connection" not in read_answer(sock).headers


def answer_to_length(path: str, length: str) -> tuple[int, dict[str, str]]:
    """Ask an application, without a server, with a `Content-Length` of this value."""
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
    asyncio.run(app(scope, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    assert not sent[-1].get("more_body")
    return sent[0]["status"], headers


@pytest.mark.parametrize("length", ["9" * 19, "1" + "0" * 19, "9" * 5000, "0" * 5000 + "9" * 30])
def test_a_content_length_beyond_all_bounds_is_413(length: str) -> None:
    status, headers = answer_to_length("/predict", length)
    assert status == 413
    assert headers["connection"] == "close"
    assert answer_to_length("/nothing", length)[0] == 404

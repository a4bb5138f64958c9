"""HTTP/1.1 by hand, for requests that no HTTP client would send."""

import http.client
import socket

import httpx

from tests.support.service.server import Server

__all__ = [
    "BOUNDARY",
    "END",
    "FORM_TYPE",
    "begin_request",
    "closed",
    "connected",
    "head",
    "part",
    "read_answer",
    "receive_all",
]

BOUNDARY = b"boundary-of-a-test"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY.decode()}"
END = b"--" + BOUNDARY + b"--\r\n"
"""The closing boundary of a multipart form."""


def connected(server: Server | httpx.Client) -> socket.socket:
    """Open a connection to a server, or to the one that a client asks."""
    url = server.base_url if isinstance(server, httpx.Client) else httpx.URL(server.url)
    return socket.create_connection((url.host, url.port or 80), timeout=20)


def head(path: str, *fields: str) -> bytes:
    """Return the request line and headers of a POST request with a multipart body."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {FORM_TYPE}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def part(data: bytes, name: str = "file", filename: str = "a.png") -> bytes:
    """Return one part of a multipart form, without the closing boundary."""
    fields = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
    fields += "Content-Type: application/octet-stream\r\n\r\n"
    return b"--" + BOUNDARY + b"\r\n" + fields.encode() + data + b"\r\n"


def begin_request(server: Server, image: bytes) -> tuple[socket.socket, bytes]:
    """Open a connection and send the start of a `POST /predict`; returns it and the rest."""
    body = part(image) + END
    connection = connected(server)
    connection.sendall(head("/predict", f"Content-Length: {len(body)}") + body[:200])
    return connection, body[200:]


def read_answer(sock: socket.socket) -> httpx.Response:
    """Read one answer."""
    answer = http.client.HTTPResponse(sock)
    try:
        answer.begin()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
    finally:
        answer.close()


def receive_all(sock: socket.socket) -> bytes:
    """Read until the service closes the connection."""
    received = b""
    while piece := sock.recv(65_536):
        received += piece
    return received


def closed(sock: socket.socket, timeout_s: float = 10) -> bool:
    """Whether the service has closed the connection, or closes it in time."""
    sock.settimeout(timeout_s)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True  # the last bytes that we sent crossed its closing

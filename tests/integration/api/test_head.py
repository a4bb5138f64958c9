"""HEAD is answered as GET is, without the body: who watches the service asks so."""

from collections.abc import Callable

import httpx
import pytest

from tests.integration.operations.test_metrics import read, value
from tests.support.server import Server

PATHS = [
    "/", "/web/style.css", "/docs", "/openapi.json", "/health/live", "/health/ready", "/model",
    "/metrics", "/v2", "/v2/health/ready", "/v2/models/digits",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_whatever_can_be_read_can_be_asked_after(client: httpx.Client, path: str) -> None:
    whole = client.get(path)
    # Twice on one connection: a body that was sent would be taken for the next answer.
    for _ in range(2):
        head = client.head(path)
        assert head.status_code == whole.status_code == 200
        assert head.content == b""
        assert head.headers["X-Request-ID"]
        assert head.headers["Content-Type"] == whole.headers["Content-Type"]
        if path != "/metrics":  # which count these very requests
            assert head.headers["Content-Length"] == whole.headers["Content-Length"] != "0"
        assert head.headers.get("ETag") == whole.headers.get("ETag")


def test_what_is_not_there_or_not_to_be_read_says_so(client: httpx.Client) -> None:
    assert client.head("/nothing").status_code == 404
    answer = client.head("/predict")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    answer = client.delete("/model")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert "use GET." in answer.json()["detail"]


def test_it_is_counted_by_its_own_name(make_server: Callable[..., Server]) -> None:
    with make_server(device="cpu", draws=40).client() as client:
        client.head("/model")
        samples = read(client)
    labels = {"route": "/model", "status": "200"}
    assert value(samples, "mnn_requests_total", method="HEAD", **labels) == 1
    assert value(samples, "mnn_requests_total", method="GET", **labels) == 0


def test_it_needs_the_key_where_reading_does(make_server: Callable[..., Server]) -> None:
    key = 16 * "k"
    with make_server(device="cpu", draws=40, api_key=key, key_for_all=True).client() as client:
        assert client.head("/health/live").status_code == 200
        assert client.head("/model").status_code == 401
        answer = client.head("/model", headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 200

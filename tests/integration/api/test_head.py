"""HEAD is answered as GET is, without the body; monitors ask so."""

import httpx
import pytest

from tests.support.service.api_key import bearer
from tests.support.service.metrics import counted, metric_value
from tests.support.service.server import Server

PATHS = [
    "/", "/web/style.css", "/docs", "/openapi.json", "/health/live", "/health/ready", "/model",
    "/metrics", "/v2", "/v2/health/ready", "/v2/models/digits",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_head_has_the_status_and_headers_of_get(client: httpx.Client, path: str) -> None:
    whole = client.get(path)
    # Twice on one connection: the client would take a body for the next answer.
    for _ in range(2):
        head = client.head(path)
        assert head.status_code == whole.status_code == 200
        assert head.content == b""
        assert head.headers["X-Request-ID"]
        assert head.headers["Content-Type"] == whole.headers["Content-Type"]
        if path != "/metrics":  # which count these requests
            assert head.headers["Content-Length"] == whole.headers["Content-Length"] != "0"
        assert head.headers.get("ETag") == whole.headers.get("ETag")


def test_head_of_unknown_paths_and_other_methods_is_404_or_405(client: httpx.Client) -> None:
    assert client.head("/nothing").status_code == 404
    answer = client.head("/predict")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    answer = client.delete("/model")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert "use GET." in answer.json()["detail"]


def test_head_is_counted_by_its_own_name(small_server: Server) -> None:
    with small_server.client() as client, counted(client) as growth:
        client.head("/model")
    labels = {"route": "/model", "status": "200"}
    assert metric_value(growth, "mnn_requests_total", method="HEAD", **labels) == 1
    assert metric_value(growth, "mnn_requests_total", method="GET", **labels) == 0


def test_head_needs_the_key_where_get_does(keyed_server: Server) -> None:
    with keyed_server.client() as client:
        assert client.head("/health/live").status_code == 200
        assert client.head("/model").status_code == 401
        assert client.head("/model", headers=bearer()).status_code == 200

"""The API key, and cross-origin requests."""

import asyncio
import itertools
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr, ValidationError
from starlette._utils import get_route_path

from service import Settings, create_app
from service.api.openapi import operations
from service.paths import own_path
from tests.support.service.api_key import KEY, bearer
from tests.support.service.declared import document
from tests.support.service.metrics import counted, metric_value
from tests.support.service.problems import check_problem
from tests.support.service.server import Server, error_of_start


@pytest.fixture(scope="module")
def guarded(keyed_server: Server) -> Iterator[httpx.Client]:
    """A client of a service that requires its key."""
    with keyed_server.client() as client:
        yield client


def test_without_a_configured_key_a_reload_is_403(client: httpx.Client) -> None:
    for headers in ({}, bearer(), bearer("-")):
        answer = client.post("/model/reload", headers=headers)
        assert answer.status_code == 403
        assert "MNN_API_KEY" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        bearer(KEY[:-1]),
        bearer(KEY + "x"),
        bearer(KEY.upper()),
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer schön".encode()},
    ],
)
def test_a_missing_or_wrong_key_is_401(
    guarded: httpx.Client, headers: dict[str, str | bytes]
) -> None:
    for path in ("/model/reload", "/predict", "/predict/batch"):
        answer = guarded.post(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
    for path in ("/model", "/metrics", "/model/report", "/nothing"):
        assert guarded.get(path, headers=headers).status_code == 401


@pytest.mark.not_through_ray("on Ray a reload is 409; test_ray.py asks the rest")
def test_the_key_opens_everything(guarded: httpx.Client, seven_png: bytes) -> None:
    headers = {"authorization": f"bearer {KEY}"}
    answer = guarded.post("/predict", files={"file": seven_png}, headers=headers)
    assert answer.json()["prediction"] == "7"
    for path in ("/model", "/metrics"):
        assert guarded.get(path, headers=headers).status_code == 200
    assert guarded.post("/model/reload", headers=headers).status_code == 200


def test_probes_and_pages_need_no_key(guarded: httpx.Client) -> None:
    for path in ("/", "/web/main.js", "/health/live", "/health/ready", "/docs", "/openapi.json"):
        assert guarded.get(path).status_code == 200, path


def test_a_wrong_key_is_refused_before_the_body_is_read(guarded: httpx.Client) -> None:
    host, port = guarded.base_url.host, guarded.base_url.port
    with socket.create_connection((host, port or 80), timeout=5) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\nx"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 401")


# No spelling of a path avoids the key


@pytest.fixture(scope="module")
def keyed(reload_key_server: Server) -> Iterator[httpx.Client]:
    """A client of a service that requires its key for reloads alone."""
    with reload_key_server.client() as client:
        yield client


CONTROL_CHARACTERS = ("%0A", "%0D", "%00", "%09", "%1F", "%7F", "%85", "%C2%85")
ROUTES = [
    (method, path.format(name="digits", version="x")) for path, method, _ in operations(document())
] + [("GET", path) for path in ("/", "/web/main.js", "/docs", "/openapi.json", "/v2/")]


@pytest.mark.not_through_ray("it compares two services by turns")
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_path_with_a_control_character_at_its_end_is_404(
    method: str, path: str, keyed: httpx.Client, client: httpx.Client
) -> None:
    for asked, end in itertools.product((keyed, client), CONTROL_CHARACTERS):
        answer = asked.request(method, path + end)
        if path.startswith("/v2/"):
            assert answer.status_code == 404
            assert set(answer.json()) == {"error"}
        else:
            check_problem(answer, 404)


@pytest.mark.not_through_ray("it compares three services by turns")
@pytest.mark.parametrize("end", ["%0A", "%0D%0A", "%0a?x", "/", "%2F", "%00", "?", ";", "%20"])
def test_no_spelling_of_the_path_reloads_without_the_key(
    keyed: httpx.Client, guarded: httpx.Client, client: httpx.Client, end: str
) -> None:
    for asked in (keyed, guarded, client):
        for start in ("", "/", "/.", "/x/..", "//x/.."):
            path = f"{start}/model/reload{end}"
            target = asked.base_url.copy_with(raw_path=path.encode())
            assert asked.post(target).status_code in {401, 403, 404}


@pytest.mark.parametrize("root", ["", "/", "/m", "/mo", "/model", "/model/", "/model/reload", "/x"])
@pytest.mark.parametrize(
    "path", ["", "/", "/m", "/m/", "/m/x", "/model", "/model/reload", "/model/reloads", "//m", "m"]
)
def test_own_path_agrees_with_starlette(path: str, root: str) -> None:
    scope = {"type": "http", "path": path, "root_path": root}
    assert own_path(scope) == get_route_path(scope)


@pytest.mark.parametrize("root", ["/m", "/model", "/mod", "/model/reload", "/"])
def test_no_root_path_avoids_the_key(root: str) -> None:
    for settings in (
        Settings(api_key=KEY),
        Settings(api_key=KEY, require_api_key=True),
        Settings(),
    ):
        transport = httpx.ASGITransport(app=create_app(settings), root_path=root)

        async def status(path: str, of: httpx.ASGITransport = transport) -> int:
            async with httpx.AsyncClient(transport=of, base_url="http://test") as client:
                return (await client.post(path)).status_code

        for path in ("/model/reload", f"{root}/model/reload"):
            assert asyncio.run(status(path)) in {401, 403, 404}


REFUSED = {
    "no key": {("POST", "/model/reload", "403"): 1},
    "a key": {("POST", "/model/reload", "401"): 1, ("GET", "none", "401"): 0},
    "a key for all": {
        ("POST", "/model/reload", "401"): 1,
        ("GET", "/metrics", "401"): 1,
        ("GET", "none", "401"): 1,
        ("GET", "/v2/models/{name}/versions/{version}", "401"): 1,
    },
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refusals_are_counted_by_route(
    small_server: Server, reload_key_server: Server, keyed_server: Server, kind: str
) -> None:
    expected = REFUSED[kind]
    servers = dict(zip(REFUSED, (small_server, reload_key_server, keyed_server), strict=True))
    client, keyed = servers[kind].client(), servers[kind].client(headers=bearer())
    with client, keyed, counted(keyed) as growth:
        client.post("/model/reload")
        client.get("/metrics")
        client.get("/nothing")
        client.get("/v2/models/x/versions/y")
    for (method, route, status), n in expected.items():
        labels = {"method": method, "route": route, "status": status}
        assert metric_value(growth, "mnn_requests_total", **labels) == n, labels


def test_the_key_is_never_printed() -> None:
    assert KEY not in repr(Settings(api_key=KEY))
    for settings in ({"api_key": "short secret"}, {"api_key": KEY, "cors_origins": "*"}):
        error = error_of_start(**settings)
        assert error.startswith("error: MNN_")
        assert "secret" not in error
        assert KEY not in error


@pytest.mark.parametrize("written", [f"{KEY}\n", f" {KEY}\r\n", f"\t{KEY}"])
def test_white_space_around_the_key_is_ignored(written: str) -> None:
    for given in (written, SecretStr(written)):
        key = Settings(api_key=given).api_key  # type: ignore[arg-type]
        assert key is not None
        assert key.get_secret_value() == KEY


@pytest.mark.parametrize("key", ["sixteen characters \N{KEY}", "schl\xfcssel" * 3, "line\none" * 4])
def test_a_key_that_no_header_can_carry_is_invalid(key: str) -> None:
    error = error_of_start(api_key=key)
    assert error.startswith("error: MNN_API_KEY: The key must consist of printable ASCII")
    assert key.strip() not in error
    with pytest.raises(ValidationError, match="at least 16"):
        Settings(api_key=f"short{' ' * 20}")


def test_require_api_key_needs_a_key() -> None:
    with pytest.raises(ValidationError, match="MNN_REQUIRE_API_KEY needs a key"):
        Settings(require_api_key=True)


# Cross-origin requests


@pytest.mark.parametrize("origins", ["*", "forms.example", "https://a.example/path"])
def test_only_origins_can_be_listed(origins: str) -> None:
    with pytest.raises(ValidationError, match="is not an origin such as"):
        Settings(cors_origins=origins)


@pytest.mark.not_through_ray("it compares two services by turns")
def test_listed_origins_are_allowed_and_no_others(
    shared_server: Callable[..., Server], client: httpx.Client
) -> None:
    listed = "https://forms.example"
    server = shared_server(device="cpu", draws=40, cors_origins=f"{listed}, https://b.example")
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "X-Request-ID, Authorization, Content-Type, "
        "Content-Encoding, Inference-Header-Content-Length",
    }
    with server.client() as listing:
        allowed = listing.options("/predict", headers={"Origin": listed, **preflight})
        assert allowed.status_code == 200
        assert allowed.headers["Access-Control-Allow-Origin"] == listed
        other = listing.options("/predict", headers={"Origin": "https://evil.example", **preflight})
        assert "Access-Control-Allow-Origin" not in other.headers
        assert allowed.headers["X-Request-ID"]
        refused = listing.post("/model/reload", headers={"Origin": listed})
        assert refused.status_code == 403
        assert refused.headers["Access-Control-Allow-Origin"] == listed
        answer = listing.get("/model", headers={"Origin": listed})
        assert answer.headers["Access-Control-Allow-Origin"] == listed
        assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]
    assert (
        "Access-Control-Allow-Origin"
        not in client.get("/model", headers={"Origin": listed}).headers
    )


def test_a_mounted_application_requires_the_key() -> None:
    outer = FastAPI()
    outer.mount("/below", create_app(Settings(api_key=KEY, require_api_key=True)))

    async def status(method: str, path: str, **options: Any) -> int:
        transport = httpx.ASGITransport(app=outer)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.request(method, f"/below{path}", **options)).status_code

    assert asyncio.run(status("POST", "/model/reload")) == 401
    assert asyncio.run(status("GET", "/metrics")) == 401
    assert asyncio.run(status("GET", "/health/live")) == 200
    assert asyncio.run(status("GET", "/metrics", headers=bearer())) == 200

"""Who may ask for what: keys, and the pages of others."""

import asyncio
import itertools
import socket
import subprocess
import sys
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
from tests.integration.api.test_bad_input import check_problem
from tests.support.declared import document
from tests.support.server import Server, service_environment

KEY = "sixteen characters or more"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def guarded(make_server: Callable[..., Server]) -> Iterator[httpx.Client]:
    """A service that wants its key for everything it may."""
    server = make_server(device="cpu", draws=40, api_key=KEY, key_for_all=True)
    with server.client() as client:
        yield client


def test_without_a_key_nobody_may_reload(client: httpx.Client) -> None:
    for headers in ({}, bearer(KEY), bearer("-")):
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
def test_a_missing_or_wrong_key_is_refused(
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


def test_the_key_opens_everything(guarded: httpx.Client, seven_png: bytes) -> None:
    headers = {"authorization": f"bearer {KEY}"}
    answer = guarded.post("/predict", files={"file": seven_png}, headers=headers)
    assert answer.json()["prediction"] == "7"
    for path in ("/model", "/metrics"):
        assert guarded.get(path, headers=headers).status_code == 200
    assert guarded.post("/model/reload", headers=headers).status_code == 200


def test_probes_page_and_documents_stay_open(guarded: httpx.Client) -> None:
    for path in ("/", "/web/main.js", "/health/live", "/health/ready", "/docs", "/openapi.json"):
        assert guarded.get(path).status_code == 200, path


def test_a_body_is_not_read_before_the_key(guarded: httpx.Client) -> None:
    # The answer comes while the client is still sending; it does not wait for the rest.
    host, port = guarded.base_url.host, guarded.base_url.port
    with socket.create_connection((host, port or 80), timeout=5) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\nx"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 401")


# What is asked for is what is guarded


@pytest.fixture(scope="module")
def keyed(make_server: Callable[..., Server]) -> Iterator[httpx.Client]:
    """A service with a key, for reloads alone."""
    with make_server(device="cpu", draws=40, api_key=KEY).client() as client:
        yield client


NOT_CHARACTERS = ("%0A", "%0D", "%00", "%09", "%1F", "%7F", "%85", "%C2%85")
ROUTES = [
    (method, path.format(name="digits", version="x")) for path, method, _ in operations(document())
] + [("GET", path) for path in ("/", "/web/main.js", "/docs", "/openapi.json", "/v2/")]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_an_address_with_something_invisible_at_its_end_is_another(
    method: str, path: str, keyed: httpx.Client, client: httpx.Client
) -> None:
    for asked, end in itertools.product((keyed, client), NOT_CHARACTERS):
        answer = asked.request(method, path + end)
        if path.startswith("/v2/"):
            assert answer.status_code == 404
            assert set(answer.json()) == {"error"}
        else:
            check_problem(answer, 404)


@pytest.mark.parametrize("end", ["%0A", "%0D%0A", "%0a?x", "/", "%2F", "%00", "?", ";", "%20"])
def test_no_way_of_writing_the_address_reloads_without_the_key(
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
def test_the_path_is_taken_apart_as_the_routes_take_it(path: str, root: str) -> None:
    scope = {"type": "http", "path": path, "root_path": root}
    assert own_path(scope) == get_route_path(scope)


@pytest.mark.parametrize("root", ["/m", "/model", "/mod", "/model/reload", "/"])
def test_no_root_of_the_path_leads_around_the_key(root: str) -> None:
    for settings in (Settings(api_key=KEY), Settings(api_key=KEY, key_for_all=True), Settings()):
        transport = httpx.ASGITransport(app=create_app(settings), root_path=root)

        async def status(path: str, of: httpx.ASGITransport = transport) -> int:
            async with httpx.AsyncClient(transport=of, base_url="http://test") as client:
                return (await client.post(path)).status_code

        for path in ("/model/reload", f"{root}/model/reload"):
            assert asyncio.run(status(path)) in {401, 403, 404}


def test_refusals_are_counted_by_their_routes(make_server: Callable[..., Server]) -> None:
    with make_server(device="cpu", draws=40).client() as client:
        client.post("/model/reload")
        text = client.get("/metrics").text
    assert 'mnn_requests_total{method="POST",route="/model/reload",status="403"} 1.0' in text
    for for_all, of_metrics in ((False, "200"), (True, "401")):
        server = make_server(device="cpu", draws=40, api_key=KEY, key_for_all=for_all)
        with server.client() as client:
            client.post("/model/reload")
            client.get("/metrics")
            client.get("/nothing")
            client.get("/v2/models/x/versions/y")
            text = client.get("/metrics", headers=bearer(KEY)).text
        assert 'mnn_requests_total{method="POST",route="/model/reload",status="401"} 1.0' in text
        assert f'mnn_requests_total{{method="GET",route="/metrics",status="{of_metrics}"}}' in text
        assert ('route="none",status="401"' in text) == for_all
        if for_all:
            assert 'route="/v2/models/{name}/versions/{version}",status="401"' in text


def test_the_key_is_told_to_nobody() -> None:
    assert KEY not in repr(Settings(api_key=KEY))
    for settings in ({"api_key": "short secret"}, {"api_key": KEY, "cors_origins": "*"}):
        stopped = subprocess.run(
            [sys.executable, "-m", "service"],
            env=service_environment(**settings),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert stopped.returncode == 2
        assert stopped.stderr.startswith("error: MNN_")
        assert "secret" not in stopped.stderr
        assert KEY not in stopped.stderr


@pytest.mark.parametrize("written", [f"{KEY}\n", f" {KEY}\r\n", f"\t{KEY}"])
def test_a_key_may_have_been_kept_in_a_file_of_its_own_line(written: str) -> None:
    for given in (written, SecretStr(written)):
        key = Settings(api_key=given).api_key  # type: ignore[arg-type]
        assert key is not None
        assert key.get_secret_value() == KEY


@pytest.mark.parametrize("key", ["sixteen characters \N{KEY}", "schl\xfcssel" * 3, "line\none" * 4])
def test_a_key_that_no_header_can_carry_stops_the_start(key: str) -> None:
    stopped = subprocess.run(
        [sys.executable, "-m", "service"],
        env=service_environment(api_key=key),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert stopped.returncode == 2
    assert stopped.stderr.startswith("error: MNN_API_KEY: The key must be of printable ASCII")
    assert key.strip() not in stopped.stderr
    with pytest.raises(ValidationError, match="at least 16"):
        Settings(api_key=f"short{' ' * 20}")


def test_a_key_for_all_needs_a_key() -> None:
    with pytest.raises(ValidationError, match="MNN_KEY_FOR_ALL needs a key"):
        Settings(key_for_all=True)


# Pages of others


@pytest.mark.parametrize("origins", ["*", "forms.example", "https://a.example/path"])
def test_only_origins_can_be_listed(origins: str) -> None:
    with pytest.raises(ValidationError, match="is no origin such as"):
        Settings(cors_origins=origins)


def test_pages_of_listed_origins_may_ask_and_no_others(
    make_server: Callable[..., Server], client: httpx.Client
) -> None:
    listed = "https://forms.example"
    server = make_server(device="cpu", draws=40, cors_origins=f"{listed}, https://b.example")
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


def test_the_key_is_asked_for_where_the_application_is_mounted_below_another() -> None:
    outer = FastAPI()
    outer.mount("/below", create_app(Settings(api_key=KEY, key_for_all=True)))

    async def status(method: str, path: str, **options: Any) -> int:
        # Not started: no model is loaded.
        transport = httpx.ASGITransport(app=outer)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.request(method, f"/below{path}", **options)).status_code

    assert asyncio.run(status("POST", "/model/reload")) == 401
    assert asyncio.run(status("GET", "/metrics")) == 401
    assert asyncio.run(status("GET", "/health/live")) == 200
    assert asyncio.run(status("GET", "/metrics", headers=bearer(KEY))) == 200

"""What differs through Ray's proxy; `--through-ray` runs the tests of what does not."""

import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.support.ray.cluster import Cluster, RayServer
from tests.support.service.api_key import KEY, bearer
from tests.support.service.problems import check_problem, check_problem_body
from tests.support.service.raw_http import head, read_answer

MIB = 2**20
ORIGIN = "https://forms.example"


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Iterator[httpx.Client]:
    """A client of the service with default settings, on two replicas."""
    with cluster.default_server().client() as client:
        yield client


@pytest.fixture(scope="module")
def keyed(cluster: Cluster) -> RayServer:
    """A service that requires its key and allows an origin."""
    return cluster.make_server(
        device="cpu", draws=40, api_key=KEY, require_api_key=True, cors_origins=ORIGIN
    )


@pytest.mark.parametrize("given", ["", "0" * 65, "a b", '"<script>"', "a/../b"])
def test_an_invalid_request_id_stands_beside_the_new_one(client: httpx.Client, given: str) -> None:
    answer = client.post("/predict", headers={"X-Request-ID": given})
    check_problem_body(answer.json(), 422)
    assert answer.headers.get_list("x-request-id") == [answer.json()["request_id"], given]


def test_a_client_that_expects_100_continue_gets_it_before_its_413(client: httpx.Client) -> None:
    address = (client.base_url.host, client.base_url.port or 80)
    with socket.create_connection(address, timeout=20) as sock:
        fields = (f"Content-Length: {20 * MIB}", "Expect: 100-continue")
        sock.sendall(head("/predict", *fields))
        assert sock.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 100"
        check_problem(read_answer(sock), 413)


def test_listed_origins_are_allowed_and_no_others(keyed: RayServer) -> None:
    asked = {"Access-Control-Request-Method": "POST"}
    with keyed.client() as client:
        for origin, allowed in ((ORIGIN, ORIGIN), ("https://evil.example", None)):
            answer = client.options("/predict", headers={"Origin": origin, **asked})
            assert answer.headers.get("Access-Control-Allow-Origin") == allowed
            refused = client.get("/model", headers={"Origin": origin})
            assert refused.status_code == 401
            assert refused.headers.get("Access-Control-Allow-Origin") == allowed


def test_the_key_opens_everything_but_a_reload(keyed: RayServer, seven_png: bytes) -> None:
    with keyed.client(headers=bearer()) as client:
        assert client.get("/model").status_code == 200
        assert client.get("/metrics").status_code == 200
        files = {"file": seven_png}
        assert client.post("/predict?level=0.9", files=files).json()["prediction"] == "7"
        detail = check_problem(client.post("/model/reload"), 409)
        assert "deployment manages the weights" in detail
        client.headers.pop("Authorization")
        check_problem(client.post("/model/reload"), 401)


def test_no_spelling_of_a_path_avoids_the_key(cluster: Cluster) -> None:
    with cluster.make_server(device="cpu", draws=40, api_key=KEY).client() as client:
        check_problem(client.post("/model/reload"), 401)
        for end in ("%0A", "%0D%0A", "%0a?x", "/", "%2F", "%00", "?", ";", "%20"):
            for start in ("", "/", "/.", "/x/.."):
                target = client.base_url.copy_with(raw_path=f"{start}/model/reload{end}".encode())
                assert client.post(target).status_code in {401, 404}
        for path in ("/predict", "/model", "/v2/models/digits/infer"):
            assert client.post(f"{path}%0A").status_code == 404

"""The service's own tests of its contract, asked through Ray's proxy before two replicas."""

import socket

import httpx
import pytest

from tests.integration.api import (
    test_api_docs,
    test_bad_input,
    test_batch,
    test_head,
    test_model_and_health,
    test_openapi,
    test_predict,
)
from tests.integration.api import test_images as test_pictures
from tests.integration.api import test_pages as test_page
from tests.integration.api.test_bad_input import (
    MIB,
    check_problem,
    check_problem_body,
    connected,
    head,
    read_answer,
)
from tests.integration.open_inference import test_infer as test_inference
from tests.integration.operations import test_api_key as test_keys
from tests.support.contract import borrowed
from tests.system.ray.conftest import RayServer

pytestmark = pytest.mark.ray

# What is otherwise through Ray, and why. A test below says how it is.
EXCEPTIONS = {
    "test_any_other_request_id_is_replaced": "Ray's proxy repeats whatever id a client sent, "
    "beside the one that the service has given; nothing behind it can keep it from that",
    "test_a_client_that_asks_first_is_refused_before_it_sends": "Ray's proxy reads the body before "
    "the replica has answered, and so tells the client to send it",
}

globals().update(
    borrowed(
        [
            test_predict, test_batch, test_pictures, test_bad_input, test_model_and_health,
            test_head, test_keys, test_inference, test_openapi, test_page, test_api_docs,
        ],
        asking={"client", "server"},
        not_asking={"make_server"},
        but=EXCEPTIONS,
    )
)  # fmt: skip


@pytest.mark.parametrize("given", ["", "0" * 65, "a b", '"<script>"', "a/../b"])
def test_an_id_that_is_not_sane_is_replaced_in_the_answer_and_stands_beside_its_own(
    client: httpx.Client, given: str
) -> None:
    answer = client.post("/predict", headers={"X-Request-ID": given})
    check_problem_body(answer.json(), 422)
    assert answer.headers.get_list("x-request-id") == [answer.json()["request_id"], given]


def test_a_client_that_asks_first_is_told_to_send_and_then_refused(server: RayServer) -> None:
    with connected(server) as sock:  # type: ignore[arg-type]
        fields = (f"Content-Length: {20 * MIB}", "Expect: 100-continue")
        sock.sendall(head("/predict", *fields))
        assert sock.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 100"
        check_problem(read_answer(sock), 413)

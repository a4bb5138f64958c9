"""The tests of the contract that need settings of their own, asked through Ray's proxy."""

from collections.abc import Callable

import pytest

from tests.integration.api import test_bad_input, test_model_and_health
from tests.integration.api.test_bad_input import check_problem
from tests.integration.open_inference import test_infer as test_inference
from tests.integration.operations import test_api_key as test_keys
from tests.integration.operations import test_metrics
from tests.integration.operations.test_api_key import KEY, bearer
from tests.support.contract import borrowed
from tests.system.ray.conftest import RayServer

pytestmark = pytest.mark.ray

# What is otherwise through Ray, and why; tests of what concerns a process alone are among them.
EXCEPTIONS = {
    "test_the_key_opens_everything": "weights are rolled out with the deployment, so that a reload "
    "is refused; what else a key opens is asked below",
    "test_a_checkpoint_in_a_file_is_served": "MNN_CHECKPOINT has no say, for the same reason; "
    "test_ray.py rolls files out",
    "test_a_missing_checkpoint_leaves_the_shipped_weights_and_a_warning_that_names_it": "as above",
    "test_while_it_starts_it_is_live_and_everything_else_is_503": "Ray sends nothing to a replica "
    "that has yet to start",
    "test_once_ready_it_stays_ready": "as above",
    "test_pages_of_listed_origins_may_ask_and_no_others": "it compares two services by turns, for "
    "each of which the other would be deployed anew; it is asked of one below",
    "test_another_number_of_draws_is_another_version_of_the_same_draws": "as above",
    "test_an_address_with_something_invisible_at_its_end_is_another": "as above",
    "test_no_way_of_writing_the_address_reloads_without_the_key": "as above",
    "test_after_all_this_the_same_services_answer_and_have_logged_no_fault": "it reads the log of "
    "a process; test_ray.py reads those of replicas",
}

globals().update(
    borrowed(
        [test_bad_input, test_model_and_health, test_keys, test_metrics, test_inference],
        asking={"make_server"},
        not_asking={"monkeypatch"},
        but=EXCEPTIONS,
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def listing(make_server: Callable[..., RayServer]) -> RayServer:
    """A service with a key for all, and an origin whose pages may ask."""
    return make_server(
        device="cpu", draws=40, api_key=KEY, key_for_all=True, cors_origins="https://forms.example"
    )


def test_pages_of_the_listed_origin_may_ask_and_no_others(listing: RayServer) -> None:
    asked = {"Access-Control-Request-Method": "POST"}
    with listing.client() as client:
        for origin, allowed in (("https://forms.example",) * 2, ("https://evil.example", None)):
            answer = client.options("/predict", headers={"Origin": origin, **asked})
            assert answer.headers.get("Access-Control-Allow-Origin") == allowed
            refused = client.get("/model", headers={"Origin": origin})
            assert refused.status_code == 401
            assert refused.headers.get("Access-Control-Allow-Origin") == allowed


def test_the_key_opens_everything_but_a_reload_which_is_told_how_weights_come(
    listing: RayServer, seven_png: bytes
) -> None:
    with listing.client(headers=bearer(KEY)) as client:
        assert client.get("/model").status_code == 200
        assert client.get("/metrics").status_code == 200
        files = {"file": seven_png}
        assert client.post("/predict?level=0.9", files=files).json()["prediction"] == "7"
        assert "rolled out" in check_problem(client.post("/model/reload"), 409)
        client.headers.pop("Authorization")
        check_problem(client.post("/model/reload"), 401)


def test_no_way_of_writing_an_address_leads_around_the_key(
    make_server: Callable[..., RayServer],
) -> None:
    with make_server(device="cpu", draws=40, api_key=KEY).client() as client:
        check_problem(client.post("/model/reload"), 401)
        for end in ("%0A", "%0D%0A", "%0a?x", "/", "%2F", "%00", "?", ";", "%20"):
            for start in ("", "/", "/.", "/x/.."):
                target = client.base_url.copy_with(raw_path=f"{start}/model/reload{end}".encode())
                assert client.post(target).status_code in {401, 404}
        for path in ("/predict", "/model", "/v2/models/digits/infer"):
            assert client.post(f"{path}%0A").status_code == 404

"""A full queue is 429, a late answer 504; both leave the queue as it was."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import httpx
import pytest

from tests.support.service.problems import check_problem, check_seven
from tests.support.service.server import Server

pytestmark = pytest.mark.not_through_ray("Ray's proxy has a queue and replicas of its own")


@pytest.fixture(scope="module")
def small_queue(shared_server: Callable[..., Server]) -> Server:
    """A service with one worker thread and one place in the queue."""
    return shared_server(device="cpu", worker_threads=1, max_queued_images=1)


@pytest.fixture(scope="module")
def impatient(shared_server: Callable[..., Server]) -> Server:
    """A service whose deadline nothing can meet."""
    return shared_server(
        device="cpu", worker_threads=1, max_queued_images=4, request_timeout_s=0.001
    )


def test_a_batch_that_can_never_fit_the_queue_is_413(small_queue: Server, seven_png: bytes) -> None:
    with small_queue.client() as client:
        check_problem(client.post("/predict/batch", files=[("files", seven_png)] * 3), 413)
        answer = client.post("/predict/batch", files=[("files", seven_png)] * 2)
        assert [entry["prediction"] for entry in answer.json()["results"]] == ["7", "7"]


def test_requests_beyond_the_queue_are_429_and_the_others_are_answered(
    small_queue: Server, seven_png: bytes
) -> None:
    n_clients = 12
    barrier = Barrier(n_clients)

    def ask(_: int) -> httpx.Response:
        with small_queue.client() as client:
            client.get("/health/live")  # connected before the others start
            barrier.wait(timeout=60)
            return client.post("/predict", files={"file": seven_png})

    with ThreadPoolExecutor(n_clients) as pool:
        answers = list(pool.map(ask, range(n_clients)))
    rejected = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(rejected) < n_clients
    for answer in rejected:
        check_problem(answer, 429)
        assert re.fullmatch(r"[1-9]\d*", answer.headers["retry-after"])
    with small_queue.client() as client:  # the queue is empty again
        check_seven(client.post("/predict", files={"file": seven_png}))


def test_an_answer_after_its_deadline_is_504_and_frees_its_place_in_the_queue(
    impatient: Server, seven_png: bytes
) -> None:
    with impatient.client() as client:
        for _ in range(20):  # four times the queue: with places lost, the rest would be 429
            check_problem(client.post("/predict", files={"file": seven_png}), 504)
        check_problem(client.post("/predict/batch", files=[("files", seven_png)] * 3), 504)


def test_none_of_this_is_logged_as_an_error(
    small_queue: Server, impatient: Server, seven_png: bytes
) -> None:
    with small_queue.client() as client:
        check_seven(client.post("/predict", files={"file": seven_png}))
    for used in (small_queue, impatient):
        assert used.process.poll() is None
        assert "Traceback" not in used.log.read_text()
        assert "error" not in {line["level"] for line in used.logged()}

"""The decode budget: how many pixels are decoded at the same time."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from model import open_bytes
from model.errors import ImageTooLargeError
from service.inference.decode_budget import DecodeBudget
from tests.support.images import encoded
from tests.support.service.in_process import graceful


class Watched:
    """Keeps the most pixels that were decoded at once."""

    def __init__(self) -> None:
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def work(self, budget: DecodeBudget, n_pixels: int) -> None:
        with budget(n_pixels):
            with self.lock:
                self.now += n_pixels
                self.most = max(self.most, self.now)
            time.sleep(0.02)
            with self.lock:
                self.now -= n_pixels


@pytest.mark.parametrize(("limit", "most"), [(10, 9), (7, 6), (1000, 24)])
def test_threads_wait_their_turn_to_decode(limit: int, most: int) -> None:
    budget, watched = DecodeBudget(limit), Watched()
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(watched.work, budget, 3) for _ in range(24)]:
            done.result()
    assert watched.most <= most


def test_an_image_larger_than_the_budget_is_decoded_alone() -> None:
    budget, watched = DecodeBudget(10), Watched()
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(watched.work, budget, 100) for _ in range(4)]:
            done.result(timeout=20)
    assert watched.most == 100


def test_a_failed_decoding_returns_its_pixels() -> None:
    budget = DecodeBudget(10)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), budget(10):
            raise ZeroDivisionError


def test_opening_an_image_asks_for_the_pixels_that_it_decodes() -> None:
    asked: list[int] = []
    budget = DecodeBudget(10**9)

    def decoding(n_pixels: int) -> object:
        asked.append(n_pixels)
        return budget(n_pixels)

    open_bytes(encoded(Image.new("L", (300, 200))), decoding=decoding)  # type: ignore[arg-type]
    # A JPEG is decoded straight to a part of its size.
    open_bytes(encoded(Image.new("L", (4096, 4096)), "JPEG"), decoding=decoding)  # type: ignore[arg-type]
    assert asked == [300 * 200, 1024 * 1024]
    with pytest.raises(ImageTooLargeError):
        open_bytes(encoded(Image.new("L", (300, 200))), max_pixels=9, decoding=decoding)  # type: ignore[arg-type]
    assert len(asked) == 2


def test_the_service_decodes_within_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()

    def open_watched(data: bytes, **bounds: object) -> object:
        budget = bounds["decoding"]
        assert isinstance(budget, DecodeBudget)
        watched.work(budget, 900_000)
        return open_bytes(data)

    monkeypatch.setattr("service.inference.jobs.open_bytes", open_watched)
    files = {"file": encoded(Image.new("L", (28, 28), 255))}
    with (
        graceful(worker_threads=4, max_decoding_pixels=2_000_000) as (client, _),
        ThreadPoolExecutor(8) as pool,
    ):
        asked = [pool.submit(client.post, "/predict", files=files) for _ in range(24)]
        assert {answer.result().status_code for answer in asked} == {200}
    assert watched.most == 1_800_000

"""The worker pool: batches, turns, deadlines, clients that leave, and errors of single jobs."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from service.errors import ProblemError
from service.inference.jobs import Job, JobResult
from service.inference.worker_pool import WorkerPool


class Work:
    """Decodes n to 10 n and predicts 10 n + 1, in place of a classifier.

    It keeps what it is given, and tests can make it wait: `go` for decoding, `device` for the rest.
    """

    def __init__(self) -> None:
        self.decoded: list[int] = []
        self.batches: list[list[int]] = []
        self.takes_s = 0.0
        self.go, self.device = threading.Event(), threading.Event()
        self.go.set()
        self.device.set()

    def decode(self, number: int) -> int:
        self.go.wait(10)
        self.decoded.append(number)
        if number == 13:
            raise ValueError("13 cannot be decoded")
        return 10 * number

    def predict_inputs(self, inputs: Sequence[int], **_: object) -> list[int]:
        self.batches.append([value // 10 for value in inputs])
        self.device.wait(10)
        time.sleep(self.takes_s)
        if 70 in inputs:
            raise ZeroDivisionError("7 cannot be computed")
        return [value + 1 for value in inputs]


@dataclass(eq=False, repr=False, kw_only=True)
class NumberJob(Job):
    """A number in place of an image. 5 fails in the worker itself, 9 is a large file."""

    number: int

    @property
    def n_bytes(self) -> int:
        return 300_000 if self.number == 9 else 100

    @property
    def batch_key(self) -> Hashable:
        if self.number == 5:
            raise RuntimeError("a fault of the worker")
        return super().batch_key

    def decode(self, *_: object) -> Any:
        work: Any = self.classifier
        return work.decode(self.number)


@pytest.fixture
def work() -> Work:
    return Work()


def jobs(work: Work, *numbers: int, samples: Callable[[int], int] = lambda _: 100) -> list[Job]:
    """Make the jobs of one request."""
    classifier: Any = work
    return [
        NumberJob(classifier=classifier, samples=samples(n), level=0.9, number=n) for n in numbers
    ]


@pytest.fixture
def make(work: Work) -> Iterator[Callable[..., WorkerPool]]:
    """Make pools of one worker, which are closed at the end."""
    made: list[WorkerPool] = []

    def pool(**options: Any) -> WorkerPool:
        defaults = {"n_workers": 1, "max_batch": 8, "max_queued": 50, "timeout_s": 5.0}
        made.append(WorkerPool(**{**defaults, **options}))
        return made[-1]

    yield pool
    work.go.set()
    work.device.set()
    for each in made:
        each.close()


async def answers(pool: WorkerPool, work: Work, *numbers: int) -> list[object]:
    """Return the predictions, and the names of the errors where there is none."""
    results = await pool.run(jobs(work, *numbers))
    return [type(r.error).__name__ if r.error else r.prediction for r in results]


def while_busy(
    work: Work, pool: WorkerPool, scenario: Callable[[], Coroutine[Any, Any, None]]
) -> list[object]:
    """Run a scenario while the only worker waits to decode 1; returns the answer to that."""

    async def run() -> list[object]:
        work.go.clear()
        first = asyncio.ensure_future(answers(pool, work, 1))
        await asyncio.sleep(0.05)
        await scenario()
        work.go.set()
        return await first

    return asyncio.run(run())


@pytest.mark.parametrize("n_decoders", [0, 2])
def test_every_job_gets_its_own_answer(
    make: Callable[..., WorkerPool], work: Work, n_decoders: int
) -> None:
    pool = make(n_workers=2, n_decoders=n_decoders)

    async def scenario() -> None:
        results = await asyncio.gather(*(answers(pool, work, n, n + 100) for n in range(20, 45)))
        assert results == [[10 * n + 1, 10 * n + 1001] for n in range(20, 45)]

    asyncio.run(scenario())


@pytest.mark.parametrize("n_decoders", [0, 2])
def test_an_error_is_the_result_of_its_own_job_alone(
    make: Callable[..., WorkerPool], work: Work, n_decoders: int
) -> None:
    pool = make(n_decoders=n_decoders)
    expected = [21, "ZeroDivisionError", "ValueError", 31]
    assert asyncio.run(answers(pool, work, 2, 7, 13, 3)) == expected
    assert asyncio.run(answers(pool, work, 2, 7, 13, 3)) == expected


def test_an_error_of_the_worker_fails_its_batch_and_the_worker_goes_on(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    pool = make()
    assert asyncio.run(answers(pool, work, 5)) == ["RuntimeError"]
    assert asyncio.run(answers(pool, work, 6)) == [61]


@pytest.mark.parametrize("n_decoders", [0, 2])
def test_waiting_jobs_are_computed_together_up_to_a_batch(
    make: Callable[..., WorkerPool], work: Work, n_decoders: int
) -> None:
    pool = make(max_batch=4, n_decoders=n_decoders)

    async def scenario() -> None:
        work.device.clear()  # busy with the first number
        tasks = [asyncio.ensure_future(answers(pool, work, 1))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.ensure_future(answers(pool, work, n)) for n in range(20, 30)]
        await asyncio.sleep(0.05)
        work.device.set()
        assert await asyncio.gather(*tasks) == [[11], *([10 * n + 1] for n in range(20, 30))]

    asyncio.run(scenario())
    assert [len(batch) for batch in work.batches] == [1, 4, 4, 2]


def test_jobs_with_different_samples_are_not_computed_together(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    pool = make()
    results = asyncio.run(pool.run(jobs(work, 2, 3, 4, 6, 8, samples=lambda n: 10 + n % 2)))
    assert [result.prediction for result in results] == [21, 31, 41, 61, 81]
    assert work.batches == [[2, 4, 6, 8], [3]]


def test_large_files_are_not_computed_with_others(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    asyncio.run(answers(make(), work, 2, 3, 9, 4, 6))
    assert work.batches == [[2, 3], [9], [4, 6]]


def test_requests_take_turns_so_that_a_large_one_delays_no_other(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    pool = make(max_batch=4)

    async def scenario() -> None:
        asking = []
        for numbers in (range(100, 120), range(200, 205), [300]):
            asking.append(asyncio.ensure_future(answers(pool, work, *numbers)))
            await asyncio.sleep(0)
        work.go.set()
        large, middling, single = await asyncio.gather(*asking)
        assert large == [10 * n + 1 for n in range(100, 120)]
        assert middling == [10 * n + 1 for n in range(200, 205)]
        assert single == [3001]

    while_busy(work, pool, scenario)
    # Four of each in turn, and what is left of a batch is filled with the next one's.
    assert work.batches == [
        [1],
        [100, 101, 102, 103],
        [200, 201, 202, 203],
        [300, 104, 105, 106],
        [204, 107, 108, 109],
        [110, 111, 112, 113],
        [114, 115, 116, 117],
        [118, 119],
    ]


def test_a_request_that_has_not_had_its_turn_keeps_its_place(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    pool = make(max_batch=4)

    async def scenario() -> None:
        asking = []
        for numbers in (range(100, 104), range(200, 204), [300]):
            asking.append(asyncio.ensure_future(answers(pool, work, *numbers)))
            await asyncio.sleep(0)
        work.go.set()
        await asyncio.gather(*asking)

    while_busy(work, pool, scenario)
    assert work.batches == [[1], [100, 101, 102, 103], [200, 201, 202, 203], [300]]


def test_workers_share_the_waiting_jobs(make: Callable[..., WorkerPool]) -> None:
    both = threading.Barrier(2)

    class Pair(Work):
        def predict_inputs(self, inputs: Sequence[int], **options: object) -> list[int]:
            both.wait(5)  # only two workers at once get past this
            return super().predict_inputs(inputs, **options)

    pair = Pair()
    assert asyncio.run(answers(make(n_workers=2), pair, 2, 3, 4, 6)) == [21, 31, 41, 61]
    assert sorted(len(batch) for batch in pair.batches) == [2, 2]


def test_a_job_past_its_deadline_is_504_and_never_begun(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    pool = make(timeout_s=0.3)

    async def late() -> None:
        with pytest.raises(ProblemError) as caught:
            await pool.run(jobs(work, 2, 3))
        assert caught.value.status_code == 504

    with pytest.raises(ProblemError):  # the first is late, too
        while_busy(work, pool, late)
    assert asyncio.run(answers(pool, work, 4)) == [41]
    assert work.decoded == [1, 4]
    assert pool.admission.pending.count == 0


def test_an_image_whose_client_leaves_while_it_is_decoded_is_not_computed(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    pool = make(n_decoders=1)

    async def leave() -> None:
        work.go.clear()
        left = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.05, left.set_result, None)
        with pytest.raises(ClientDisconnect):
            await pool.run(jobs(work, 2), client_left=left)
        work.go.set()
        assert await answers(pool, work, 3) == [31]

    asyncio.run(leave())
    assert work.decoded == [2, 3]
    assert work.batches == [[3]]


@pytest.mark.parametrize("n_decoders", [0, 1])
def test_the_time_of_a_worker_is_recorded_once_for_each_batch(
    make: Callable[..., WorkerPool], work: Work, n_decoders: int
) -> None:
    recorded: list[float] = []
    pool = make(max_batch=8, n_decoders=n_decoders, on_batch_done=recorded.append)
    work.takes_s = 0.02
    began = time.monotonic()
    assert asyncio.run(answers(pool, work, *range(20, 44))) == [10 * n + 1 for n in range(20, 44)]
    assert len(recorded) == len(work.batches)
    assert 0.02 * len(recorded) <= sum(recorded) <= time.monotonic() - began


@pytest.mark.parametrize("n_decoders", [0, 1])
def test_an_idle_worker_keeps_no_model_alive(
    make: Callable[..., WorkerPool], n_decoders: int
) -> None:
    pool, replaced = make(n_decoders=n_decoders), Work()
    gone = weakref.ref(replaced)
    assert asyncio.run(answers(pool, replaced, 2)) == [21]
    del replaced
    deadline = time.monotonic() + 5
    while gone() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
        gc.collect()
    assert gone() is None


def test_jobs_of_a_client_that_leaves_are_dropped(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    pool = make(max_queued=2)

    async def leave() -> None:
        for _ in range(5):  # more than the queue holds
            left = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.02, left.set_result, None)
            with pytest.raises(ClientDisconnect):
                await pool.run(jobs(work, 2, 3), client_left=left)

    assert while_busy(work, pool, leave) == [11]
    assert work.decoded == [1]
    assert pool.admission.pending.count == 0


def test_asyncio_reports_nothing_of_a_client_that_leaves_as_its_answers_come(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    pool = make()
    reported: list[str] = []

    async def leave() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["message"]))
        left = loop.create_future()
        running = asyncio.ensure_future(pool.run(jobs(work, 2, 3, 4), client_left=left))
        await asyncio.sleep(0)
        left.set_result(None)
        time.sleep(0.2)  # the loop learns of both at once, in this order
        with pytest.raises(ClientDisconnect):
            await running

    asyncio.run(leave())
    gc.collect()
    assert reported == []
    assert pool.admission.pending.count == 0


def test_a_full_queue_is_429_at_once_with_retry_after(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    pool = make(max_queued=2)

    async def overflow() -> None:
        waiting = asyncio.ensure_future(answers(pool, work, 2, 3))
        await asyncio.sleep(0)
        began = time.monotonic()
        with pytest.raises(ProblemError) as caught:
            await pool.run(jobs(work, 4))
        assert time.monotonic() - began < 0.05
        assert caught.value.status_code == 429
        assert caught.value.reason == "queue_full"
        assert int((caught.value.headers or {})["Retry-After"]) >= 1
        work.go.set()
        assert await waiting == [21, 31]
        assert await answers(pool, work, 4) == [41]

    assert while_busy(work, pool, overflow) == [11]


def test_an_estimated_wait_that_is_too_long_is_429(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    pool = make(max_queued=50, timeout_s=1.0)
    pool.admission._service_time_ewma = 0.1  # six take more than half of the second

    async def overload() -> None:
        waiting = [asyncio.ensure_future(answers(pool, work, n)) for n in range(20, 25)]
        await asyncio.sleep(0)
        with pytest.raises(ProblemError) as caught:
            await pool.run(jobs(work, 40))
        assert caught.value.status_code == 429
        assert "6 pictures are waiting" in str(caught.value.detail)
        work.go.set()
        assert await asyncio.gather(*waiting) == [[10 * n + 1] for n in range(20, 25)]

    assert while_busy(work, pool, overload) == [11]


def test_before_the_first_answer_no_wait_is_estimated(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    pool = make(timeout_s=1.0, max_batch=1)
    assert pool.admission.check_capacity() is None

    async def overload() -> None:
        waiting = [asyncio.ensure_future(answers(pool, work, n)) for n in range(20, 60)]
        await asyncio.sleep(0)
        assert pool.admission.check_capacity() is None  # 41 wait, for an unknown time
        work.go.set()
        assert await asyncio.gather(*waiting) == [[10 * n + 1] for n in range(20, 60)]

    assert while_busy(work, pool, overload) == [11]


def test_the_service_time_is_a_mean_that_follows_changes(
    make: Callable[..., WorkerPool],
) -> None:
    admission = make().admission
    for took_s, mean_s in ((0.02, 0.02), (0.1, 0.06), (0.03, 0.05)):
        admission.record_service_time(took_s)
        assert admission._service_time_ewma == pytest.approx(mean_s)
    for _ in range(100):
        admission.record_service_time(1.0)
    assert admission._service_time_ewma > 0.9


def test_an_empty_queue_admits_however_slow_the_workers_were(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    pool = make(timeout_s=1.0)
    pool.admission._service_time_ewma = 60.0
    assert asyncio.run(answers(pool, work, 2, 3, 4)) == [21, 31, 41]


def test_more_images_than_the_queue_can_ever_hold_are_413(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    pool = make(max_queued=2)

    async def scenario() -> None:
        with pytest.raises(ProblemError) as caught:
            await pool.run(jobs(work, 2, 3, 4, 6))
        assert caught.value.status_code == 413

    asyncio.run(scenario())


def test_the_queue_has_room_again_after_errors(make: Callable[..., WorkerPool], work: Work) -> None:
    pool = make(max_queued=1)

    async def scenario() -> None:
        for _ in range(20):
            assert await answers(pool, work, 7, 2) == ["ZeroDivisionError", 21]

    asyncio.run(scenario())
    assert pool.admission.pending.count == 0


def test_queue_and_compute_times_are_measured_apart(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    pool = make()

    async def wait() -> None:
        asyncio.get_running_loop().call_later(0.1, work.go.set)
        (result,) = await pool.run(jobs(work, 2))
        assert 60 < result.queue_ms < 1000
        assert result.compute_ms < 60

    while_busy(work, pool, wait)


def test_a_result_is_the_prediction_or_raises_the_error() -> None:
    prediction: Any = 3
    assert JobResult(prediction, None, 0, 0).get() == 3
    with pytest.raises(ZeroDivisionError):
        JobResult(prediction, ZeroDivisionError(), 0, 0).get()
    with pytest.raises(RuntimeError, match="neither"):
        JobResult(None, None, 0, 0).get()


def test_a_reservation_counts_once_until_the_jobs_take_over(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    pool = make(max_queued=0)
    with pool.admission.reserve() as reservation:
        reservation.__enter__()
        assert pool.admission.pending.count == 1
        assert pool.admission.check_capacity() is not None
        result = asyncio.run(pool.run(jobs(work, 2), reservation=reservation))
        assert result[0].prediction == 21
        assert pool.admission.pending.count == 0
    assert pool.admission.pending.count == 0


@pytest.mark.parametrize("number", [7, 13])
def test_a_reservation_is_released_by_whatever_ends_its_request(
    make: Callable[..., WorkerPool], work: Work, number: int
) -> None:
    pool = make(max_queued=1)

    async def scenario() -> None:
        with pool.admission.reserve() as reservation:
            await pool.run(jobs(work, number), reservation=reservation)
        with suppress(ProblemError), pool.admission.reserve() as reservation:  # 413
            await pool.run(jobs(work, *[number] * 9), reservation=reservation)
        with suppress(OSError), pool.admission.reserve():
            raise OSError
        assert pool.admission.pending.count == 0

    asyncio.run(scenario())


def test_time_that_has_passed_counts_towards_the_deadline(
    make: Callable[..., WorkerPool], work: Work
) -> None:
    pool = make(timeout_s=0.5)
    assert asyncio.run(pool.run(jobs(work, 1), since=time.monotonic() - 0.2))[0].prediction == 11
    with pytest.raises(ProblemError) as caught:
        asyncio.run(pool.run(jobs(work, 1), since=time.monotonic() - 0.6))
    assert caught.value.status_code == 504

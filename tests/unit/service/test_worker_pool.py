"""Lanes: what is computed together, what is dropped, and that nothing harms its neighbour."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from service.errors import ProblemError
from service.inference.worker_pool import Done, Lanes

Numbers = Lanes[int, int, int]


class Work:
    """Decodes n to 10 n and answers 10 n + 1; notes what it was given, and can be held up."""

    def __init__(self) -> None:
        self.prepared: list[int] = []
        self.batches: list[list[int]] = []
        self.takes_s = 0.0
        self.go, self.device = threading.Event(), threading.Event()
        self.go.set()
        self.device.set()

    def prepare(self, question: int) -> int:
        self.go.wait(10)
        self.prepared.append(question)
        if question == 13:
            raise ValueError("13 cannot be decoded")
        return 10 * question

    def compute(self, asked: Sequence[tuple[int, int]]) -> list[int]:
        self.batches.append([question for question, _ in asked])
        self.device.wait(10)
        time.sleep(self.takes_s)
        if any(question == 7 for question, _ in asked):
            raise ZeroDivisionError("7 cannot be computed")
        return [prepared + 1 for _, prepared in asked]


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def make(work: Work) -> Iterator[Callable[..., Numbers]]:
    made: list[Numbers] = []

    def lanes(**options: Any) -> Numbers:
        settings = {"n_lanes": 1, "batch": 8, "queue": 50, "timeout_s": 5.0, **options}
        settings.setdefault("belongs", lambda _: 0)
        made.append(Lanes(work.prepare, work.compute, **settings))
        return made[-1]

    yield lanes
    work.go.set()
    for each in made:
        each.close()


async def answers(lanes: Numbers, *questions: int) -> list[object]:
    """Answers, and the names of the errors where there is none."""
    dones = await lanes.run(questions)
    return [type(d.error).__name__ if d.error else d.answer for d in dones]


def held(
    work: Work, lanes: Numbers, scenario: Callable[[], Coroutine[Any, Any, None]]
) -> list[object]:
    """Run a scenario while the lanes are held up by question 1; what became of that one."""

    async def all_of_it() -> list[object]:
        work.go.clear()
        first = asyncio.ensure_future(answers(lanes, 1))
        await asyncio.sleep(0.05)
        await scenario()
        work.go.set()
        return await first

    return asyncio.run(all_of_it())


@pytest.mark.parametrize("n_decoders", [0, 2])
def test_every_question_gets_its_own_answer(make: Callable[..., Numbers], n_decoders: int) -> None:
    lanes = make(n_lanes=2, n_decoders=n_decoders)

    async def scenario() -> None:
        results = await asyncio.gather(*(answers(lanes, n, n + 100) for n in range(20, 45)))
        assert results == [[10 * n + 1, 10 * n + 1001] for n in range(20, 45)]

    asyncio.run(scenario())


@pytest.mark.parametrize("n_decoders", [0, 2])
def test_a_fault_is_its_own_questions_outcome_and_the_lane_goes_on(
    make: Callable[..., Numbers], n_decoders: int
) -> None:
    lanes = make(n_decoders=n_decoders)
    expected = [21, "ZeroDivisionError", "ValueError", 31]
    assert asyncio.run(answers(lanes, 2, 7, 13, 3)) == expected
    assert asyncio.run(answers(lanes, 2, 7, 13, 3)) == expected


def test_a_fault_of_the_lane_itself_fails_what_it_held_and_no_more(
    make: Callable[..., Numbers],
) -> None:
    def belongs(question: int) -> int:
        if question == 5:
            raise RuntimeError("a fault of the service")
        return 0

    lanes = make(belongs=belongs)
    assert asyncio.run(answers(lanes, 5)) == ["RuntimeError"]
    assert asyncio.run(answers(lanes, 6)) == [61]


@pytest.mark.parametrize("n_decoders", [0, 2])
def test_what_waits_is_computed_together_up_to_a_batch(
    make: Callable[..., Numbers], work: Work, n_decoders: int
) -> None:
    lanes = make(batch=4, n_decoders=n_decoders)

    async def scenario() -> None:
        work.device.clear()  # busy with the first question
        tasks = [asyncio.ensure_future(answers(lanes, 1))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.ensure_future(answers(lanes, n)) for n in range(20, 30)]
        await asyncio.sleep(0.05)
        work.device.set()
        assert await asyncio.gather(*tasks) == [[11], *([10 * n + 1] for n in range(20, 30))]

    asyncio.run(scenario())
    assert [len(batch) for batch in work.batches] == [1, 4, 4, 2]


def test_only_what_belongs_together_is_computed_together(
    make: Callable[..., Numbers], work: Work
) -> None:
    lanes = make(belongs=lambda question: question % 2)
    assert asyncio.run(answers(lanes, 2, 3, 4, 5, 6)) == [21, 31, 41, 51, 61]
    assert work.batches == [[2, 4, 6], [3, 5]]


def test_large_files_are_not_put_together_with_others(
    make: Callable[..., Numbers], work: Work
) -> None:
    lanes = make(size=lambda question: 300_000 if question == 9 else 100)
    asyncio.run(answers(lanes, 2, 3, 9, 4, 5))
    assert work.batches == [[2, 3], [9], [4, 5]]


def test_requests_take_turns_so_that_a_large_one_holds_up_no_other(
    make: Callable[..., Numbers], work: Work
) -> None:
    lanes = make(batch=4)

    async def scenario() -> None:
        asking = []
        for questions in (range(100, 120), range(200, 205), [300]):
            asking.append(asyncio.ensure_future(answers(lanes, *questions)))
            await asyncio.sleep(0)
        work.go.set()
        large, middling, single = await asyncio.gather(*asking)
        assert large == [10 * n + 1 for n in range(100, 120)]
        assert middling == [10 * n + 1 for n in range(200, 205)]
        assert single == [3001]

    held(work, lanes, scenario)
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
    make: Callable[..., Numbers], work: Work
) -> None:
    lanes = make(batch=4)

    async def scenario() -> None:
        asking = []
        for questions in (range(100, 104), range(200, 204), [300]):
            asking.append(asyncio.ensure_future(answers(lanes, *questions)))
            await asyncio.sleep(0)
        work.go.set()
        await asyncio.gather(*asking)

    held(work, lanes, scenario)
    assert work.batches == [[1], [100, 101, 102, 103], [200, 201, 202, 203], [300]]


def test_lanes_share_what_waits(make: Callable[..., Numbers], work: Work) -> None:
    lanes = make(n_lanes=2)
    both = threading.Barrier(2)

    def compute(asked: Sequence[tuple[int, int]]) -> list[int]:
        both.wait(5)  # only two lanes at once get past this
        return Work.compute(work, asked)

    lanes._compute = compute
    assert asyncio.run(answers(lanes, 2, 3, 4, 5)) == [21, 31, 41, 51]
    assert sorted(len(batch) for batch in work.batches) == [2, 2]


def test_what_waits_past_its_deadline_is_504_and_never_begun(
    make: Callable[..., Numbers], work: Work
) -> None:
    lanes = make(timeout_s=0.3)

    async def late() -> None:
        with pytest.raises(ProblemError) as caught:
            await lanes.run([2, 3])
        assert caught.value.status_code == 504

    with pytest.raises(ProblemError):  # the first is late, too: it is held for longer
        held(work, lanes, late)
    assert asyncio.run(answers(lanes, 4)) == [41]
    assert work.prepared == [1, 4]
    assert lanes._pending == 0


def test_a_client_that_leaves_while_its_picture_is_decoded_is_not_computed(
    make: Callable[..., Numbers], work: Work
) -> None:
    lanes = make(n_decoders=1)

    async def leave() -> None:
        work.go.clear()
        left = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.05, left.set_result, None)
        with pytest.raises(ClientDisconnect):
            await lanes.run([2], left)
        work.go.set()
        assert await answers(lanes, 3) == [31]

    asyncio.run(leave())
    assert work.prepared == [2, 3]
    assert work.batches == [[3]]


@pytest.mark.parametrize("n_decoders", [0, 1])
def test_how_long_a_lane_was_at_work_is_told_once_a_take(
    make: Callable[..., Numbers], work: Work, n_decoders: int
) -> None:
    told: list[float] = []
    lanes = make(batch=8, n_decoders=n_decoders, worked=told.append)
    work.takes_s = 0.02
    began = time.monotonic()
    assert asyncio.run(answers(lanes, *range(20, 44))) == [10 * n + 1 for n in range(20, 44)]
    assert len(told) == len(work.batches)
    assert 0.02 * len(told) <= sum(told) <= time.monotonic() - began


@pytest.mark.parametrize("n_decoders", [0, 1])
def test_an_idle_lane_holds_on_to_nothing(n_decoders: int) -> None:
    class Thing:
        pass

    lanes: Lanes[Thing, Thing, int] = Lanes(
        lambda thing: thing,
        lambda asked: [1 for _ in asked],
        belongs=lambda _: 0,
        n_lanes=1,
        n_decoders=n_decoders,
        queue=5,
        timeout_s=5,
    )
    thing = Thing()
    gone = weakref.ref(thing)
    asyncio.run(lanes.run([thing]))
    del thing
    deadline = time.monotonic() + 5
    while gone() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
        gc.collect()
    lanes_hold = gone() is not None
    lanes.close()
    assert not lanes_hold


def test_a_client_that_leaves_is_dropped_before_it_costs_anything(
    make: Callable[..., Numbers], work: Work
) -> None:
    lanes = make(queue=2)

    async def leave() -> None:
        for _ in range(5):  # more than the queue holds: their places are free again
            left = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.02, left.set_result, None)
            with pytest.raises(ClientDisconnect):
                await lanes.run([2, 3], left)

    assert held(work, lanes, leave) == [11]
    assert work.prepared == [1]
    assert lanes._pending == 0


def test_a_client_that_leaves_as_its_answers_come_is_nothing_that_asyncio_reports(
    make: Callable[..., Numbers],
) -> None:
    lanes = make()
    reported: list[str] = []

    async def leave() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, told: reported.append(told["message"]))
        left = loop.create_future()
        running = asyncio.ensure_future(lanes.run([2, 3, 4], left))
        await asyncio.sleep(0)
        left.set_result(None)
        time.sleep(0.2)  # the loop hears of both at once, in this order
        with pytest.raises(ClientDisconnect):
            await running

    asyncio.run(leave())
    gc.collect()
    assert reported == []
    assert lanes._pending == 0


def test_a_full_queue_is_429_at_once_and_says_when_to_come_again(
    make: Callable[..., Numbers], work: Work
) -> None:
    lanes = make(queue=2)

    async def overflow() -> None:
        waiting = asyncio.ensure_future(answers(lanes, 2, 3))
        await asyncio.sleep(0)
        began = time.monotonic()
        with pytest.raises(ProblemError) as caught:
            await lanes.run([4])
        assert time.monotonic() - began < 0.05
        assert caught.value.status_code == 429
        assert int((caught.value.headers or {})["Retry-After"]) >= 1
        work.go.set()
        assert await waiting == [21, 31]
        assert await answers(lanes, 4) == [41]

    assert held(work, lanes, overflow) == [11]


def test_a_queue_that_takes_too_long_is_429_though_it_has_room(
    make: Callable[..., Numbers], work: Work
) -> None:
    lanes = make(queue=50, timeout_s=1.0)
    lanes._usual_s = 0.1  # so that six of them take more than half of the second

    async def crowd() -> None:
        waiting = [asyncio.ensure_future(answers(lanes, n)) for n in range(20, 25)]
        await asyncio.sleep(0)
        with pytest.raises(ProblemError) as caught:
            await lanes.run([40])
        assert caught.value.status_code == 429
        assert "6 pictures are waiting" in str(caught.value.detail)
        work.go.set()
        assert await asyncio.gather(*waiting) == [[10 * n + 1] for n in range(20, 25)]

    assert held(work, lanes, crowd) == [11]


def test_how_long_a_picture_takes_is_learnt_from_the_first_and_not_guessed(
    make: Callable[..., Numbers], work: Work
) -> None:
    lanes = make(queue=50, timeout_s=1.0, batch=1)
    assert lanes.refusal(1) is None

    async def crowd() -> None:
        waiting = [asyncio.ensure_future(answers(lanes, n)) for n in range(20, 60)]
        await asyncio.sleep(0)
        assert lanes.refusal(1) is None  # 41 are waiting, and nobody knows how long they take
        work.go.set()
        assert await asyncio.gather(*waiting) == [[10 * n + 1] for n in range(20, 60)]

    assert held(work, lanes, crowd) == [11]
    known = make()
    for took_s, mean_s in ((0.02, 0.02), (0.1, 0.06), (0.03, 0.05)):
        known._learn(took_s)
        assert known._usual_s == pytest.approx(mean_s)
    for _ in range(100):
        known._learn(1.0)  # slower from now on, which must be noticed
    assert known._usual_s > 0.9


def test_however_slow_the_lanes_were_an_empty_queue_lets_in(make: Callable[..., Numbers]) -> None:
    lanes = make(timeout_s=1.0)
    lanes._usual_s = 60.0
    assert asyncio.run(answers(lanes, 2, 3, 4)) == [21, 31, 41]


def test_more_pictures_than_the_queue_can_ever_hold_are_413(make: Callable[..., Numbers]) -> None:
    lanes = make(queue=2)

    async def scenario() -> None:
        with pytest.raises(ProblemError) as caught:
            await lanes.run([2, 3, 4, 5])
        assert caught.value.status_code == 413

    asyncio.run(scenario())


def test_the_queue_has_room_again_after_whatever_came_of_the_work(
    make: Callable[..., Numbers],
) -> None:
    lanes = make(queue=1)

    async def scenario() -> None:
        for _ in range(20):
            assert await answers(lanes, 7, 2) == ["ZeroDivisionError", 21]

    asyncio.run(scenario())
    assert lanes._pending == 0


def test_times_are_told_apart(make: Callable[..., Numbers], work: Work) -> None:
    lanes = make()

    async def wait() -> None:
        asyncio.get_running_loop().call_later(0.1, work.go.set)
        (done,) = await lanes.run([2])
        assert 60 < done.queue_ms < 1000
        assert done.compute_ms < 60

    held(work, lanes, wait)


def test_what_came_of_a_picture_is_its_answer_or_its_error() -> None:
    assert Done(3, None, 0, 0).result() == 3
    with pytest.raises(ZeroDivisionError):
        Done(3, ZeroDivisionError(), 0, 0).result()
    with pytest.raises(RuntimeError, match="neither"):
        Done(None, None, 0, 0).result()


def test_time_that_has_passed_before_is_taken_from_what_is_left(
    make: Callable[..., Numbers],
) -> None:
    lanes = make(timeout_s=0.5)
    assert asyncio.run(lanes.run([1], since=time.monotonic() - 0.2))[0].answer == 11
    with pytest.raises(ProblemError) as caught:
        asyncio.run(lanes.run([1], since=time.monotonic() - 0.6))
    assert caught.value.status_code == 504

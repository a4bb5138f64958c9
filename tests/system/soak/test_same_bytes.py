"""Answers beside other requests are the same bytes as alone."""

import random
from collections.abc import Callable

from tests.support.load.generator import Load, run
from tests.support.load.measurements import Measurements
from tests.support.load.soak import address, choose, progress
from tests.support.load.traffic import mixed
from tests.support.service.server import Server

NUMBER = choose(150, 2_000)
CLIENTS = 32


def test_answers_beside_other_requests_are_the_same_bytes_as_alone(
    make_server: Callable[..., Server], measure: Callable[[str], Measurements]
) -> None:
    found = measure(f"{NUMBER:,} mixed requests alone and {CLIENTS} at once")
    server = make_server(device="cpu")
    asked = mixed(numbered=True)
    order = [i for _ in range(NUMBER // len(asked) + 1) for i in range(len(asked))][:NUMBER]
    random.Random(7).shuffle(order)
    with progress(len(asked) + NUMBER, "same bytes") as bar:

        def ask(indices: list[int], clients: int) -> list[tuple[int, int, object]]:
            requests = [asked[i].request for i in indices]
            load = Load(address(server), requests, seen=lambda _: bar.update())
            answers = run(load.closed_loop(clients, number=len(requests)))
            return [(indices[answer.index], answer.status, answer.kept) for answer in answers]

        alone = {i: (status, body) for i, status, body in ask(list(range(len(asked))), 1)}
        together = ask(order, CLIENTS)
    server.stop()
    assert [alone[i][0] for i in range(len(asked))] == [each.status for each in asked]
    differing = sum(alone[i] != (status, body) for i, status, body in together)
    found.note("requests of different kinds", len(asked))
    found.note("different answers alone", len(set(alone.values())))
    found.require("answered at once", len(together), f"{NUMBER:,}", len(together) == NUMBER)
    found.require("that differ", differing, "0", differing == 0)
    found.check()

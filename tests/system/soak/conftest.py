"""The soak tests' short and long form, what they measure, and where it is kept.

`MNN_SOAK=long`, which `make soak` sets, chooses the long form, in which bars of time and of memory
are held to as well. `MNN_SOAK_RESULTS` names a folder for the figures; else they are printed.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tqdm import tqdm

from benchmarks.serving.peers.processes import busy_cores_s
from tests.support.figures import Figures, keep, shown
from tests.support.load import Address
from tests.support.process import cpu_s
from tests.support.server import Server

LONG = os.environ.get("MNN_SOAK") == "long"

T = TypeVar("T")

_tests = pytest.StashKey[list[Figures]]()


def choose(short: T, long: T) -> T:
    """The one that belongs to the form that runs."""
    return long if LONG else short


def progress(total: float, what: str) -> "tqdm[Any]":
    """A bar that shows how far a long form has come."""
    return tqdm(total=total, desc=what, disable=not LONG, leave=False)


def address(server: Server) -> Address:
    """Where a service listens."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return host, int(port)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Figures]]:
    """Begin to keep figures under a title: `figures("200 reloads")`.

    How busy everything else was on the cores is kept with them: no figure of time means much
    without it.
    """
    made: list[Figures] = []
    began_s, busy, own = _now_s(), busy_cores_s(), _own_s()

    def begin(title: str) -> Figures:
        made.append(Figures(title, LONG))
        return made[-1]

    yield begin
    seconds = _now_s() - began_s
    for test in made:
        test.note("seconds", seconds)
        test.note("cores busy, all processes", (busy_cores_s() - busy) / seconds)
        test.note("cores busy, the generator", (_own_s() - own) / seconds)
    request.config.stash.setdefault(_tests, []).extend(made)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Keep or print the figures of all soak tests that have run."""
    tests = config.stash.get(_tests, [])
    if not any(test.rows for test in tests):
        return
    if folder := os.environ.get("MNN_SOAK_RESULTS"):
        keep(Path(folder), tests, {"form": "long" if LONG else "short"})
        terminalreporter.write_line(f"the figures are in {folder}")
    elif LONG:
        terminalreporter.section("soak")
        terminalreporter.write_line(shown(tests))


def _now_s() -> float:
    return float(os.times().elapsed)


def _own_s() -> float:
    return cpu_s(os.getpid())

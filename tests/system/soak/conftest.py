"""Measurements of the soak tests, and where they are kept.

`MNN_SOAK_RESULTS` names a folder for them; without it, the long form prints them.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.load.measurements import Measurements, format_rows, write_results
from tests.support.load.soak import LONG
from tests.support.process import busy_cpus_s, cpu_s

_tests = pytest.StashKey[list[Measurements]]()


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Measurements]]:
    """Begin measurements under a title: `measure("200 reloads")`.

    They include how busy the CPUs were, without which no time means much.
    """
    made: list[Measurements] = []
    began_s, busy, own = _now_s(), busy_cpus_s(), _own_s()

    def begin(title: str) -> Measurements:
        made.append(Measurements(title, LONG))
        return made[-1]

    yield begin
    seconds = _now_s() - began_s
    for test in made:
        test.note("seconds", seconds)
        test.note("CPUs busy, all processes", (busy_cpus_s() - busy) / seconds)
        test.note("CPUs busy, the load generator", (_own_s() - own) / seconds)
    request.config.stash.setdefault(_tests, []).extend(made)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Write or print the measurements of all soak tests that have run."""
    tests = config.stash.get(_tests, [])
    if not any(test.rows for test in tests):
        return
    if folder := os.environ.get("MNN_SOAK_RESULTS"):
        write_results(Path(folder), tests, {"form": "long" if LONG else "short"})
        terminalreporter.write_line(f"the measurements are in {folder}")
    elif LONG:
        terminalreporter.section("soak")
        terminalreporter.write_line(format_rows(tests))


def _now_s() -> float:
    return float(os.times().elapsed)


def _own_s() -> float:
    return cpu_s(os.getpid())

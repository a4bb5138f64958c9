"""After tens of thousands of mixed requests the service holds no more than before."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.support.images import encoded
from tests.support.load.generator import Abandoned, Answer, End, Load, counted, run
from tests.support.load.measurements import Measurements
from tests.support.load.soak import address, choose, progress
from tests.support.load.traffic import form, mixed
from tests.support.paths import ROOT
from tests.support.process import Holdings, holdings
from tests.support.service.server import Server

FIRST, ALL = choose((200, 500), (5_000, 50_000))
CLIENTS = 16


def with_abandoned(seed: int = 0) -> tuple[list[bytes | Abandoned], list[int]]:
    """Return mixed requests, every fourth followed by an abandoned one, and the statuses."""
    rng = random.Random(seed)
    requests: list[bytes | Abandoned] = []
    statuses = []
    for i, asked in enumerate(mixed()):
        requests.append(asked.request)
        statuses.append(asked.status)
        if i % 4 == 0:
            share = rng.choice((0.3, 0.9, 1.0, 1.0))
            n_bytes = int(share * len(asked.request))
            requests.append(Abandoned(asked.request, n_bytes, rng.uniform(0, 0.03)))
            statuses.append(0)
    # Large enough to be on disk when its client leaves.
    large = form("/predict", encoded(Image.new("L", (1300, 1300), 250), "BMP"))
    requests.append(Abandoned(large, len(large) - 10, 0.01))
    statuses.append(0)
    return requests, statuses


def at_rest(server: Server) -> Holdings:
    """Return what the service holds once idle threads have ended."""
    time.sleep(choose(1, 12))
    return holdings(server.process.pid)


def temporary_files(held: Holdings, folder: Path) -> set[str]:
    """Return the files of the temporary folder, also open ones without a name."""
    opened = {path for path in held.descriptors.values() if "(deleted)" in path}
    return opened | {str(path) for path in folder.iterdir()}


def logged_errors(server: Server) -> list[str]:
    """Return the errors in the log: messages, with exceptions where there are any."""
    return [
        "\n".join(filter(None, (line["message"], line.get("exception"))))
        for line in server.logged()
        if line["level"] in {"error", "critical"} or "exception" in line
    ]


def test_errors_are_found_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    program = (
        "import logging; from service.observability.logging import configure\n"
        "configure('info', 'json')\n"
        "logging.info('ERROR in a message is none'); logging.warning('nor is this')\n"
        "logging.error('one'); logging.critical('two')\n"
        "try: 1 / 0\nexcept ZeroDivisionError: logging.exception('three')"
    )
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=out, text=True)
    assert process.wait(30) == 0
    *messages, last = logged_errors(Server("", process, log))
    assert messages == ["one", "two"]
    assert last.startswith("three\nTraceback")
    assert last.endswith("ZeroDivisionError: division by zero")


def test_many_requests_leak_nothing(
    make_server: Callable[..., Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    measure: Callable[[str], Measurements],
) -> None:
    found = measure(f"{ALL:,} mixed requests")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    server = make_server(device="cpu")
    requests, statuses = with_abandoned()

    def ask(number: int) -> list[Answer]:
        with progress(number, "mixed requests") as bar:
            load = Load(address(server), requests, seen=lambda _: bar.update())
            return run(load.closed_loop(CLIENTS, number=number))

    answers = ask(FIRST)
    before = at_rest(server)
    answers += ask(ALL - FIRST)
    after = at_rest(server)
    code = server.stop()

    wrong = [
        answer
        for answer in answers
        if answer.status != statuses[answer.index % len(statuses)]
        or (answer.status == 0) != (answer.end is End.LEFT)
    ]
    found.note("statuses", str(counted(answers)))
    found.require("answers with an unexpected status", len(wrong), "0", not wrong)
    growth = 100 * (after.rss_kb / before.rss_kb - 1)
    found.note(f"memory after {FIRST:,}, MB", before.rss_kb / 1000)
    found.note(f"memory after {ALL:,}, MB", after.rss_kb / 1000)
    found.require("growth of memory, %", growth, "≤ 10", growth <= 10, strict=False)
    # Idle threads end after ten seconds, for which only the long form waits.
    more = after.threads - before.threads
    found.require("more threads", more, "≤ 0", more <= 0, strict=False)
    more = len(after.descriptors) - len(before.descriptors)
    found.require("more descriptors", more, "≤ 0", more <= 0)
    left = temporary_files(after, tmp_path) - temporary_files(before, tmp_path)
    found.require("more temporary files", "; ".join(left) or 0, "0", not left)
    errors = logged_errors(server)
    found.require("errors in the log", "; ".join(errors) or 0, "0", not errors)
    found.require("exit code", code, "0", code == 0)
    found.check()

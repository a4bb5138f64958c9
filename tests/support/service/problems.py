"""Checks of error answers: RFC 9457 problems without secrets."""

import re
import sys
import tempfile

import httpx

from tests.support.paths import ROOT

__all__ = ["LEAKS", "TIMING", "check_problem", "check_problem_body", "check_seven"]

TIMING = re.compile(r"queue;dur=(\d+\.\d+), compute;dur=(\d+\.\d+), total;dur=(\d+\.\d+)")
"""The value of `Server-Timing`."""

LEAKS = ("Traceback", "site-packages", ".py", str(ROOT), sys.prefix, tempfile.gettempdir(), "0x")
"""Texts that no error may contain."""


def check_problem_body(body: dict[str, object], status: int) -> str:
    """Check the fields of a problem and that it tells no secrets; returns its detail."""
    assert set(body) == {"type", "title", "status", "detail", "request_id"}
    assert body["status"] == status
    assert body["type"] == "about:blank"
    for key in ("title", "detail", "request_id"):
        assert isinstance(body[key], str)
        assert body[key]
    assert not [leak for leak in LEAKS if leak in str(body)]
    return str(body["detail"])


def check_problem(response: httpx.Response, status: int) -> str:
    """Check that an answer is the contract's problem of this status; returns its detail."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert TIMING.fullmatch(response.headers["server-timing"])
    return check_problem_body(response.json(), status)


def check_seven(response: httpx.Response) -> None:
    """Check that an answer reads the image as a seven."""
    assert response.status_code == 200, response.text
    assert response.json()["prediction"] == "7"

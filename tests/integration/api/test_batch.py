"""`POST /predict/batch`: one entry per file, in order, as if each had been sent alone."""

from typing import Any

import httpx
import pytest
from PIL import Image

from tests.integration.api.test_bad_input import (
    MIB,
    check_problem,
    check_problem_body,
    png_chunk,
    png_header,
    truncated,
)
from tests.integration.api.test_predict import PICTURES, crossed_strokes
from tests.support.images import drawn_seven, encoded


def named(*pictures: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{i}.png", picture)) for i, picture in enumerate(pictures)]


def ask(client: httpx.Client, *pictures: bytes, **query: Any) -> list[dict[str, Any]]:
    answer = client.post("/predict/batch", files=named(*pictures), params=query)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"results"}
    results: list[dict[str, Any]] = answer.json()["results"]
    assert len(results) == len(pictures)
    return results


@pytest.mark.parametrize(
    "query",
    [{}, {"samples": 50}, {"level": 0.5, "draws": True}, {"samples": 60, "preview": True}],
    ids=str,
)
def test_entries_are_what_predict_answers_one_by_one_in_order(
    client: httpx.Client, query: dict[str, Any]
) -> None:
    pictures = [*PICTURES.values(), *reversed(PICTURES.values()), crossed_strokes()]
    alone = [
        client.post("/predict", files={"file": picture}, params=query).json()
        for picture in pictures
    ]
    assert ask(client, *pictures, **query) == alone
    assert alone[0] != alone[1] != alone[2]


def test_one_file_is_a_batch(client: httpx.Client, seven_png: bytes) -> None:
    (only,) = ask(client, seven_png)
    assert only["prediction"] == "7"


def test_unreadable_files_are_problems_among_the_answers(
    client: httpx.Client, seven_png: bytes
) -> None:
    too_many_pixels = png_header(9000) + png_chunk(b"IDAT", b"")
    too_many_bytes = bytes(10 * MIB + 1)
    files = [
        (seven_png, None),
        (b"This is a seven.", 415),
        (encoded(Image.new("L", (28, 28), 255)), None),
        (truncated("PNG", 0.5), 422),
        (b"", 422),
        (too_many_pixels, 413),
        (too_many_bytes, 413),
        (encoded(drawn_seven(ink=250, paper=5), "JPEG"), None),
    ]
    answer = client.post("/predict/batch", files=named(*(data for data, _ in files)))
    assert answer.status_code == 200
    for (_, status), entry in zip(files, answer.json()["results"], strict=True):
        if status is None:
            assert "error" not in entry
            assert len(entry["classes"]) == 10
        else:
            assert set(entry) == {"error"}
            check_problem_body(entry["error"], status)
            assert entry["error"]["request_id"] == answer.headers["x-request-id"]
    first, *_, last = answer.json()["results"]
    assert (first["prediction"], last["prediction"]) == ("7", "7")


def test_a_batch_of_nothing_but_unreadable_files_is_answered(client: httpx.Client) -> None:
    results = ask(client, b"text", b"")
    assert [entry["error"]["status"] for entry in results] == [415, 422]


def test_as_many_files_as_allowed_are_answered_and_one_more_is_413(
    client: httpx.Client, seven_png: bytes
) -> None:
    results = ask(client, *[seven_png] * 64, samples=4, level=0.5)
    assert {entry["prediction"] for entry in results} == {"7"}
    answer = client.post("/predict/batch", files=named(*[seven_png] * 65))
    assert "64" in check_problem(answer, 413)


def test_a_body_over_the_limit_of_a_batch_is_413(client: httpx.Client) -> None:
    answer = client.post("/predict/batch", files=named(*[bytes(9 * MIB)] * 8))
    assert f"{64 * MIB:,}" in check_problem(answer, 413)


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"json": {"files": []}},
        {"files": [("file", ("a.png", b"x"))]},
        {"files": [("files", (None, "a.png"))]},
    ],
    ids=["no body", "JSON", "part with another name", "text field"],
)
def test_no_files_are_422_and_the_part_is_named(
    client: httpx.Client, request_: dict[str, Any]
) -> None:
    assert "'files'" in check_problem(client.post("/predict/batch", **request_), 422)


def test_a_parameter_out_of_range_refuses_the_whole_batch(
    client: httpx.Client, seven_png: bytes
) -> None:
    answer = client.post("/predict/batch?samples=101", files=named(seven_png, b"text"))
    assert "samples" in check_problem(answer, 422).lower()

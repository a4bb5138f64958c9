"""`POST /predict/batch`: one entry per file, in order, as if each had been sent alone."""

from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.damaged_images import png_chunk, png_header, truncated
from tests.support.images import crossed_strokes, drawn_seven, encoded, sample_images
from tests.support.service.problems import check_problem, check_problem_body

MIB = 2**20


def named(*images: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{i}.png", image)) for i, image in enumerate(images)]


def ask(client: httpx.Client, *images: bytes, **query: Any) -> list[dict[str, Any]]:
    answer = client.post("/predict/batch", files=named(*images), params=query)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"results"}
    results: list[dict[str, Any]] = answer.json()["results"]
    assert len(results) == len(images)
    return results


@pytest.mark.parametrize(
    "query",
    [{}, {"samples": 50}, {"level": 0.5, "draws": True}, {"samples": 60, "preview": True}],
    ids=str,
)
def test_each_entry_equals_the_answer_of_predict_in_order(
    client: httpx.Client, query: dict[str, Any]
) -> None:
    samples = list(sample_images().values())
    images = [*samples, *reversed(samples), crossed_strokes()]
    alone = [
        client.post("/predict", files={"file": image}, params=query).json() for image in images
    ]
    assert ask(client, *images, **query) == alone
    assert alone[0] != alone[1] != alone[2]


def test_one_file_is_a_batch(client: httpx.Client, seven_png: bytes) -> None:
    (only,) = ask(client, seven_png)
    assert only["prediction"] == "7"


def test_unreadable_files_get_a_problem_and_the_others_an_answer(
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


def test_a_batch_of_unreadable_files_is_answered(client: httpx.Client) -> None:
    results = ask(client, b"text", b"")
    assert [entry["error"]["status"] for entry in results] == [415, 422]


def test_64_files_are_answered_and_65_are_413(client: httpx.Client, seven_png: bytes) -> None:
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
def test_no_files_are_422_and_the_detail_names_the_part(
    client: httpx.Client, request_: dict[str, Any]
) -> None:
    assert "'files'" in check_problem(client.post("/predict/batch", **request_), 422)


def test_a_parameter_out_of_range_rejects_the_whole_batch(
    client: httpx.Client, seven_png: bytes
) -> None:
    answer = client.post("/predict/batch?samples=101", files=named(seven_png, b"text"))
    assert "samples" in check_problem(answer, 422).lower()

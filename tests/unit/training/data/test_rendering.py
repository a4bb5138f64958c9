"""Renderings: of every kind, reproducible, and still the digit that they render."""

import numpy as np
import pytest
from PIL import Image

from model import open_array
from model.preprocessing.normalize import open_image
from tests.support.images import drawn_seven
from training.synthesis.rendering import KINDS, correlation, render, render_inputs

SEVEN = open_array(np.asarray(drawn_seven())).pixels


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def as_bytes(image: Image.Image) -> bytes:
    return image.mode.encode() + image.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_most_renderings_of_a_seven_still_look_like_it_after_preprocessing(kind: str) -> None:
    images = [open_image(render(SEVEN, rng(seed), kind)) for seed in range(40)]
    seen = np.stack([image.pixels for image in images])
    alike = correlation(seen, np.stack([SEVEN] * 40))
    assert np.mean([image.reasons == () for image in images]) >= 0.9
    assert np.median(alike) > 0.65
    assert np.mean(alike > 0.4) >= 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_renderings_differ_and_depend_on_their_source_of_randomness_alone(kind: str) -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr] # noqa: NPY002
    one, two = (render(SEVEN, rng(1), kind) for _ in range(2))
    assert as_bytes(one) == as_bytes(two)
    assert as_bytes(one) != as_bytes(render(SEVEN, rng(2), kind))
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index] # noqa: NPY002


def test_kinds_look_as_their_names_say() -> None:
    drawn = {kind: [render(SEVEN, rng(seed), kind) for seed in range(30)] for kind in KINDS}
    assert {image.size for image in drawn["prep28"]} == {(28, 28)}
    assert {image.mode for image in drawn["photo"]} == {"RGB"}
    assert {image.mode for image in drawn["scan"]} == {"L"}
    for kind in ("photo", "scan", "canvas", "paint"):
        sides = [max(image.size) for image in drawn[kind]]
        assert 28 <= min(sides) < 120 < max(sides) <= 240

    def borders_of_one_colour(images: list[Image.Image]) -> float:
        rows = [np.asarray(image.convert("L"))[0] for image in images]
        return float(np.mean([np.ptp(row) == 0 for row in rows]))

    assert borders_of_one_colour(drawn["photo"]) < 0.1 < borders_of_one_colour(drawn["canvas"])


def test_both_polarities_occur() -> None:
    dark = [
        np.median(np.asarray(render(SEVEN, rng(seed), "canvas").convert("L"))) < 128
        for seed in range(40)
    ]
    assert 0.2 < np.mean(dark) < 0.9


@pytest.mark.parametrize("digit", [np.zeros((28, 28), np.uint8), np.ones((8, 8), np.uint8)])
def test_only_a_digit_can_be_rendered(digit: np.ndarray) -> None:
    with pytest.raises(ValueError, match="28×28"):
        render(digit, rng())


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"fresco.*photo"):
        render(SEVEN, rng(), "fresco")


def test_a_rendering_depends_on_seed_and_index_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = np.stack([SEVEN, np.zeros_like(SEVEN), SEVEN, SEVEN])
    whole = render_inputs(digits, seed=5)
    monkeypatch.setattr("training.data.parallel._CHUNK", 2)
    monkeypatch.setattr("training.data.parallel._MIN_FOR_PROCESSES", 1)
    in_processes = render_inputs(digits, seed=5, processes=2)
    np.testing.assert_array_equal(whole.pixels, in_processes.pixels)
    np.testing.assert_array_equal(whole.flagged, in_processes.flagged)
    assert not whole.pixels[1].any()  # nothing to render
    assert whole.flagged[1]
    assert (whole.pixels[0] != whole.pixels[2]).any()
    assert (whole.pixels != render_inputs(digits, seed=6).pixels).any()


def test_an_interruption_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.data.parallel.check_interrupted", interrupt)
    monkeypatch.setattr("training.data.parallel._MIN_FOR_PROCESSES", 1)
    for processes in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            render_inputs(np.stack([SEVEN] * 4), seed=0, processes=processes)


def test_correlation_is_that_of_the_pixels() -> None:
    other = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    pair = correlation(np.stack([SEVEN, SEVEN, other]), np.stack([SEVEN, other, 255 - other]))
    assert pair[0] == pytest.approx(1)
    assert pair[1] == pytest.approx(np.corrcoef(SEVEN.ravel(), other.ravel())[0, 1])
    assert pair[2] == pytest.approx(-1)
    assert correlation(SEVEN[None], np.zeros((1, 28, 28), np.uint8))[0] == 0

"""Imitated pictures: of every kind, reproducible, readable, and still the digit they were."""

import numpy as np
import pytest
from PIL import Image

from model import open_array
from model.preprocessing.normalize import open_image
from tests.support.images import drawn_seven
from training.synthesis.rendering import KINDS, imitate, imitated_inputs, likeness

SEVEN = open_array(np.asarray(drawn_seven())).pixels


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pixels(picture: Image.Image) -> bytes:
    return picture.mode.encode() + picture.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_most_imitations_of_a_seven_still_look_like_it_through_the_door(kind: str) -> None:
    images = [open_image(imitate(SEVEN, rng(seed), kind)) for seed in range(40)]
    seen = np.stack([image.pixels for image in images])
    alike = likeness(seen, np.stack([SEVEN] * 40))
    assert np.mean([image.reasons == () for image in images]) >= 0.9
    assert np.median(alike) > 0.65
    assert np.mean(alike > 0.4) >= 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_imitations_differ_and_depend_on_their_source_of_randomness_alone(kind: str) -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr] # noqa: NPY002
    one, two = (imitate(SEVEN, rng(1), kind) for _ in range(2))
    assert pixels(one) == pixels(two)
    assert pixels(one) != pixels(imitate(SEVEN, rng(2), kind))
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index] # noqa: NPY002


def test_kinds_look_as_their_names_say() -> None:
    drawn = {kind: [imitate(SEVEN, rng(seed), kind) for seed in range(30)] for kind in KINDS}
    assert {picture.size for picture in drawn["prep28"]} == {(28, 28)}
    assert {picture.mode for picture in drawn["photo"]} == {"RGB"}
    assert {picture.mode for picture in drawn["scan"]} == {"L"}
    for kind in ("photo", "scan", "canvas", "paint"):
        sides = [max(picture.size) for picture in drawn[kind]]
        assert 28 <= min(sides) < 120 < max(sides) <= 240

    def borders_of_one_colour(pictures: list[Image.Image]) -> float:
        rows = [np.asarray(picture.convert("L"))[0] for picture in pictures]
        return float(np.mean([np.ptp(row) == 0 for row in rows]))

    assert borders_of_one_colour(drawn["photo"]) < 0.1 < borders_of_one_colour(drawn["canvas"])


def test_both_polarities_occur() -> None:
    dark = [
        np.median(np.asarray(imitate(SEVEN, rng(seed), "canvas").convert("L"))) < 128
        for seed in range(40)
    ]
    assert 0.2 < np.mean(dark) < 0.9


@pytest.mark.parametrize("digit", [np.zeros((28, 28), np.uint8), np.ones((8, 8), np.uint8)])
def test_what_is_no_digit_cannot_be_imitated(digit: np.ndarray) -> None:
    with pytest.raises(ValueError, match="28×28"):
        imitate(digit, rng())


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"fresco.*photo"):
        imitate(SEVEN, rng(), "fresco")


def test_an_imitation_depends_on_seed_and_place_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = np.stack([SEVEN, np.zeros_like(SEVEN), SEVEN, SEVEN])
    whole = imitated_inputs(digits, seed=5)
    monkeypatch.setattr("training.synthesis.rendering.CHUNK", 2)
    monkeypatch.setattr("training.data.parallel._WORTH_PROCESSES", 1)
    in_processes = imitated_inputs(digits, seed=5, processes=2)
    np.testing.assert_array_equal(whole.pixels, in_processes.pixels)
    np.testing.assert_array_equal(whole.flagged, in_processes.flagged)
    assert not whole.pixels[1].any()  # nothing to imitate
    assert whole.flagged[1]
    assert (whole.pixels[0] != whole.pixels[2]).any()
    assert (whole.pixels != imitated_inputs(digits, seed=6).pixels).any()


def test_an_interruption_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.synthesis.rendering.CHUNK", 1)
    monkeypatch.setattr("training.data.parallel._WORTH_PROCESSES", 1)
    for processes in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            imitated_inputs(
                np.stack([SEVEN] * 4), seed=0, processes=processes, check_interrupted=interrupt
            )


def test_likeness_is_a_correlation() -> None:
    other = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    pair = likeness(np.stack([SEVEN, SEVEN, other]), np.stack([SEVEN, other, 255 - other]))
    assert pair[0] == pytest.approx(1)
    assert pair[1] == pytest.approx(np.corrcoef(SEVEN.ravel(), other.ravel())[0, 1])
    assert pair[2] == pytest.approx(-1)
    assert likeness(SEVEN[None], np.zeros((1, 28, 28), np.uint8))[0] == 0

"""Pictures that are no digits, drawn for training: what they are, and that they come again."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from training.synthesis.outliers import FAMILIES, draw_nondigit, nondigit_inputs


def written(*strokes: list[tuple[int, int]]) -> np.ndarray:
    sheet = Image.new("L", (28, 28), 0)
    for stroke in strokes:
        ImageDraw.Draw(sheet).line(stroke, fill=255, width=3, joint="curve")
    return np.asarray(sheet)


SEVEN = written([(7, 6), (20, 6), (13, 23)])
FOUR = written([(9, 5), (8, 14), (20, 14)], [(18, 6), (17, 23)])
ONE = written([(14, 5), (13, 23)])
DIGITS, LABELS = np.stack([SEVEN, FOUR, ONE]), np.array([7, 4, 1])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_draws_ink_on_a_dark_ground_and_hardly_the_same_twice(family: str) -> None:
    pictures = [draw_nondigit(family, DIGITS, LABELS, rng(seed)) for seed in range(30)]
    for picture in pictures:
        assert picture.dtype == np.uint8
        assert picture.ndim == 2
        assert 28 <= min(picture.shape) <= max(picture.shape) <= 96
        assert picture.max() > 60
    assert len({picture.tobytes() for picture in pictures}) > 8
    again = draw_nondigit(family, DIGITS, LABELS, rng(0))
    assert np.array_equal(pictures[0], again)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_drawn_on_the_digits_themselves(family: str) -> None:
    digits = DIGITS.copy()
    for seed in range(10):
        draw_nondigit(family, digits, LABELS, rng(seed))
    assert np.array_equal(digits, DIGITS)


def test_what_stays_a_digit_when_turned_is_not_turned() -> None:
    # A one would stay a one, so only the seven and the four are taken.
    turned = [draw_nondigit("turned", DIGITS, LABELS, rng(seed)) for seed in range(40)]
    assert all(picture.sum() in (SEVEN.sum(), FOUR.sum()) for picture in turned)
    assert not any(
        np.array_equal(picture, digit) for picture in turned for digit in (SEVEN, FOUR, ONE)
    )


def test_digits_written_over_each_other_are_different_ones() -> None:
    ink = [draw_nondigit("overlaid", DIGITS, LABELS, rng(seed)).sum() for seed in range(40)]
    assert min(ink) > ONE.sum() * 1.2


def test_what_is_struck_out_keeps_its_ink() -> None:
    struck = draw_nondigit("crossed", DIGITS[:1], LABELS[:1], rng(3))
    large = np.zeros((96, 96), np.uint8)
    large[6:90, 6:90] = np.asarray(
        Image.fromarray(SEVEN).resize((84, 84), Image.Resampling.BICUBIC)
    )
    assert (struck >= large).all()
    assert struck.sum() > 1.2 * large.sum(dtype=np.int64)


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(ValueError, match=r"fonts.*glyph"):
        draw_nondigit("fonts", DIGITS, LABELS, rng())


def test_what_came_out_like_a_digit_or_blank_is_dropped() -> None:
    drawn = nondigit_inputs(DIGITS, LABELS, 400, seed=1)
    n = len(drawn.inputs.pixels)
    assert 200 < n < 400
    assert len(drawn.family) == len(drawn.inputs.flagged) == n
    assert set(drawn.family) == set(range(len(FAMILIES)))
    assert drawn.inputs.pixels.any(axis=(1, 2)).all()
    flat = drawn.inputs.pixels.reshape(n, -1).astype(float)
    for digit in DIGITS:
        likeness = [np.corrcoef(picture, digit.ravel())[0, 1] for picture in flat]
        assert max(likeness) < 0.95


def test_they_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = nondigit_inputs(DIGITS, LABELS, 300, seed=1)
    monkeypatch.setattr("training.data.parallel._WORTH_PROCESSES", 1)
    together = nondigit_inputs(DIGITS, LABELS, 300, seed=1, processes=2)
    assert np.array_equal(alone.inputs.pixels, together.inputs.pixels)
    assert np.array_equal(alone.family, together.family)
    other = nondigit_inputs(DIGITS, LABELS, 300, seed=2)
    assert not np.array_equal(alone.inputs.pixels[:50], other.inputs.pixels[:50])

"""Synthetic outliers: their families, reproducibility, and difference from digits."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from training.synthesis import outliers
from training.synthesis.outliers import FAMILIES, draw_outlier, outlier_inputs


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
def test_every_family_draws_on_a_dark_background_and_hardly_the_same_twice(family: str) -> None:
    images = [draw_outlier(family, DIGITS, LABELS, rng(seed)) for seed in range(30)]
    for image in images:
        assert image.dtype == np.uint8
        assert image.ndim == 2
        assert 28 <= min(image.shape) <= max(image.shape) <= 96
        assert image.max() > 60
    assert len({image.tobytes() for image in images}) > 8
    again = draw_outlier(family, DIGITS, LABELS, rng(0))
    assert np.array_equal(images[0], again)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_given_digits_stay_unchanged(family: str) -> None:
    digits = DIGITS.copy()
    for seed in range(10):
        draw_outlier(family, digits, LABELS, rng(seed))
    assert np.array_equal(digits, DIGITS)


def test_digits_that_stay_digits_are_not_transformed() -> None:
    # A one would stay a one, so only the seven and the four are taken.
    turned = [draw_outlier("turned", DIGITS, LABELS, rng(seed)) for seed in range(40)]
    assert all(image.sum() in (SEVEN.sum(), FOUR.sum()) for image in turned)
    assert not any(np.array_equal(image, digit) for image in turned for digit in (SEVEN, FOUR, ONE))


def test_overlapping_digits_are_different_ones() -> None:
    ink = [draw_outlier("overlaid", DIGITS, LABELS, rng(seed)).sum() for seed in range(40)]
    assert min(ink) > ONE.sum() * 1.2


def test_a_crossed_out_digit_keeps_its_foreground() -> None:
    struck = draw_outlier("crossed", DIGITS[:1], LABELS[:1], rng(3))
    large = np.zeros((96, 96), np.uint8)
    large[6:90, 6:90] = np.asarray(
        Image.fromarray(SEVEN).resize((84, 84), Image.Resampling.BICUBIC)
    )
    assert (struck >= large).all()
    assert struck.sum() > 1.2 * large.sum(dtype=np.int64)


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(ValueError, match=r"fonts.*glyph"):
        draw_outlier("fonts", DIGITS, LABELS, rng())


def test_blank_images_and_those_like_a_digit_are_dropped() -> None:
    drawn = outlier_inputs(DIGITS, LABELS, 400, seed=1)
    n = len(drawn.pixels)
    assert 200 < n < 400
    assert len(drawn.flagged) == n
    assert drawn.pixels.any(axis=(1, 2)).all()
    flat = drawn.pixels.reshape(n, -1).astype(float)
    for digit in DIGITS:
        assert max(np.corrcoef(image, digit.ravel())[0, 1] for image in flat) < 0.95


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_is_dropped_altogether(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "FAMILIES", (family,))
    assert len(outlier_inputs(DIGITS, LABELS, 20, seed=1).pixels) > 2


def test_outliers_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = outlier_inputs(DIGITS, LABELS, 300, seed=1)
    monkeypatch.setattr("training.data.parallel._MIN_FOR_PROCESSES", 1)
    together = outlier_inputs(DIGITS, LABELS, 300, seed=1, processes=2)
    assert np.array_equal(alone.pixels, together.pixels)
    assert np.array_equal(alone.flagged, together.flagged)
    other = outlier_inputs(DIGITS, LABELS, 300, seed=2)
    assert not np.array_equal(alone.pixels[:50], other.pixels[:50])

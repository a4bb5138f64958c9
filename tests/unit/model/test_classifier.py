"""Classifier: from an image to a prediction in one call."""

import io
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import model
from model import Classifier, CorruptImageError, ImageTooLargeError, RequestError, load
from model.engines.engine import make_engine
from tests.support.checkpoints import TINY, tiny_checkpoint
from tests.support.images import drawn_seven, encoded


@pytest.fixture(scope="module")
def tiny() -> Classifier:
    checkpoint = tiny_checkpoint(n_draws=20)
    return Classifier(checkpoint, make_engine(checkpoint.posterior, n_draws=20, device="cpu"))


@pytest.fixture(scope="module")
def bundled() -> Classifier:
    return load(device="cpu")


def test_the_bundled_weights_read_a_drawn_seven_from_anything(
    bundled: Classifier, tmp_path: Path
) -> None:
    image = drawn_seven()
    path = tmp_path / "seven.png"
    image.save(path)
    images = [
        path,
        str(path),
        encoded(image),
        image,
        np.asarray(image),
        image.convert("RGB"),
    ]
    for given in images:
        answer = bundled.predict(given)
        assert (answer.prediction, answer.decision) == ("7", "accept"), type(given)
        assert answer.prediction_set == ("7",)
        assert answer.calibrated


def test_an_answer_is_consistent_in_itself(bundled: Classifier) -> None:
    answer = bundled.predict(drawn_seven(), level=0.9)
    probabilities = [entry.probability for entry in answer.classes]
    assert [entry.label for entry in answer.classes] == list("0123456789")
    assert sum(probabilities) == pytest.approx(1)
    assert answer.probability == max(probabilities)
    assert answer.draws.shape == (100, 10)
    assert answer.draws.mean(axis=0) == pytest.approx(probabilities)
    quantiles = np.quantile(answer.draws, [0.05, 0.95], axis=0)
    assert [entry.lower for entry in answer.classes] == pytest.approx(quantiles[0])
    assert [entry.upper for entry in answer.classes] == pytest.approx(quantiles[1])
    assert 0 <= answer.predictive_entropy <= math.log(10)
    assert answer.pixels.shape == (28, 28)


def test_a_blank_image_goes_to_a_person(bundled: Classifier) -> None:
    answer = bundled.predict(np.zeros((50, 50)))
    assert answer.decision == "review"
    assert "no_ink" in answer.reasons


def test_an_uncertain_answer_says_so(tiny: Classifier) -> None:
    strict = tiny_checkpoint(threshold=0.0)
    answer = Classifier(strict, tiny.engine).predict(drawn_seven(), level=0.5)
    assert (answer.decision, answer.reasons) == ("review", ("uncertain",))
    lenient = tiny_checkpoint(threshold=math.log(10))
    answer = Classifier(lenient, tiny.engine).predict(drawn_seven(), level=0.5)
    assert answer.decision == "accept"


def test_being_no_digit_is_a_number_of_its_own() -> None:
    config = replace(TINY, not_a_digit=True)
    checkpoint = tiny_checkpoint(config, n_draws=20)
    rule = replace(checkpoint.selective, score="one_minus_joint_probability", threshold=0.0)
    checkpoint = replace(checkpoint, selective=rule)
    engine = make_engine(checkpoint.posterior, n_draws=20, device="cpu")
    answer = Classifier(checkpoint, engine).predict(drawn_seven(), level=0.8)
    logits = engine.logits(answer.pixels[None], 20)[:, 0].astype(float)
    odds = np.exp(logits[:, 10]) / np.exp(logits).sum(axis=1)
    assert answer.not_a_digit is not None
    assert answer.not_a_digit.probability == pytest.approx(odds.mean())
    assert answer.not_a_digit.std == pytest.approx(odds.std())
    ends = np.quantile(odds, [0.1, 0.9])
    assert [answer.not_a_digit.lower, answer.not_a_digit.upper] == pytest.approx(ends)
    assert sum(entry.probability for entry in answer.classes) == pytest.approx(1)
    assert set(answer.reasons) == {"unlike_training", "uncertain"}


def test_a_network_without_that_outcome_says_nothing_of_it(tiny: Classifier) -> None:
    assert tiny.predict(drawn_seven(), level=0.5).not_a_digit is None


def test_only_the_calibrated_number_of_draws_is_called_calibrated(tiny: Classifier) -> None:
    assert tiny.predict(drawn_seven(), level=0.5).calibrated
    assert not tiny.predict(drawn_seven(), samples=10, level=0.5).calibrated


def test_draws_that_were_not_reproduced_are_not_called_calibrated(tiny: Classifier) -> None:
    other = Classifier(tiny.checkpoint, tiny.engine)
    other.draws_reproduced = False
    assert not other.predict(drawn_seven(), level=0.5).calibrated


def test_fewer_samples_are_the_first_draws(tiny: Classifier) -> None:
    all_draws = tiny.predict(drawn_seven(), level=0.5).draws
    first = tiny.predict(drawn_seven(), samples=8, level=0.5).draws
    assert np.array_equal(first, all_draws[:8])


@pytest.mark.parametrize(
    ("samples", "level", "parameter"),
    [
        (1, 0.5, "samples"),
        (0, 0.5, "samples"),
        (21, 0.5, "samples"),
        (20, 0.49, "level"),
        (20, 1.0, "level"),
        (20, math.nan, "level"),
        (20, 0.91, "level"),
        (3, 0.5, "level"),
        (2, 0.5, "level"),
        (None, 0.95, "level"),
    ],
)
def test_requests_out_of_range_name_the_parameter(
    tiny: Classifier, samples: int | None, level: float, parameter: str
) -> None:
    with pytest.raises(RequestError) as caught:
        tiny.predict(drawn_seven(), samples=samples, level=level)
    assert caught.value.parameter == parameter
    assert parameter in str(caught.value)


@pytest.mark.parametrize(("samples", "level"), [(4, 0.5), (20, 0.9), (10, 0.8), (None, 0.9)])
def test_the_widest_interval_that_still_holds_a_draw_in_each_tail_is_allowed(
    tiny: Classifier, samples: int | None, level: float
) -> None:
    assert tiny.predict(drawn_seven(), samples=samples, level=level).level == level


def test_the_advice_about_samples_is_right(tiny: Classifier) -> None:
    with pytest.raises(RequestError, match="at least 8 samples"):
        tiny.predict(drawn_seven(), samples=7, level=0.75)
    tiny.predict(drawn_seven(), samples=8, level=0.75)


def test_concurrent_answers_equal_serial_ones(tiny: Classifier) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (28, 28), dtype=np.uint8) for _ in range(24)]
    serial = [tiny.predict(p, level=0.5).draws for p in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda p: tiny.predict(p, level=0.5).draws, images))
    assert all(np.array_equal(a, b) for a, b in zip(serial, together, strict=True))


def test_a_missing_path_and_an_empty_file_are_told_apart(tiny: Classifier, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        tiny.predict(tmp_path / "absent.png", level=0.5)
    with pytest.raises(CorruptImageError):
        tiny.predict(b"", level=0.5)


def test_too_few_draws_are_rejected() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        load(n_draws=1)


def test_a_pillow_image_is_answered_as_the_file_it_was_read_from(bundled: Classifier) -> None:
    upright = drawn_seven(ink=0, paper=255)
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = upright.convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    files = [
        encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95),
        encoded(palette, transparency=palette.getpixel((0, 0))),
        encoded(upright.convert("RGB"), transparency=(255, 255, 255)),
        encoded(upright, "GIF"),
    ]
    for data in files:
        expected = bundled.predict(data)
        assert expected.prediction == "7"
        given = bundled.predict(Image.open(io.BytesIO(data)))
        assert np.array_equal(given.pixels, expected.pixels)
        assert np.array_equal(bundled.predict(bytearray(data)).pixels, expected.pixels)


def test_a_pillow_image_with_too_many_pixels_is_rejected(bundled: Classifier) -> None:
    with pytest.raises(ImageTooLargeError):
        bundled.predict(drawn_seven(100), max_pixels=9_999)


def test_an_upload_as_png_and_the_array_give_the_very_same_input(bundled: Classifier) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        array = rng.integers(0, 256, (28, 28), dtype=np.uint8)
        from_file = bundled.predict(encoded(Image.fromarray(array)))
        assert np.array_equal(from_file.pixels, bundled.predict(array).pixels)


def test_pillow_images_of_every_mode_are_read(bundled: Classifier) -> None:
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"):
        image = drawn_seven(ink=0, paper=255)
        grey = np.asarray(image)
        if mode == "HSV":
            image = image.convert("RGB").convert("HSV")
        elif mode == "I;16":
            image = Image.fromarray(grey.astype(np.uint16) * 257)
        elif mode == "I":
            image = Image.fromarray(grey.astype(np.int32) * 257)
        else:
            image = image.convert("RGB").convert(mode) if mode == "YCbCr" else image.convert(mode)
        assert bundled.predict(image).prediction == "7", mode


def test_the_public_names_are_exactly_those_that_exist() -> None:
    assert sorted(model.__all__) == model.__all__
    for name in model.__all__:
        assert getattr(model, name) is not None
    with pytest.raises(AttributeError):
        model.nothing_of_the_kind  # noqa: B018

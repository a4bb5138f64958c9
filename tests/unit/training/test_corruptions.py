"""The corruptions of MNIST-C: each does what its name says, and depends on its generator alone."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support.images import drawn_seven
from training.evaluation.corruptions import KINDS, corrupt

Pixels = NDArray[np.uint8]

SEVEN = np.asarray(drawn_seven(ink=255, paper=0).resize((28, 28), Image.Resampling.BOX))
BLANK, FULL = np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8)
FIXED = {"scale", "brightness", "stripe", "canny_edges"}
CHOICES = {"shear": 2, "rotate": 2, "translate": 4}  # the others hardly ever come out the same


def drawn(kind: str, n: int, image: Pixels = SEVEN) -> list[Pixels]:
    return [corrupt(image, kind, np.random.default_rng(seed)) for seed in range(n)]


def filled(rows: slice, columns: slice, ink: int = 255) -> Pixels:
    corrupted = BLANK.copy()
    corrupted[rows, columns] = ink
    return corrupted


DOT = filled(slice(14, 15), slice(14, 15))
BAR = filled(slice(4, 24), slice(12, 16))
SQUARE = filled(slice(8, 20), slice(8, 20))


def ink(corrupted: Pixels) -> float:
    return float(corrupted.sum()) / 255


def lean(corrupted: Pixels) -> float:
    """Columns to the right per row down, of the middle of what is drawn."""
    rows = np.arange(8, 20)
    part = corrupted[rows].astype(np.float64)
    return float(np.polyfit(rows, part @ np.arange(28) / part.sum(axis=1), 1)[0])


def close(share: float, expected: float, n: int) -> bool:
    """Whether a share of n is within 4 standard errors of the expected one."""
    return bool(abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / n))


def test_the_kinds_are_the_published_ones() -> None:
    assert KINDS == (
        "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "shear", "scale", "rotate",
        "brightness", "translate", "stripe", "fog", "spatter", "dotted_line", "zigzag",
        "canny_edges",
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_is_another_image_of_the_same_form(kind: str) -> None:
    image = SEVEN.copy()
    result = corrupt(image, kind, np.random.default_rng(0))
    assert result.shape == (28, 28)
    assert result.dtype == np.uint8
    assert (result != SEVEN).any()
    assert (image == SEVEN).all()
    assert not np.shares_memory(result, image)


@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_depends_on_its_generator_alone(kind: str) -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index] # noqa: NPY002
    once, again = drawn(kind, 40), drawn(kind, 40)
    np.testing.assert_array_equal(once, again)
    n_different = len({corrupted.tobytes() for corrupted in once})
    if kind in FIXED | CHOICES.keys():
        assert n_different == CHOICES.get(kind, 1)
    else:
        assert n_different >= 30
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index] # noqa: NPY002


@pytest.mark.parametrize("image", [BLANK, FULL], ids=["blank", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_image_without_a_digit_is_corrupted_too(kind: str, image: Pixels) -> None:
    result = corrupt(image, kind, np.random.default_rng(0))
    assert result.shape == (28, 28)
    assert result.dtype == np.uint8


def test_a_image_may_be_read_only_and_lie_anyhow_in_memory() -> None:
    turned = np.ascontiguousarray(SEVEN.T).T
    turned.flags.writeable = False
    for kind in KINDS:
        expected = corrupt(SEVEN, kind, np.random.default_rng(0))
        np.testing.assert_array_equal(corrupt(turned, kind, np.random.default_rng(0)), expected)


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (BLANK[:8], r"uint8 and \(8, 28\)"),
        (BLANK[None], r"uint8 and \(1, 28, 28\)"),
        (BLANK / 255, r"float64 and \(28, 28\)"),
    ],
)
def test_what_is_no_image_is_refused(image: Pixels, got: str) -> None:
    with pytest.raises(ValueError, match=rf"expected .*uint8.*\(28, 28\), got {got}"):
        corrupt(image, "fog", np.random.default_rng(0))


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"frost.*shot_noise.*canny_edges"):
        corrupt(SEVEN, "frost", np.random.default_rng(0))


def test_shot_noise_counts_photons_where_there_is_ink() -> None:
    # n = 40 × 784 pixels of 85: one photon on average, of which more than three count as three.
    counts = np.stack(drawn("shot_noise", 40, np.full_like(BLANK, 85))) / 85
    assert set(np.unique(counts)) == {0, 1, 2, 3}
    for count, expected in enumerate([np.exp(-1), np.exp(-1), np.exp(-1) / 2]):
        assert close(float(np.mean(counts == count)), expected, counts.size)
    assert not any(corrupted[SEVEN == 0].any() for corrupted in drawn("shot_noise", 10))


def test_impulse_noise_is_salt_and_pepper_in_equal_parts() -> None:
    grey = np.full_like(BLANK, 100)
    noisy = np.stack(drawn("impulse_noise", 40, grey))  # n = 40 × 784
    assert set(np.unique(noisy)) == {0, 100, 255}
    assert close(float(np.mean(noisy == 0)), 0.085, noisy.size)
    assert close(float(np.mean(noisy == 255)), 0.085, noisy.size)


def test_glass_blur_spreads_ink_without_loss() -> None:
    blurred = drawn("glass_blur", 20)
    for corrupted in blurred:
        assert ink(corrupted) == pytest.approx(ink(SEVEN), rel=0.02)
        assert np.count_nonzero(corrupted) > 1.3 * np.count_nonzero(SEVEN)
        assert np.corrcoef(corrupted.ravel(), SEVEN.ravel())[0, 1] > 0.6
    # Without the shuffling, two blurs of 0.7 pixels along a column leave 0.40 of a dot in place.
    peaks = [corrupted.max() for corrupted in drawn("glass_blur", 20, DOT)]
    assert 0.3 * 255 < np.mean(peaks) < 0.38 * 255
    columns = [
        np.count_nonzero(corrupted.any(axis=0)) for corrupted in drawn("glass_blur", 20, BAR)
    ]
    assert min(columns) > 4  # which are those of the bar
    np.testing.assert_array_equal(corrupt(FULL, "glass_blur", np.random.default_rng(0)), FULL)


def test_motion_blur_leaves_a_fading_trail_within_45_degrees() -> None:
    trails = drawn("motion_blur", 40, DOT)
    light, ends = [], []
    for trail in trails:
        rows, columns = np.nonzero(trail)
        right, down = 14 - columns, 14 - rows
        assert (right >= 0).all()
        assert (np.abs(down) <= right).all()
        distance = np.hypot(right, down)
        assert 6 < distance.max() < 12  # 2 to 4 standard deviations
        light.append(np.histogram(distance, [0, 2.9, 5.9, 12], weights=trail[rows, columns])[0])
        assert ink(trail) == pytest.approx(1, abs=0.02)
        ends.append(down[distance.argmax()])
    assert min(ends) < -3
    assert max(ends) > 3
    # Half a Gaussian of 3 pixels: its parts at 0 to 2, at 3 to 5 and further on.
    np.testing.assert_allclose(np.mean(light, axis=0) / 255, [0.645, 0.298, 0.057], atol=0.03)


@pytest.mark.parametrize(("kind", "slope"), [("shear", np.sin(0.4)), ("rotate", np.tan(0.4))])
def test_shear_and_rotation_lean_to_either_side(kind: str, slope: float) -> None:
    leans = [lean(corrupted) for corrupted in drawn(kind, 20, BAR)]
    np.testing.assert_allclose(np.abs(leans), slope, atol=0.02)
    assert min(leans) < 0 < max(leans)


def test_shear_keeps_rows_level_and_rotation_keeps_the_ink() -> None:
    level = filled(slice(12, 16), slice(8, 20))
    for sheared, rotated in zip(drawn("shear", 4, level), drawn("rotate", 4, level), strict=True):
        assert sheared[10].max() == sheared[17].max() == 0
        assert rotated[10].max() > 0
        assert ink(rotated) == pytest.approx(ink(level), rel=0.02)
    # Grown by 1 / cos 0.4.
    tall = np.count_nonzero(corrupt(BAR, "shear", np.random.default_rng(0)).max(axis=1) > 127)
    assert tall == round(20 / np.cos(0.4))


def test_scale_makes_the_digit_smaller_about_the_middle() -> None:
    (small,) = drawn("scale", 1, SQUARE)
    assert ink(small) == pytest.approx(0.7**2 * ink(SQUARE), rel=0.1)
    np.testing.assert_array_equal(small, small[::-1, ::-1])  # still in the middle
    assert np.count_nonzero(small[14] > 127) == round(0.7 * 12)


def test_brightness_adds_half_everywhere() -> None:
    levels = np.tile(np.array([0, 60, 120, 200], np.uint8), (28, 7))
    (bright,) = drawn("brightness", 1, levels)
    np.testing.assert_allclose(bright, np.minimum(levels + 127.5, 255), atol=0.51)


def test_translation_goes_three_pixels_towards_a_corner() -> None:
    corners = {
        np.roll(SEVEN, (down, right), (0, 1)).tobytes() for down in (-3, 3) for right in (-3, 3)
    }
    assert {corrupted.tobytes() for corrupted in drawn("translate", 40)} == corners


def test_what_is_moved_over_the_edge_is_lost() -> None:
    edge = filled(slice(None), slice(26, 28))
    assert {ink(corrupted) for corrupted in drawn("translate", 20, edge)} == {0, 2 * 25}


def test_a_stripe_inverts_the_left_and_the_right_quarter() -> None:
    (striped,) = drawn("stripe", 1)
    np.testing.assert_array_equal(striped[:, :7], 255 - SEVEN[:, :7])
    np.testing.assert_array_equal(striped[:, 7:21], SEVEN[:, 7:21])
    np.testing.assert_array_equal(striped[:, 21:], 255 - SEVEN[:, 21:])


def test_fog_lies_on_the_digit_and_leaves_it_a_quarter_of_its_contrast() -> None:
    # The fog is as bright as the brightest ink, so one full pixel gives both the same.
    for fogged, empty in zip(drawn("fog", 20), drawn("fog", 20, DOT), strict=True):
        difference = fogged.astype(int) - empty
        expected = (SEVEN.astype(int) - DOT) / 4
        np.testing.assert_allclose(difference, expected, atol=1)


def test_fog_is_cloudy() -> None:
    clouds = np.stack(drawn("fog", 40, DOT)).astype(float)
    clouds[:, 14, 14] = clouds[:, 14, 13]
    assert 0 <= clouds.min() < 64
    assert 128 < clouds.max() <= 192
    # Much larger than a corrupted: smooth inside, and some images darker than others.
    within, between = clouds.std(axis=(1, 2)).mean(), clouds.mean(axis=(1, 2)).std()
    down, right = (float(np.abs(np.diff(clouds, axis=axis)).mean()) for axis in (1, 2))
    assert down < 0.3 * within < 0.3 * between
    assert right == pytest.approx(down, rel=0.05)


def test_fog_is_no_brighter_than_the_ink() -> None:
    faint = SEVEN // 4
    for fogged in drawn("fog", 20, faint):
        assert fogged.max() <= faint.max()


def test_spatter_covers_patches_with_mud() -> None:
    for image in (BLANK, SEVEN, FULL):
        shares = []
        for corrupted in drawn("spatter", 40, image):
            dirty = corrupted != image
            # At least four fifths mud of 63, the rest what was there.
            gone = np.abs(corrupted.astype(float) - 63) / np.maximum(np.abs(image - 63.0), 1)
            assert (gone[dirty] <= 0.21).all()
            shares.append(dirty.mean())
        assert 0.05 < np.mean(shares) < 0.4


@pytest.mark.parametrize("kind", ["dotted_line", "zigzag"])
def test_lines_only_add_ink(kind: str) -> None:
    for lined, line in zip(drawn(kind, 20), drawn(kind, 20, BLANK), strict=True):
        together = np.minimum(SEVEN.astype(int) + line, 255)
        np.testing.assert_allclose(lined, together, atol=1)
        assert 0.01 < np.mean(line > 127) < 0.15


def test_a_dotted_line_crosses_the_image_in_dashes() -> None:
    dashes = np.arange(28) % 4 >= 2
    dashes[27] = False
    rows = []
    for line in drawn("dotted_line", 40, BLANK):
        np.testing.assert_array_equal(line.any(axis=0), dashes)
        assert (line.max(axis=0)[dashes] > 190).all()
        middle = line.argmax(axis=0)[dashes]
        straight = np.polyval(np.polyfit(np.flatnonzero(dashes), middle, 1), np.flatnonzero(dashes))
        assert np.abs(middle - straight).max() <= 1
        rows.append((middle[0], middle[-1]))
    assert np.ptp(rows, axis=0).min() > 18  # from anywhere to anywhere


def test_a_zigzag_turns_all_the_way_across_the_image() -> None:
    n_whole = 0
    for line in drawn("zigzag", 40, BLANK):
        assert not line[:, :2].any()
        assert not line[:, 26:].any()
        if line[[0, 1, -2, -1]].any():
            continue  # partly over the edge
        n_whole += 1
        assert line[:, 3:25].any(axis=0).all()
        part = line[:, 3:25].astype(float)
        middle = np.arange(28) @ part / part.sum(axis=0)
        trend = np.polyval(np.polyfit(np.arange(22), middle, 1), np.arange(22))
        assert np.count_nonzero(np.diff(np.sign(middle - trend))) >= 5
        assert 1 < np.abs(middle - trend).max() < 3
    assert n_whole >= 10


def test_canny_edges_see_faint_ink_but_not_the_faintest() -> None:
    faint, faintest = (filled(slice(8, 20), slice(8, 20), ink) for ink in (20, 10))
    assert drawn("canny_edges", 1, faint)[0].any()
    assert not drawn("canny_edges", 1, faintest)[0].any()


def test_canny_edges_are_the_outline_alone() -> None:
    (edges,) = drawn("canny_edges", 1, SQUARE)
    assert set(np.unique(edges)) == {0, 255}
    assert not edges[11:17, 11:17].any()
    around = edges.copy()
    around[6:22, 6:22] = 0
    assert not around.any()
    assert edges[14, :14].any()
    assert edges[14, 14:].any()
    assert edges[:14, 14].any()
    assert edges[14:, 14].any()

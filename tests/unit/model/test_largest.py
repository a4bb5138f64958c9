"""The largest pictures that are let in need little more memory than their own pixels."""

import multiprocessing

import pytest

from benchmarks.inference.preprocessing import PICTURES, measured

LARGEST = [name for name in PICTURES if name.startswith("25 MP")]


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGEST)
def test_a_picture_of_25_megapixels_takes_at_most_300_mb(name: str) -> None:
    """WebP's own decoder holds several copies and takes 400."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        row = pool.apply(measured, (name, 1))
    assert row["largest growth MB"] <= (400 if "WebP" in name else 300)
    assert row["found"] in {"a digit", "no_ink", "not_digit_shaped"}

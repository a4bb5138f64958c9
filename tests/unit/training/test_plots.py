"""The figures show the numbers they are given."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from model import load
from tests.support.images import drawn_seven
from training.reporting.plots import draw_prediction, plot_predictions


@pytest.fixture(scope="module")
def answers() -> list[object]:
    classifier = load(device="cpu")
    return [classifier.predict(drawn_seven()), classifier.predict(np.zeros((40, 40)))]


def test_bars_whiskers_and_words_are_those_of_the_answer(answers: list) -> None:
    for answer, words in zip(answers, ("7, accepted", "review: "), strict=True):
        axes = Figure().subplots()
        draw_prediction(axes, answer)
        shown = [*answer.classes, answer.not_a_digit]  # being none stands last, and apart
        assert [label.get_text() for label in axes.get_xticklabels()] == [*"0123456789", "none"]
        heights = [bar.get_height() for bar in axes.patches]
        assert heights == pytest.approx([entry.probability for entry in shown])
        stems = np.array(axes.collections[0].get_segments())
        assert stems[:, 0, 1] == pytest.approx([entry.lower for entry in shown])
        assert stems[:, 1, 1] == pytest.approx([entry.upper for entry in shown])
        assert words in axes.get_title(loc="left")


def test_a_figure_has_a_row_for_each_picture(answers: list) -> None:
    figure = plot_predictions([drawn_seven(), drawn_seven()], answers)
    assert len(figure.axes) == 6
    figure.savefig(io.BytesIO())
    with pytest.raises(ValueError, match="shorter"):
        plot_predictions([drawn_seven()], answers)

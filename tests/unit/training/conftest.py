"""Fixtures of the training tests."""

import pytest


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figures in reports, which takes nearly all of their time."""
    from training.reporting.html import figures

    for name in vars(figures):
        if name.startswith("plot_"):
            monkeypatch.setattr(figures, name, lambda *_, **__: None)
    embedded = figures.EmbeddedFigure("data:image/png;base64,", 900, 400)
    monkeypatch.setattr(figures, "embed", lambda _: embedded)

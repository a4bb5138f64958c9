"""The whole evaluation on a small scale, and what fitting and calibrating never open."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from model import Conv, ModelConfig
from model.engines.engine import make_engine
from tests.support.checkpoints import tiny_checkpoint
from training import pipeline
from training.config import PRESETS
from training.data.datasets import Digits, Part
from training.evaluation import robustness as sweeps
from training.evaluation.evaluate import BatchPredictor, evaluate
from training.evaluation.robustness import ANGLES_DEG
from training.fitting.trainer import FitConfig
from training.reporting.text import (
    format_corruptions,
    format_foreign,
    format_parts,
    format_rotation,
)

RNG = np.random.default_rng(0)
N_DRAWS = 20


@dataclass(frozen=True)
class Scribbles:
    """A source of random pictures, small enough to be asked about in no time."""

    name: str = "scribbles"
    n_validation: int = 12
    n_calibration: int = 14

    def train(self) -> Part:
        return _random_part(60, seed=1)

    def test(self) -> Part:
        return _random_part(20, seed=2)


def _random_part(n: int, seed: int) -> Part:
    rng = np.random.default_rng(seed)
    images = np.zeros((n, 28, 28), np.uint8)
    images[:, 6:22, 8:20] = rng.integers(0, 256, (n, 16, 12))
    return Part(images, rng.integers(0, 10, n))


@pytest.fixture
def foreign_dir(tmp_path: Path) -> Path:
    (tmp_path / "kmnist").mkdir()
    np.savez(tmp_path / "kmnist" / "kmnist-test-imgs.npz", _random_part(9, seed=3).images)
    return tmp_path


@pytest.fixture
def ask() -> BatchPredictor:
    engine = make_engine(tiny_checkpoint().posterior, n_draws=N_DRAWS, device="cpu")
    return BatchPredictor(engine, N_DRAWS)


def test_everything_that_can_be_measured_is(
    ask: BatchPredictor, foreign_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "ANGLES_DEG", (0, 90))
    checkpoint = tiny_checkpoint()
    another = replace(checkpoint, posterior=replace(checkpoint.posterior, seed=99))
    found = evaluate(
        checkpoint, ask, Scribbles(), data_dir=foreign_dir, another=another, device="cpu"
    )
    figures = found.figures
    assert {name: part["n"] for name, part in figures["parts"].items()} == {
        "validation": 12,
        "imitated": 12,
        "calibration": 14,
        "test": 20,
    }
    assert figures["foreign"]["KMNIST"]["n"] == 9
    assert figures["foreign_missing"] == ["Fashion-MNIST", "notMNIST"]
    assert [row["angle_deg"] for row in figures["rotation"]] == [0, 90]
    assert figures["rotation"][0]["error"] == figures["parts"]["test"]["error"]
    assert len(figures["corruptions"]) == 15
    assert figures["intervals"]["monte_carlo"]["all"]["n"] == 20
    assert 0 <= figures["intervals"]["another"]["all"]["held"] <= 1
    assert json.loads(json.dumps(figures)) == figures  # plain values
    assert found.version == checkpoint.version(N_DRAWS)
    # Every table can be written of them.
    assert "calibration error" in format_parts(figures["parts"])
    assert "KMNIST" in format_foreign(figures["foreign"])
    assert len(format_rotation(figures["rotation"]).splitlines()) == 3
    assert "canny edges" in format_corruptions(figures["corruptions"])


def test_a_brief_one_is_of_the_parts_alone(ask: BatchPredictor, foreign_dir: Path) -> None:
    found = evaluate(
        tiny_checkpoint(), ask, Scribbles(), data_dir=foreign_dir, parts=["test"], brief=True
    )
    assert set(found.figures) == {"parts"}
    assert set(found.figures["parts"]) == {"test"}
    assert "intervals" not in found.figures["parts"]["test"]


def test_answers_that_are_there_are_not_asked_for_again(
    ask: BatchPredictor, tmp_path: Path
) -> None:
    first = evaluate(
        tiny_checkpoint(), ask, Scribbles(), data_dir=tmp_path, parts=["test"], brief=True
    )

    def refuse(*_: object) -> None:
        raise AssertionError("asked again")

    known = evaluate(
        tiny_checkpoint(),
        replace(ask, check_interrupted=refuse),  # type: ignore[arg-type]
        Scribbles(),
        data_dir=tmp_path,
        parts=["test"],
        known=first.parts,
        brief=True,
    )
    assert known.figures == first.figures


def test_the_angles_go_from_upright_to_upside_down() -> None:
    assert ANGLES_DEG[0] == 0
    assert ANGLES_DEG[-1] == 180
    assert len(set(np.diff(ANGLES_DEG))) == 1


def test_turning_turns_counter_clockwise_and_keeps_the_ink() -> None:
    picture = np.zeros((28, 28), np.uint8)
    picture[4:14, 13:15] = 255  # a stroke upwards from the middle
    turned = sweeps._turned(picture, 90)
    assert turned[:, :14].sum() > 0.9 * turned.sum()  # now to the left
    assert turned.sum() == pytest.approx(picture.sum() / 255, rel=0.05)
    assert sweeps._turned(picture.astype(np.float32) / 255, 90) == pytest.approx(turned, abs=0.01)


SMALL = replace(
    PRESETS[Digits.name],
    fit=FitConfig(epochs=1, batch_size=16, imitated=0.5, non_digits=8, non_digit_weight=1.0),
    model=ModelConfig(convs=(Conv(2, 5, pool=True),), hidden=(), not_a_digit=True),
    n_draws=N_DRAWS,
    n_non_digits=40,
)


def test_fitting_and_calibrating_never_open_the_test_part_or_a_foreign_set(
    foreign_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    class Watched(Scribbles):
        def test(self) -> Part:
            events.append("test part opened")
            return super().test()

    decide = pipeline.make_rules

    def calibrate(*arguments: object) -> object:
        decided = decide(*arguments)  # type: ignore[arg-type]
        events.append("decided")
        return decided

    def notice(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]).startswith(str(foreign_dir / "kmnist")):
            events.append("foreign set opened")

    sys.addaudithook(notice)  # it stays, and finds nothing more once the folder is gone
    monkeypatch.setattr(pipeline, "make_rules", calibrate)
    monkeypatch.setattr(sweeps, "ANGLES_DEG", (0,))
    import torch

    found = pipeline.train(
        Watched(),
        replace(SMALL, output=foreign_dir / "out" / "x.safetensors"),
        device=torch.device("cpu"),
        data_dir=foreign_dir,
        force=True,
    )
    assert events.count("decided") == 1
    assert events[0] == "decided"
    assert {"test part opened", "foreign set opened"} < set(events)
    # The whole way works, on to a report of what is no digit.
    assert found.checkpoint.metrics["foreign"]["KMNIST"]["n"] == 9
    assert found.checkpoint.training["epochs"][0]["not_a_digit_nll"] > 0
    assert "KMNIST" in (foreign_dir / "out" / "x.html").read_text()
    report = json.loads((foreign_dir / "out" / "x.json").read_text())
    assert report == found.figures

"""The whole evaluation on a small scale, and what fitting and calibrating never open."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model import Conv, ModelConfig
from model.engines.engine import make_engine
from tests.support.checkpoints import tiny_checkpoint
from tests.support.evaluations import RandomDigits, random_part
from training import pipeline
from training.config import PRESETS
from training.data.datasets import Digits, Part
from training.data.ood import OOD_SETS
from training.evaluation import robustness
from training.evaluation.evaluate import evaluate_checkpoint
from training.evaluation.predictions import BatchPredictor
from training.evaluation.result import Evaluation
from training.evaluation.robustness import ANGLES_DEG, rotate_image
from training.fitting.trainer import FitConfig
from training.reporting.text import format_evaluation

N_DRAWS = 20
FEW_ANGLES = (0, 90)


def place_ood_set(folder: Path) -> None:
    """Put a few images where KMNIST may lie."""
    (folder / "kmnist").mkdir()
    np.savez(folder / "kmnist" / "kmnist-test-imgs.npz", random_part(9, seed=3).images)


@pytest.fixture
def predict() -> BatchPredictor:
    engine = make_engine(tiny_checkpoint().posterior, n_draws=N_DRAWS, device="cpu")
    return BatchPredictor(engine, N_DRAWS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluation]:
    """Everything that is measured, of a tiny checkpoint on random images."""
    folder, checkpoint = tmp_path_factory.mktemp("data"), tiny_checkpoint()
    place_ood_set(folder)
    another = replace(checkpoint, posterior=replace(checkpoint.posterior, seed=99))
    engine = make_engine(checkpoint.posterior, n_draws=N_DRAWS, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robustness, "ANGLES_DEG", FEW_ANGLES)
        yield evaluate_checkpoint(
            checkpoint,
            BatchPredictor(engine, N_DRAWS),
            RandomDigits(),
            data_dir=folder,
            another=another,
            device="cpu",
        )


def test_everything_that_can_be_measured_is(whole: Evaluation) -> None:
    metrics = whole.metrics
    sizes = {"validation": 12, "imitated": 12, "calibration": 14, "test": 20}
    assert {name: part.n for name, part in metrics.parts.items()} == sizes
    assert metrics.ood is not None
    assert metrics.ood["KMNIST"].n == 9
    missing = [known.name for known in OOD_SETS if known.name != "KMNIST"]
    assert metrics.ood_missing == missing
    assert metrics.rotation is not None
    assert [point.angle_deg for point in metrics.rotation] == list(FEW_ANGLES)
    assert metrics.rotation[0].error == metrics.parts["test"].error
    assert metrics.corruptions is not None
    assert len(metrics.corruptions) == 15
    assert metrics.intervals is not None
    assert metrics.intervals.monte_carlo["all"].n == 20
    assert metrics.intervals.another is not None
    assert 0 <= metrics.intervals.another["all"].held <= 1
    assert whole.version == tiny_checkpoint().version(N_DRAWS)


def test_the_metrics_are_json_values_with_the_keys_of_the_file_format(whole: Evaluation) -> None:
    values = whole.metrics.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert list(values) == [
        "parts", "sets_by_class", "foreign", "foreign_missing", "rotation", "corruptions",
        "intervals",
    ]  # fmt: skip
    assert list(values["parts"]["test"]) == [
        "n", "error", "nll", "brier_score", "calibration_error", "adaptive_calibration_error",
        "predictive_entropy", "mutual_information", "not_a_digit", "flagged", "accepted",
        "errors_accepted", "aurc", "errors_at_coverage", "set_coverage", "set_size",
        "set_larger_than_one", "intervals",
    ]  # fmt: skip
    assert list(values["foreign"]["KMNIST"]) == [
        "n", "flagged", "accepted", "accepted_where_97_of_digits_are", "unlike_training",
        "predictive_entropy", "mutual_information", "mutual_information_ratio", "not_a_digit",
        "auroc", "fpr_at_95_tpr",
    ]  # fmt: skip
    assert list(values["rotation"][0]) == [
        "angle_deg", "n", "error", "nll", "accepted", "errors_accepted", "predictive_entropy",
        "expected_entropy", "mutual_information", "not_a_digit",
    ]  # fmt: skip
    assert list(values["corruptions"]["fog"]) == [
        "n",
        "error",
        "nll",
        "accepted",
        "errors_accepted",
    ]
    assert list(values["intervals"]) == ["level", "monte_carlo", "another"]


def test_every_table_shows_its_metrics(whole: Evaluation) -> None:
    lines = format_evaluation(whole).splitlines()
    text = "\n".join(lines)
    for words in ("calibration error", "KMNIST", "AUROC, predictive entropy", "canny edges"):
        assert words in text
    assert any(line.startswith("90°") for line in lines)
    error = f"{100 * whole.metrics.parts['test'].error:.2f} %"
    assert next(line for line in lines if line.startswith("error rate")).endswith(error)


def test_a_brief_evaluation_is_of_the_parts_alone(predict: BatchPredictor, tmp_path: Path) -> None:
    place_ood_set(tmp_path)
    found = evaluate_checkpoint(
        tiny_checkpoint(), predict, RandomDigits(), data_dir=tmp_path, parts=["test"], brief=True
    )
    values = found.metrics.to_dict()
    assert set(values) == {"parts"}
    assert set(values["parts"]) == {"test"}
    assert "intervals" not in values["parts"]["test"]
    assert found.ood == {}


def test_known_predictions_are_not_made_again(
    predict: BatchPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate_checkpoint(
        tiny_checkpoint(), predict, RandomDigits(), data_dir=tmp_path, parts=["test"], brief=True
    )

    def refuse(*_: object) -> None:
        raise AssertionError("predicted again")

    monkeypatch.setattr(BatchPredictor, "__call__", refuse)
    again = evaluate_checkpoint(
        tiny_checkpoint(),
        predict,
        RandomDigits(),
        data_dir=tmp_path,
        parts=["test"],
        known=first.parts,
        brief=True,
    )
    assert again.metrics == first.metrics


def test_the_angles_go_from_upright_to_upside_down() -> None:
    assert ANGLES_DEG[0] == 0
    assert ANGLES_DEG[-1] == 180
    assert len(set(np.diff(ANGLES_DEG))) == 1


def test_rotation_is_counter_clockwise_and_keeps_the_ink() -> None:
    image = np.zeros((28, 28), np.uint8)
    image[4:14, 13:15] = 255  # a stroke upwards from the middle
    rotated = rotate_image(image, 90)
    assert rotated[:, :14].sum() > 0.9 * rotated.sum()  # now to the left
    assert rotated.sum() == pytest.approx(image.sum() / 255, rel=0.05)
    assert rotate_image(image.astype(np.float32) / 255, 90) == pytest.approx(rotated, abs=0.01)


SMALL = replace(
    PRESETS[Digits.name],
    fit=FitConfig(epochs=1, batch_size=16, imitated=0.5, non_digits=8, non_digit_weight=1.0),
    model=ModelConfig(convs=(Conv(2, 5, pool=True),), hidden=(), not_a_digit=True),
    n_draws=N_DRAWS,
    n_outliers=40,
)


@pytest.mark.usefixtures("no_figures")
def test_test_images_and_ood_sets_are_opened_after_all_choices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place_ood_set(tmp_path)
    events: list[str] = []

    class Watched(RandomDigits):
        def test(self) -> Part:
            events.append("test part opened")
            return super().test()

    make_rules = pipeline.make_rules

    def calibrate(*arguments: object, **options: object) -> object:
        rules = make_rules(*arguments, **options)  # type: ignore[arg-type]
        events.append("decided")
        return rules

    def notice(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]).startswith(str(tmp_path / "kmnist")):
            events.append("ood set opened")

    sys.addaudithook(notice)  # it stays, and finds nothing more once the folder is gone
    monkeypatch.setattr(pipeline, "make_rules", calibrate)
    monkeypatch.setattr(robustness, "ANGLES_DEG", (0,))
    monkeypatch.setattr(robustness, "KINDS", ("fog",))
    found = pipeline.train(
        Watched(),
        replace(SMALL, output=tmp_path / "out" / "x.safetensors"),
        device=torch.device("cpu"),
        data_dir=tmp_path,
        force=True,
    )
    assert found is not None
    assert events.count("decided") == 1
    assert events[0] == "decided"
    assert {"test part opened", "ood set opened"} < set(events)
    # The pipeline writes the checkpoint's metrics and the report, the not-a-digit output included.
    assert found.checkpoint.metrics["foreign"]["KMNIST"]["n"] == 9
    assert found.checkpoint.training["epochs"][0]["not_a_digit_nll"] > 0
    assert "KMNIST" in (tmp_path / "out" / "x.html").read_text()
    assert json.loads((tmp_path / "out" / "x.json").read_text()) == found.metrics.to_dict()

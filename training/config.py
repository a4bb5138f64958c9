"""What a training run does unless told otherwise, for each data set."""

from dataclasses import dataclass
from pathlib import Path

from model.architecture import DIGIT_READER, Conv, ModelConfig
from training.data.datasets import Digits, Mnist
from training.fitting.augment import Distortion
from training.fitting.trainer import FitConfig

__all__ = ["PRESETS", "RuleConfig", "RunConfig"]


@dataclass(frozen=True)
class RuleConfig:
    """What the calibrated rules shall promise.

    Attributes:
        target: Largest share of wrong answers among the accepted.
        confidence: Probability with which that holds.
        coverage: Share of pictures whose conformal set holds the true class.
    """

    target: float
    confidence: float
    coverage: float


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
        output: Where the checkpoint goes.
        population: What the calibration pictures are, for the user of the guarantee.
        model: Architecture and prior.
        fit: How to fit.
        rules: What the rules shall promise.
        n_draws: Draws used for calibration and evaluation, and expected of the service.
        n_non_digits: Pictures that are no digits drawn for a network that is to know them.
        draw_seed: Seed of the posterior's draws.
        validation_draws: Draws used for the glance at the validation part after each epoch.
        least_accuracy: Validation accuracy below which nothing is written without `--force`.
        threads: CPU threads of the fit. Another number sums in another order, so it is one of the
            things that decide the weights to the last bit.
    """

    output: Path
    population: str
    model: ModelConfig
    fit: FitConfig
    rules: RuleConfig
    least_accuracy: float
    n_draws: int = 100
    n_non_digits: int = 60_000
    draw_seed: int = 20260101
    validation_draws: int = 8
    threads: int = 2


PRESETS = {
    Mnist.name: RunConfig(
        output=Path("checkpoints/digits.safetensors"),
        population="MNIST training pictures held aside from fitting, through the digit door",
        fit=FitConfig(
            epochs=36,
            beta=0.02,
            learning_rate=4e-3,
            augmentation=Distortion(elastic_px=0.7),
            imitated=0.25,
            non_digits=64,
            non_digit_weight=0.1,
            expected_non_digits=0.01,
            hard_share=0.75,
        ),
        rules=RuleConfig(target=0.001, confidence=0.95, coverage=0.999),
        least_accuracy=0.95,
        model=DIGIT_READER,
    ),
    # Its own output: a network of 800 small pictures must not take the place of the real one.
    Digits.name: RunConfig(
        output=Path("checkpoints/sklearn-digits.safetensors"),
        population="scikit-learn's digits held aside from fitting, through the digit door",
        fit=FitConfig(
            epochs=40,
            batch_size=32,
            beta=0.02,
            learning_rate=5e-3,
            augmentation=Distortion(8.0, 0.08, 0.1, 1.0),
        ),
        rules=RuleConfig(target=0.05, confidence=0.95, coverage=0.95),
        least_accuracy=0.90,
        model=ModelConfig(
            convs=(Conv(8, 5, pool=True), Conv(16, 3), Conv(16, 3, pool=True)), hidden=(32,)
        ),
    ),
}
"""The settings of `python -m training.run --dataset NAME`; options change single values."""

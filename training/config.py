"""Settings of a training run, and the preset of each data set."""

from dataclasses import dataclass
from pathlib import Path

from model.architecture import DIGIT_CNN, Conv, ModelConfig
from training.data.datasets import Digits, Mnist
from training.fitting.augment import Distortion
from training.fitting.trainer import FitConfig


@dataclass(frozen=True)
class RuleConfig:
    """Guarantees of the calibrated rules.

    Attributes:
        target: Largest error rate among accepted answers.
        confidence: Probability that the target holds.
        coverage: Share of images whose conformal set contains the true class.
    """

    target: float
    confidence: float
    coverage: float


@dataclass(frozen=True)
class RunConfig:
    """Settings of one training run.

    Attributes:
        output: Path of the checkpoint.
        population: Description of the calibration images, for readers of the guarantee.
        model: Architecture and prior.
        fit: Settings of the fit.
        rules: Guarantees of the calibrated rules.
        min_accuracy: Validation accuracy below which nothing is written without `--force`.
        n_draws: Posterior draws of calibration, evaluation and service.
        n_outliers: Outliers to draw for a network with the outcome "not a digit".
        draw_seed: Seed of the posterior draws.
        validation_draws: Draws for the validation after each epoch.
        threads: CPU threads of the fit. Sums depend on their number in the last bits, and so do
            the weights.
    """

    output: Path
    population: str
    model: ModelConfig
    fit: FitConfig
    rules: RuleConfig
    min_accuracy: float
    n_draws: int = 100
    n_outliers: int = 60_000
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
        min_accuracy=0.95,
        model=DIGIT_CNN,
    ),
    # Its own output, so that a network of 800 small images never replaces the real one.
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
        min_accuracy=0.90,
        model=ModelConfig(
            convs=(Conv(8, 5, pool=True), Conv(16, 3), Conv(16, 3, pool=True)), hidden=(32,)
        ),
    ),
}
"""Settings of `python -m training.run --dataset NAME`; options change single values."""

"""Architectures: sizes counted by hand, and impossible ones rejected."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest
import torch

from model import BayesianCNN, Conv, ModelConfig
from model.architecture import DIGIT_CNN
from tests.support.checkpoints import TINY


def test_the_default_network_is_the_one_the_documents_speak_of() -> None:
    config = DIGIT_CNN
    assert config.n_parameters == 416 + 4640 + 9248 + 13_872 + 27_712 + 715
    macs = 16 * 25 * 24**2 + 32 * 16 * 9 * 10**2 + 32 * 32 * 9 * 8**2
    macs += (48 * 32 + 64 * 48) * 9 * 4**2
    assert config.mflop_per_draw == pytest.approx(2 * (macs + 64 * 11) / 1e6)
    assert (config.n_outputs, config.n_classes) == (11, 10)


def test_one_more_outcome_is_one_more_output() -> None:
    plain, knowing = replace(DIGIT_CNN, not_a_digit=False), DIGIT_CNN
    assert (knowing.n_outputs, knowing.n_classes) == (11, 10)
    assert knowing.n_parameters == plain.n_parameters + 65
    assert BayesianCNN(knowing)(torch.zeros(1, 1, 28, 28), BayesianCNN(knowing).sample()).shape == (
        1,
        11,
    )


@pytest.mark.parametrize("config", [DIGIT_CNN, TINY])
def test_the_network_has_a_posterior_for_every_weight_and_bias(config: ModelConfig) -> None:
    network = BayesianCNN(config)
    mean, scale = network.posterior()
    shapes = config.parameter_shapes()
    assert {name: tuple(t.shape) for name, t in mean.items()} == shapes
    assert {name: tuple(t.shape) for name, t in scale.items()} == shapes
    # A mean and a scale for each, and no parameter besides: nothing is left deterministic.
    assert sum(p.numel() for p in network.parameters()) == 2 * config.n_parameters


def test_the_networks_kl_is_the_sum_over_its_layers() -> None:
    network = BayesianCNN(TINY)
    expected = sum(layer.kl_divergence() for layer in network.layers().values())
    torch.testing.assert_close(network.kl_divergence(), expected)


def test_a_draw_is_a_value_that_forward_takes() -> None:
    network = BayesianCNN(TINY, generator=torch.Generator().manual_seed(0))
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    first = network.sample(torch.Generator().manual_seed(2))
    expected = network(x, first)
    network(x, network.sample(torch.Generator().manual_seed(3)))
    assert torch.equal(network(x, first), expected)


def test_a_configuration_survives_json() -> None:
    assert ModelConfig.from_dict(json.loads(json.dumps(asdict(TINY)))) == TINY


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("convs"),
        lambda d: d.update(unknown=1),
        lambda d: d.update(convs=[{"channels": 3}]),
        lambda d: d.update(hidden=7),
        lambda d: d.update(not_a_digit=1),
        lambda d: d.update(prior_scale="wide"),
        lambda d: d.update(prior_scale=float("nan")),
    ],
)
def test_an_unknown_architecture_is_rejected(
    damage: Callable[[dict[str, object]], object],
) -> None:
    values = asdict(TINY)
    damage(values)
    with pytest.raises(ValueError, match=r"architecture|prior_scale|not_a_digit"):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(
    "options",
    [
        {"convs": (Conv(0, 3),)},
        {"convs": (Conv(4, 29),)},
        {"convs": (Conv(4, 3, padding=3),)},
        {"convs": (Conv(4, 3, padding=-1),)},
        {"global_mean": 1},
        {"hidden": (0,)},
        {"labels": ("a",)},
        {"labels": ("a", "a")},
        {"prior_scale": 0.0},
    ],
)
def test_a_network_that_cannot_be_is_rejected(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        ModelConfig(**{"convs": (Conv(4, 3),), **options})  # type: ignore[arg-type]

"""The baselines: deterministic networks in the fit and in the engine."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model import Conv, ModelConfig
from model.engines.onnx_engine import OnnxEngine
from tests.support.checkpoints import TINY
from training.baselines import __main__ as command
from training.baselines.comparison import scale_temperature
from training.baselines.networks import DeterministicCNN, Members, dropout_members
from training.config import PRESETS, RunConfig
from training.data.datasets import Source
from training.fitting.trainer import FitConfig, Fitter, TrainingSet

SHAPES = {
    "tiny": replace(TINY, not_a_digit=True),
    "no hidden layer": ModelConfig(convs=(Conv(4, 5, pool=True), Conv(5, 3)), hidden=()),
    "global mean": ModelConfig(
        convs=(Conv(4, 5, pool=True), Conv(5, 3, padding=1)), global_mean=True
    ),
    "no convolution": ModelConfig(convs=(), hidden=(7,)),
}
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)


def deterministic(config: ModelConfig, dropout: float = 0.0) -> DeterministicCNN:
    return DeterministicCNN(config, dropout=dropout, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_the_engine_computes_the_network_that_is_fitted(config: ModelConfig) -> None:
    network = deterministic(config)
    x = torch.from_numpy(PIXELS).float()[:, None] / 255
    with torch.no_grad():
        expected = network.forward_local(x).numpy()
    members = Members(config, [network.arrays()])
    found = OnnxEngine(members, n_draws=1).logits(PIXELS, 1)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_dropped_channels_as_weights_are_dropped_channels(config: ModelConfig) -> None:
    """Both ways have the same mean and spread over masks; n = 4,000 each, 5 standard errors."""
    n = 4_000
    network = deterministic(config, dropout=0.3)
    generator = torch.Generator().manual_seed(1)
    x = torch.from_numpy(PIXELS[:1]).float()[:, None] / 255
    with torch.no_grad():
        fitted = network.forward_local(x.expand(n, -1, -1, -1), generator).numpy()
    asked = OnnxEngine(dropout_members(network, n, seed=2), n_draws=n).logits(PIXELS[:1], n)
    asked = asked[:, 0]
    error = 5 * np.sqrt((fitted.var(axis=0) + asked.var(axis=0)) / n)
    assert (np.abs(fitted.mean(axis=0) - asked.mean(axis=0)) < error).all()
    np.testing.assert_allclose(asked.std(axis=0), fitted.std(axis=0), rtol=0.15)
    assert fitted.std(axis=0).min() > 0


def test_the_same_seed_drops_the_same_channels_whatever_their_number() -> None:
    network = deterministic(TINY, dropout=0.5)
    few, many = dropout_members(network, 3, seed=1), dropout_members(network, 5, seed=1)
    for name, values in few.stack(3).items():
        assert np.array_equal(values, many.stack(5)[name][:3])
    with pytest.raises(ValueError, match="3 networks, not 4"):
        few.stack(4)


def test_the_penalty_is_the_negative_log_of_the_gaussian_prior() -> None:
    network = deterministic(TINY)
    weights = torch.cat([values.flatten() for values in network.parameters()]).detach()
    prior = torch.distributions.Normal(0.0, TINY.prior_scale)
    constant = prior.log_prob(torch.zeros(1)) * len(weights)
    expected = -(prior.log_prob(weights).sum() - constant)
    torch.testing.assert_close(network.kl_divergence(), expected.squeeze())


def test_the_fitter_of_the_bayesian_network_fits_it() -> None:
    images = torch.rand(48, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(0, 10, (48,), generator=torch.Generator().manual_seed(2))
    settings = FitConfig(epochs=15, batch_size=16, learning_rate=0.02, beta=0.0, augmentation=None)
    fitter = Fitter(deterministic(TINY), settings, TrainingSet(images, labels))
    first = next(iter(fitter.run_epoch()))
    for _ in range(14):
        last = list(fitter.run_epoch())[-1]
    assert last.nll < 0.9 * first.nll


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0])
def test_a_dropout_that_is_not_a_probability_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="dropout"):
        deterministic(TINY, dropout=share)


def test_a_temperature_divides_the_logits() -> None:
    network = deterministic(TINY).arrays()
    scaled = scale_temperature(network, 2.0)
    before, after = (
        OnnxEngine(Members(TINY, [weights]), n_draws=1).logits(PIXELS, 1)
        for weights in (network, scaled)
    )
    np.testing.assert_allclose(after, before / 2, rtol=1e-4, atol=1e-5)


def test_the_command_takes_the_data_set_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def compare(_posterior: object, config: RunConfig, source: Source, **_: object) -> None:
        taken.append((source.name, config.fit.epochs))

    monkeypatch.setattr(command, "compare", compare)
    assert command.main(["--dataset", "digits"]) == 0
    assert command.main([]) == 0
    assert taken == [(name, PRESETS[name].fit.epochs) for name in ("digits", "mnist")]

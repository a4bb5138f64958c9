"""The Gaussian layers: KL against torch.distributions, and two paths equal in distribution."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from model import BayesianLinear, gaussian_kl
from model.nn import layers
from tests.support.guards import (
    Layer,
    check_device_is_kept,
    check_kl_against_torch,
    check_kl_ignores_forward_passes,
    check_noise_differs_between_examples,
    conv,
    input_of,
    linear,
    seeded,
)


@pytest.mark.parametrize("make", [linear, conv])
@pytest.mark.parametrize("prior_scale", [0.05, 0.3, 2.0])
def test_kl_is_the_sum_of_torchs_divergences(
    make: Callable[[float], Layer], prior_scale: float
) -> None:
    check_kl_against_torch(make(prior_scale))


def test_kl_of_one_weight_by_hand() -> None:
    # ln(s/σ) + (σ² + μ²)/(2 s²) - 1/2 with μ = 1, σ = 0.5, s = 2
    expected = math.log(4) + (0.25 + 1) / 8 - 0.5
    value = gaussian_kl(torch.tensor([1.0]), torch.tensor([0.5]), 2.0)
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_kl_is_zero_where_the_posterior_is_the_prior() -> None:
    value = gaussian_kl(torch.zeros(5), torch.full((5,), 0.7), 0.7)
    assert value.item() == pytest.approx(0, abs=1e-6)


def test_kl_agrees_with_monte_carlo() -> None:
    mean, scale, prior_scale = torch.tensor(0.4), torch.tensor(0.2), 0.5
    w = mean + scale * torch.randn(200_000, generator=seeded())
    ratio = Normal(mean, scale).log_prob(w) - Normal(0.0, prior_scale).log_prob(w)
    standard_error = ratio.std() / math.sqrt(len(ratio))
    difference = gaussian_kl(mean, scale, prior_scale) - ratio.mean()
    assert abs(difference) < 4 * standard_error


def test_kl_does_not_depend_on_forward_passes() -> None:
    check_kl_ignores_forward_passes(linear())


def test_a_layer_remembers_nothing_but_its_parameters() -> None:
    layer = linear()
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    attributes = set(vars(layer))
    layer(torch.randn(5, 7), layer.sample(seeded(3)))
    layer.forward_local(torch.randn(5, 7), seeded(4))
    assert set(vars(layer)) == attributes
    assert state.keys() == {"weight_mean", "weight_rho", "bias_mean", "bias_rho"}
    assert all(torch.equal(state[name], layer.state_dict()[name]) for name in state)


@pytest.mark.parametrize("make", [linear, conv])
def test_without_scale_both_paths_are_the_ordinary_layer(make: Callable[[], Layer]) -> None:
    layer = make()
    with torch.no_grad():
        layer.weight_rho.fill_(-40)
        layer.bias_rho.fill_(-40)
    x = input_of(layer)
    if isinstance(layer, BayesianLinear):
        expected = x @ layer.weight_mean.T + layer.bias_mean
    else:
        expected = torch.nn.functional.conv2d(x, layer.weight_mean, layer.bias_mean)
    torch.testing.assert_close(layer(x, layer.sample(seeded(3))), expected)
    torch.testing.assert_close(layer.forward_local(x, seeded(4)), expected)


def local_activations(layer: Layer, x: Tensor, n: int) -> Tensor:
    """Sampled activations of n copies of one example; the second half of a batch is antithetic."""
    return layer.forward_local(x.expand(2 * n, *x.shape[1:]), seeded(4))[:n]


def drawn_activations(layer: Layer, x: Tensor, n: int) -> Tensor:
    """Activations of n draws of the weights, vectorized over the draws."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        forward = torch.vmap(
            lambda _: layer(x, layer.sample())[0], randomness="different", chunk_size=2_000
        )
        return forward(torch.zeros(n))


@pytest.mark.parametrize("make", [linear, conv])
def test_local_reparameterisation_has_the_moments_of_drawn_weights(
    make: Callable[[], Layer],
) -> None:
    """Mean and variance of every activation, n = 50,000 a side, within 5 standard errors."""
    layer, n = make(), 50_000
    x = input_of(layer)
    with torch.no_grad():
        drawn, local = drawn_activations(layer, x, n), local_activations(layer, x, n)
    error = ((drawn.var(0) + local.var(0)) / n).sqrt()
    assert ((drawn.mean(0) - local.mean(0)).abs() < 5 * error).all()
    # The variance of a Gaussian sample's variance is 2 σ⁴ / (n - 1).
    error = (2 * (drawn.var(0) ** 2 + local.var(0) ** 2) / (n - 1)).sqrt()
    assert ((drawn.var(0) - local.var(0)).abs() < 5 * error).all()


def test_the_outputs_of_a_linear_layer_are_independent_on_both_paths() -> None:
    layer, n = linear(), 50_000
    x = input_of(layer)
    with torch.no_grad():
        samples = (drawn_activations(layer, x, n), local_activations(layer, x, n))
    for sample in samples:
        off_diagonal = torch.corrcoef(sample.T) - torch.eye(4)
        assert off_diagonal.abs().max() < 5 / math.sqrt(n)


def test_local_noise_differs_between_the_examples_of_a_batch() -> None:
    check_noise_differs_between_examples(linear())


@pytest.mark.parametrize("batch", [6, 7])
def test_local_noise_of_the_second_half_is_that_of_the_first_with_the_other_sign(
    batch: int,
) -> None:
    layer = linear()
    x = input_of(layer).expand(batch, -1)
    mean = layer(x[:1], layer.posterior_mean())
    noise = layer.forward_local(x, seeded(4)) - mean
    half = (batch + 1) // 2
    torch.testing.assert_close(noise[half:], -noise[: batch - half])
    assert noise[:half].abs().min() > 0


def test_the_gradients_by_hand_are_those_of_autograd() -> None:
    mean = torch.randn(5, 3, dtype=torch.float64, generator=seeded(1)).requires_grad_()
    scale = (0.1 + torch.rand(5, 3, dtype=torch.float64, generator=seeded(2))).requires_grad_()
    noise = torch.randn(5, 3, dtype=torch.float64, generator=seeded(3))
    assert torch.autograd.gradcheck(lambda m, s: gaussian_kl(m, s, 0.7), (mean, scale))
    sample = layers._GaussianSample.apply
    # Cloned: the function overwrites its input, which gradcheck uses again.
    assert torch.autograd.gradcheck(lambda m, v: sample(m, v.clone(), noise.clone()), (mean, scale))


def test_draws_are_reparameterised_and_differentiable_in_mean_and_rho() -> None:
    layer = linear()
    layer.sample(seeded(3)).weight.square().sum().backward()
    assert layer.weight_mean.grad is not None
    assert layer.weight_rho.grad is not None
    assert layer.weight_rho.grad.abs().min() > 0


def test_the_gradient_of_a_silent_input_is_finite() -> None:
    layer = linear()
    with torch.no_grad():
        layer.bias_rho.fill_(-200)  # no noise left anywhere: the variance is exactly 0
    layer.forward_local(torch.zeros(3, 7), seeded(4)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)


def test_the_same_seed_gives_the_same_draw_and_leaves_global_generators_alone() -> None:
    layer = linear()
    state = torch.get_rng_state()
    first, again, other = (layer.sample(seeded(seed)) for seed in (3, 3, 4))
    layer.forward_local(torch.randn(2, 7, generator=seeded()), seeded(5))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("make", [linear, conv])
def test_a_layer_computes_where_it_was_put(make: Callable[[], Layer]) -> None:
    check_device_is_kept(make())


@pytest.mark.parametrize("options", [{"prior_scale": 0.0}, {"initial_scale": -1.0}])
def test_a_scale_must_be_positive(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        BayesianLinear(2, 2, **options)

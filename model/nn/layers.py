"""Bayesian layers: Gaussian weights, mean-field variational inference.

Every weight and bias w has its own posterior q(w) = N(mu, sigma²) and the shared prior
p(w) = N(0, prior_scale²). A layer holds the parameters of q and nothing else: no draw, no KL term,
no mode. A draw is a value that is passed to `forward`.

Source: Blundell, Cornebise, Kavukcuoglu and Wierstra (2015), "Weight Uncertainty in Neural
Networks"; Kingma, Salimans and Welling (2015), "Variational Dropout and the Local
Reparameterization Trick".
"""

import math
from typing import Any, NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

# Keeps the gradient of the square root finite if the variance of an activation is zero.
_SMALLEST_VARIANCE = 1e-16


class AffineWeights(NamedTuple):
    """Weight and bias of a layer: a draw, or the posterior's means or scales."""

    weight: Tensor
    bias: Tensor


def gaussian_kl(mean: Tensor, scale: Tensor, prior_scale: float) -> Tensor:
    r"""Kullback–Leibler divergence of N(mean, scale²) from N(0, prior_scale²), summed, in nats.

    .. math:: KL(q \| p) = \sum_i \ln\frac{s}{\sigma_i}
              + \frac{\sigma_i^2 + \mu_i^2}{2 s^2} - \frac12

    Args:
        mean: Posterior means mu, any shape.
        scale: Posterior standard deviations sigma, the same shape, positive.
        prior_scale: Standard deviation s of the prior.

    Returns:
        A scalar: the sum over all elements, never their mean.

    Source: Kingma and Welling (2014), "Auto-Encoding Variational Bayes", appendix B, for a prior
    of any scale.
    """
    divergence: Tensor = _GaussianKl.apply(mean, scale, prior_scale)
    return divergence


class _GaussianKl(torch.autograd.Function):
    """`gaussian_kl` with a hand-written gradient, for speed in every training step."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, scale: Tensor, prior_scale: float) -> Tensor:
        ctx.save_for_backward(mean, scale)
        ctx.prior_scale = prior_scale
        ratio = (scale / prior_scale).square_()
        return 0.5 * (ratio + (mean / prior_scale).square_() - 1 - ratio.log()).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        mean, scale = ctx.saved_tensors
        factor = gradient / ctx.prior_scale**2
        return mean * factor, scale * factor - gradient / scale, None


class LayerOptions(TypedDict, total=False):
    """Options of a Bayesian layer.

    Attributes:
        prior_scale: Standard deviation of the prior N(0, prior_scale²); 0.1 by default.
        initial_scale: Initial standard deviation of the posterior; 0.02 by default.
        generator: Random generator of the initial means; the global one if None.
    """

    prior_scale: float
    initial_scale: float
    generator: torch.Generator | None


class _BayesianAffine(nn.Module):
    """Base class: the posterior of a weight and a bias."""

    def __init__(
        self,
        weight_shape: tuple[int, ...],
        *,
        prior_scale: float = 0.1,
        initial_scale: float = 0.02,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if prior_scale <= 0 or initial_scale <= 0:
            raise ValueError(
                f"scales are standard deviations and must be positive; "
                f"prior_scale is {prior_scale}, initial_scale is {initial_scale}"
            )
        self.prior_scale = prior_scale
        fan_in = math.prod(weight_shape[1:])
        # He et al. (2015), equation 10: keeps the variance of ReLU activations across layers.
        weight = torch.randn(weight_shape, generator=generator) * math.sqrt(2 / fan_in)
        bias = torch.zeros(weight_shape[0])
        rho = math.log(math.expm1(initial_scale))  # the inverse of softplus
        self.weight_mean = nn.Parameter(weight)
        self.weight_rho = nn.Parameter(torch.full(weight_shape, rho))
        self.bias_mean = nn.Parameter(bias)
        self.bias_rho = nn.Parameter(torch.full(bias.shape, rho))

    def posterior_mean(self) -> AffineWeights:
        """The means mu of weight and bias."""
        return AffineWeights(self.weight_mean, self.bias_mean)

    def posterior_scale(self) -> AffineWeights:
        """The standard deviations sigma = ln(1 + exp(rho)) of weight and bias."""
        return AffineWeights(
            functional.softplus(self.weight_rho), functional.softplus(self.bias_rho)
        )

    def sample(self, generator: torch.Generator | None = None) -> AffineWeights:
        """Draw w = mu + sigma · eps with eps ~ N(0, 1), differentiable in mu and rho.

        Args:
            generator: Random generator on this layer's device; the global one if None.
        """
        mean, scale = self.posterior_mean(), self.posterior_scale()
        return AffineWeights(
            *(m + s * _standard_normal(m, generator) for m, s in zip(mean, scale, strict=True))
        )

    def kl_divergence(self) -> Tensor:
        """KL(q‖p) of all weights and biases of this layer: a scalar sum in nats."""
        pairs = zip(self.posterior_mean(), self.posterior_scale(), strict=True)
        return torch.stack([gaussian_kl(m, s, self.prior_scale) for m, s in pairs]).sum()

    def forward(self, x: Tensor, weights: AffineWeights) -> Tensor:
        """The ordinary layer with the given weights."""
        return self._affine(x, *weights)

    def forward_local(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        r"""Sample the activations instead of the weights (local reparameterisation).

        For a fixed input each activation is Gaussian under q,

        .. math:: y \sim N\big(a(x; \mu),\; a(x^2; \sigma^2)\big)

        where a is this layer's affine map. Every example gets its own noise, so gradients are less
        noisy than with one draw of weights for the batch. The mean and variance of every activation
        are exact. Activations are sampled independently, which is exact between the outputs of a
        linear layer and between channels, and ignores the correlation between neighbouring
        positions of a convolution.

        The noise is antithetic: the second half of the batch gets the negative noise of the first.
        Each example's distribution is unchanged, half the noise is sampled, and the batch mean is
        less noisy.

        Args:
            x: The input.
            generator: Random generator on this layer's device; the global one if None.

        Source: Kingma, Salimans and Welling (2015), equation 6; Molchanov, Ashukha and Vetrov
        (2017), section 4.4, for convolutions.
        """
        scale = self.posterior_scale()
        mean = self._affine(x, self.weight_mean, self.bias_mean)
        variance = self._affine(x.square(), scale.weight.square(), scale.bias.square())
        sample: Tensor = _GaussianSample.apply(mean, variance, _antithetic_normal(mean, generator))
        return sample

    def _affine(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        raise NotImplementedError


class BayesianLinear(_BayesianAffine):
    """A fully connected layer y = x Wᵀ + b with a Gaussian posterior for each weight and bias.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        options: See `LayerOptions`.

    Shapes:
        `forward` and `forward_local` map (B, in_features) to (B, out_features).
    """

    def __init__(
        self, in_features: int, out_features: int, **options: Unpack[LayerOptions]
    ) -> None:
        super().__init__((out_features, in_features), **options)

    def _affine(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.linear(x, weight, bias)


class BayesianConv2d(_BayesianAffine):
    """A 2-D convolution with a Gaussian posterior for each weight and bias.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the square kernel in pixels.
        padding: Zero padding in pixels.
        options: See `LayerOptions`.

    Shapes:
        `forward` and `forward_local` map (B, in_channels, H, W) to (B, out_channels, H', W') with
        H' = H + 2 · padding - kernel_size + 1, and W' likewise.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        padding: int = 0,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__((out_channels, in_channels, kernel_size, kernel_size), **options)
        self._padding = padding

    def _affine(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.conv2d(x, weight, bias, padding=self._padding)


class _GaussianSample(torch.autograd.Function):
    """mean + sqrt(variance) · noise, in a third of autograd's passes over memory.

    Overwrites `variance` and `noise`; nothing else may use them.
    """

    @staticmethod
    def forward(ctx: Any, mean: Tensor, variance: Tensor, noise: Tensor) -> Tensor:
        deviation = variance.clamp_min_(_SMALLEST_VARIANCE).sqrt_()
        sample = torch.addcmul(mean, deviation, noise)
        # The derivative of sqrt(v) is 1 / (2 sqrt(v)).
        ctx.save_for_backward(noise.div_(deviation).mul_(0.5))
        return sample

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        (slope,) = ctx.saved_tensors
        return gradient, gradient * slope, None


def _antithetic_normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise; the second half of the batch is the negative of the first."""
    half = _standard_normal(like[: (len(like) + 1) // 2], generator)
    return torch.cat([half, -half])[: len(like)]


def _standard_normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)

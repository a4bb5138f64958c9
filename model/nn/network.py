"""The Bayesian convolutional network, built from a `ModelConfig`."""

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.architecture import ModelConfig
from model.nn.layers import AffineWeights, BayesianConv2d, BayesianLinear, LayerOptions

Layer = BayesianConv2d | BayesianLinear
Weights = Mapping[str, AffineWeights]


class BayesianCNN(nn.Module):
    """A convolutional network in which every weight and bias is Bayesian.

    Convolutions with ReLU and optional 2×2 max-pooling, optional global average pooling, then fully
    connected layers. The layers are `conv1`, `conv2`, …, `dense1`, …, as in
    `ModelConfig.parameter_shapes`.

    Args:
        config: Architecture and prior.
        initial_scale: Initial standard deviation of every posterior.
        generator: Random generator of the initial means; the global one if None.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        initial_scale: float = 0.02,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        options: LayerOptions = {
            "prior_scale": config.prior_scale,
            "initial_scale": initial_scale,
            "generator": generator,
        }
        for name, shape in config.parameter_shapes().items():
            layer, kind = name.split(".")
            if kind == "bias":
                continue
            made: Layer
            if layer.startswith("conv"):
                padding = config.convs[int(layer.removeprefix("conv")) - 1].padding
                made = BayesianConv2d(shape[1], shape[0], shape[2], padding=padding, **options)
            else:
                made = BayesianLinear(shape[1], shape[0], **options)
            self.add_module(layer, made)

    def layers(self) -> dict[str, Layer]:
        """The Bayesian layers by name, in order."""
        return {name: cast(Layer, layer) for name, layer in self.named_children()}

    def sample(self, generator: torch.Generator | None = None) -> dict[str, AffineWeights]:
        """Draw all weights once; see `BayesianLinear.sample`."""
        return {name: layer.sample(generator) for name, layer in self.layers().items()}

    def posterior_mean(self) -> dict[str, AffineWeights]:
        """The posterior means of all weights."""
        return {name: layer.posterior_mean() for name, layer in self.layers().items()}

    def kl_divergence(self) -> Tensor:
        """KL(q‖p) of the whole network: a scalar sum over all weights and biases, in nats."""
        return torch.stack([layer.kl_divergence() for layer in self.layers().values()]).sum()

    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        """Logits of one draw.

        Args:
            x: Images (B, 1, H, W).
            weights: Weight and bias of each layer, as `sample` returns them.

        Returns:
            Logits (B, C), or (B, C + 1) with a not-a-digit output.
        """
        return self._apply_layers(x, lambda name, layer, h: layer(h, weights[name]))

    def forward_local(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits with sampled activations, for training; see `BayesianLinear.forward_local`.

        Averaged over the noise it approximates `forward` averaged over draws, but one pass is not
        the output of one network.
        """
        return self._apply_layers(x, lambda _name, layer, h: layer.forward_local(h, generator))

    def posterior(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Means and scales by parameter name (`conv1.weight`, …), detached, on the CPU."""
        scales = {name: layer.posterior_scale() for name, layer in self.layers().items()}
        return _by_parameter(self.posterior_mean()), _by_parameter(scales)

    def _apply_layers(self, x: Tensor, apply: Callable[[str, Layer, Tensor], Tensor]) -> Tensor:
        layers = self.layers()
        for i, conv in enumerate(self.config.convs, 1):
            name = f"conv{i}"
            x = functional.relu(apply(name, layers[name], x))
            if conv.pool:
                x = functional.max_pool2d(x, 2)
        if self.config.global_mean:
            x = x.mean(dim=(2, 3))
        x = x.flatten(1)
        n_dense = len(self.config.hidden) + 1
        for i in range(1, n_dense + 1):
            name = f"dense{i}"
            x = apply(name, layers[name], x)
            if i < n_dense:
                x = functional.relu(x)
        return x


def _by_parameter(weights: Weights) -> dict[str, Tensor]:
    return {
        f"{name}.{kind}": values.detach().cpu()
        for name, pair in weights.items()
        for kind, values in pair._asdict().items()
    }

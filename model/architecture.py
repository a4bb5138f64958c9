"""Network architecture as a frozen value; needs no deep-learning library."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Conv:
    """One convolution, followed by ReLU and, if `pool`, 2×2 max-pooling.

    Attributes:
        channels: Output channels.
        kernel: Side of the square kernel in pixels.
        pool: Whether a 2×2 max-pooling follows.
        padding: Zero padding in pixels, less than `kernel`.
    """

    channels: int
    kernel: int
    pool: bool = False
    padding: int = 0


@dataclass(frozen=True)
class ModelConfig:
    """Architecture and prior of a `BayesianCNN`.

    Attributes:
        convs: The convolutions, in order.
        hidden: Widths of the fully connected layers between the last convolution and the output.
        global_mean: Whether the last feature map is averaged (global average pooling) or flattened.
        labels: Names of the classes, in the order of the network's outputs.
        image_size: Side of the square, one-channel input in pixels.
        prior_scale: Standard deviation (not variance) of the Gaussian prior of every weight.
        not_a_digit: Whether one more output, after the classes, means "none of them".
    """

    convs: tuple[Conv, ...]
    hidden: tuple[int, ...] = ()
    labels: tuple[str, ...] = DIGITS
    image_size: int = 28
    prior_scale: float = 0.1
    not_a_digit: bool = False
    global_mean: bool = False

    def __post_init__(self) -> None:
        """Validate the values.

        Raises:
            ValueError: If a value is of the wrong kind or out of range, the labels are not unique,
                or the image is too small for the convolutions.
        """
        sizes = [c.channels for c in self.convs] + [c.kernel for c in self.convs]
        sizes += [*self.hidden, self.image_size]
        if not all(type(size) is int and size >= 1 for size in sizes):
            raise ValueError(f"every size must be a whole number of at least 1: {self}")
        for name in ("not_a_digit", "global_mean"):
            value = getattr(self, name)
            if type(value) is not bool:
                raise ValueError(f"{name} must be true or false, not {value!r}")
        if not all(type(c.padding) is int and 0 <= c.padding < c.kernel for c in self.convs):
            raise ValueError(f"padding must be a whole number from 0 to less than kernel: {self}")
        if not all(type(conv.pool) is bool for conv in self.convs):
            raise ValueError(f"pool must be true or false: {self}")
        if not (math.isfinite(self.prior_scale) and self.prior_scale > 0):
            raise ValueError(f"prior_scale must be a positive number, not {self.prior_scale}")
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels must be two or more different names, not {self.labels}")
        if self._sides()[-1] < 1:
            raise ValueError(f"a {self.image_size} pixel picture is too small for {self.convs}")

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return len(self.labels)

    @property
    def n_outputs(self) -> int:
        """Number of outputs: C, or C + 1 with a not-a-digit output."""
        return self.n_classes + self.not_a_digit

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases; the posterior has a mean and a scale for each."""
        return sum(math.prod(shape) for shape in self.parameter_shapes().values())

    @property
    def mflop_per_draw(self) -> float:
        """Millions of floating-point operations per image and draw.

        A multiply-add counts as two; pooling and activations are not counted.
        """
        shapes = self.parameter_shapes()
        total = sum(math.prod(shape) for name, shape in shapes.items() if name.endswith("weight"))
        for i, (conv, side) in enumerate(zip(self.convs, self._sides(), strict=False), 1):
            total += math.prod(shapes[f"conv{i}.weight"]) * (_convolved(side, conv) ** 2 - 1)
        return 2 * total / 1e6

    @property
    def last_map(self) -> tuple[int, int]:
        """Channels and side of the feature map that the first fully connected layer flattens."""
        channels = self.convs[-1].channels if self.convs else 1
        return channels, 1 if self.global_mean else self._sides()[-1]

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight and bias, in the order in which they are drawn.

        Convolutions are named `conv1`, `conv2`, …; fully connected layers `dense1`, ….
        """
        shapes: dict[str, tuple[int, ...]] = {}
        channels = 1
        for i, conv in enumerate(self.convs, 1):
            shapes[f"conv{i}.weight"] = (conv.channels, channels, conv.kernel, conv.kernel)
            shapes[f"conv{i}.bias"] = (conv.channels,)
            channels = conv.channels
        channels, side = self.last_map
        widths = [channels * side**2, *self.hidden, self.n_outputs]
        for i, (n_in, n_out) in enumerate(pairwise(widths), 1):
            shapes[f"dense{i}.weight"] = (n_out, n_in)
            shapes[f"dense{i}.bias"] = (n_out,)
        return shapes

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """The inverse of `dataclasses.asdict`.

        Raises:
            ValueError: If a key is missing or unknown, or a value is invalid.
        """
        try:
            known = dict(values)
            convs = tuple(Conv(**conv) for conv in known.pop("convs"))
            hidden = tuple(known.pop("hidden"))
            labels = tuple(str(label) for label in known.pop("labels"))
            return cls(convs=convs, hidden=hidden, labels=labels, **known)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an architecture this version knows: {error}") from error

    def _sides(self) -> list[int]:
        """Sides of the input and of the feature map after each convolution and its pooling."""
        sides = [self.image_size]
        for conv in self.convs:
            side = _convolved(sides[-1], conv)
            sides.append(side // 2 if conv.pool else side)
        return sides


def _convolved(side: int, conv: Conv) -> int:
    """Side of the feature map after a convolution, before pooling."""
    return side + 2 * conv.padding - conv.kernel + 1


DIGIT_CNN = ModelConfig(
    convs=(
        Conv(16, 5, pool=True),
        Conv(32, 3),
        Conv(32, 3, pool=True),
        Conv(48, 3, padding=1),
        Conv(64, 3, padding=1),
    ),
    global_mean=True,
    not_a_digit=True,
)
"""Architecture of the bundled model: 56,603 weights and biases, 3.9 MFLOP per draw."""

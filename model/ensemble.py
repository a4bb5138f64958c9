r"""The ensemble engine: all posterior draws as one network, multiplied by ONNX Runtime on the CPU.

S networks that read the same picture are one wide network. The first convolution sees one input,
so its S sets of filters are simply more output channels; in every later layer the draws are
*groups* that do not see each other; a fully connected layer is a convolution whose kernel covers
its whole input.

.. math:: y_{s} = W_{s} * x \quad (s = 1 \dots S) \;\Longleftrightarrow\;
          [y_1; \dots; y_S] = [W_1; \dots; W_S] * x

The draws stand in blocks, one after the other, each skipped unless it is needed, so that the first
N cost their share of all. Every picture and every draw is computed by itself in the same order of
operations, whatever else is asked at the same time: no answer depends on that, not in its last bit.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.architecture import ModelConfig
from model.cores import granted_cores
from model.posterior import Arrays, Posterior

__all__ = ["EnsembleEngine", "block_sizes"]

Floats: TypeAlias = NDArray[np.float32]

_OPSET, _IR_VERSION = 21, 10
_FIRST_BLOCK, _LARGEST_BLOCK = 10, 12
_WASTE = 0.12  # share of the draws that may be computed and not used
_CHUNK = 8  # pictures at once: more no longer fit the cache between two layers


class EnsembleEngine:
    """The draws of a posterior, stacked; see the module.

    Args:
        posterior: The posterior.
        n_draws: Number of draws S, made once here.
        threads: CPU threads of one call; as many as cores are granted if None.
    """

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, posterior: Posterior, *, n_draws: int, threads: int | None = None) -> None:
        """Draw the posterior and prepare the network; see the class."""
        self.n_draws = n_draws
        self._n_classes = posterior.config.n_classes
        sizes = block_sizes(n_draws)
        self._ends = np.cumsum(sizes)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or granted_cores()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A thread that waits for work must not keep a core busy that another lane could use.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            _graph(posterior, sizes).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
        )

    def logits(self, images: NDArray[np.uint8], n_draws: int) -> NDArray[np.float32]:
        """See `Engine.logits`."""
        result = np.empty((n_draws, len(images), self._n_classes), np.float32)
        n_blocks = int(np.searchsorted(self._ends, n_draws)) + 1
        wanted = np.array(n_draws)
        for start in range(0, len(images), _CHUNK):
            chunk = images[start : start + _CHUNK]
            x = chunk[:, None].astype(np.float32) / 255
            blocks = self._session.run(None, {"images": x, "n_draws": wanted})[:n_blocks]
            stacked = np.concatenate(blocks, axis=1).reshape(len(chunk), -1, self._n_classes)
            result[:, start : start + _CHUNK] = stacked[:, :n_draws].swapaxes(0, 1)
        return result


def block_sizes(n_draws: int) -> list[int]:
    """Sizes of the blocks in which draws are computed: small first, then in proportion.

    The first N draws need the blocks up to the one that holds draw N: for N of at least 10, that
    is at most 12 % and one draw more than N.
    """
    sizes: list[int] = []
    done = 0
    while done < n_draws:
        size = min(1 + int(_WASTE * done), _LARGEST_BLOCK) if sizes else _FIRST_BLOCK
        sizes.append(min(size, n_draws - done))
        done += sizes[-1]
    return sizes


def _graph(posterior: Posterior, sizes: Sequence[int]) -> onnx.ModelProto:
    """The ONNX model: images (B, 1, H, W) and the number of draws to logits, one output a block."""
    config = posterior.config
    side = config.image_size
    blocks = [_Block(config, index) for index in range(len(sizes))]
    stacked = posterior.stack(sum(sizes))
    nodes, outputs, constants = [], [], []
    start = 0
    for block, size in zip(blocks, sizes, strict=True):
        block.fill({name: values[start : start + size] for name, values in stacked.items()}, size)
        if start == 0:  # always needed
            nodes += block.nodes
            constants += block.constants
        else:
            nodes += block.nodes_if_more_than(start)
        outputs.append(block.output)
        start += size
    return helper.make_model(
        helper.make_graph(
            nodes,
            "ensemble",
            [
                helper.make_tensor_value_info("images", TensorProto.FLOAT, ["B", 1, side, side]),
                helper.make_tensor_value_info("n_draws", TensorProto.INT64, []),
            ],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )


class _Block:
    """The nodes and constants of one block of draws."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.output = "images"
        self._config = config
        self._prefix = f"block{index}"

    def fill(self, weights: Arrays, size: int) -> None:
        """Lay out the layers for `size` draws, whose stacked weights are given."""
        config = self._config
        for i, conv in enumerate(config.convs, 1):
            kernel = weights[f"conv{i}.weight"]
            self._layer(f"conv{i}", kernel, weights[f"conv{i}.bias"], 1 if i == 1 else size)
            self._node("Relu")
            if conv.pool:
                self._node("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        _, side = config.last_map
        n_dense = len(config.hidden) + 1
        for i in range(1, n_dense + 1):
            # One that is connected to all of a map is a convolution whose kernel covers the map.
            matrix = weights[f"dense{i}.weight"]
            kernel = matrix.reshape(*matrix.shape[:2], -1, *((side, side) if i == 1 else (1, 1)))
            shares_input = i == 1 and not config.convs
            self._layer(f"dense{i}", kernel, weights[f"dense{i}.bias"], 1 if shares_input else size)
            if i < n_dense:
                self._node("Relu")

    def nodes_if_more_than(self, start: int) -> list[onnx.NodeProto]:
        """The nodes wrapped in a condition: nothing is computed for up to `start` draws."""
        then = helper.make_graph(
            self.nodes,
            f"{self._prefix}.then",
            [],
            [helper.make_tensor_value_info(self.output, TensorProto.FLOAT, None)],
            self.constants,
        )
        nothing = f"{self._prefix}.nothing"
        empty = numpy_helper.from_array(np.zeros((0, 0, 1, 1), np.float32))
        otherwise = helper.make_graph(
            [helper.make_node("Constant", [], [nothing], value=empty)],
            f"{self._prefix}.else",
            [],
            [helper.make_tensor_value_info(nothing, TensorProto.FLOAT, None)],
        )
        first, needed = f"{self._prefix}.first", f"{self._prefix}.needed"
        self.output = f"{self._prefix}.output"
        return [
            helper.make_node(
                "Constant", [], [first], value=numpy_helper.from_array(np.array(start))
            ),
            helper.make_node("Greater", ["n_draws", first], [needed]),
            helper.make_node(
                "If", [needed], [self.output], then_branch=then, else_branch=otherwise
            ),
        ]

    def _layer(self, name: str, kernel: Floats, bias: Floats, groups: int) -> None:
        """A convolution of all draws: kernels (S, out, in, k, k) as (S · out, in, k, k)."""
        stacked = self._constant(f"{name}.weight", kernel.reshape(-1, *kernel.shape[2:]))
        self._node("Conv", stacked, self._constant(f"{name}.bias", bias.reshape(-1)), group=groups)

    def _constant(self, name: str, values: Floats) -> str:
        name = f"{self._prefix}.{name}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def _node(self, operator: str, *constants: str, **attributes: Any) -> None:
        """Apply an operator to the current output."""
        result = f"{self._prefix}.{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, [self.output, *constants], [result], **attributes)
        )
        self.output = result

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

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.architecture import ModelConfig
from model.engines.onnx_runtime import onnxruntime
from model.posterior import Arrays, Networks
from model.system.cpu import granted_cpus

__all__ = ["OnnxEngine", "block_sizes", "ensemble_graph"]

Floats: TypeAlias = NDArray[np.float32]

_OPSET, _IR_VERSION = 21, 10
_FIRST_BLOCK, _LARGEST_BLOCK = 10, 12
_WASTE = 0.12  # share of the draws that may be computed and not used
_CHUNK = 8  # pictures at once: more no longer fit the cache between two layers


class OnnxEngine:
    """The draws of a posterior, stacked; see the module.

    A call that finds cores free has them compute some of the blocks, which makes a lone picture
    faster and changes no bit of its answer. Calls that come together run side by side.

    Args:
        networks: The posterior, or other networks of one shape.
        n_draws: Number of draws S, made once here.
        threads: CPU threads that all calls together keep busy, if there are no more calls than
            that; as many as cores are granted if None.
    """

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, networks: Networks, *, n_draws: int, threads: int | None = None) -> None:
        """Draw the posterior and prepare the network; see the class."""
        self.n_draws = n_draws
        self.n_classes = networks.config.n_classes
        self._n_outputs = networks.config.n_outputs
        sizes = block_sizes(n_draws)
        self._ends = np.cumsum(sizes)
        self._threads = threads or granted_cpus()
        self._busy = 0
        self._lock = threading.Lock()
        self._helpers = ThreadPoolExecutor(self._threads, thread_name_prefix="ensemble")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # The graph itself is gone before the session copies what it was written to.
        serialized = ensemble_graph(networks, sizes).SerializeToString()
        self._session = onnxruntime.InferenceSession(
            serialized, options, providers=["CPUExecutionProvider"]
        )

    def logits(self, images: NDArray[np.uint8], n_draws: int) -> NDArray[np.float32]:
        """See `Engine.logits`."""
        result = np.empty((n_draws, len(images), self._n_outputs), np.float32)
        with self._free_threads(n_draws) as n_threads:
            first, *others = self._ranges(n_draws, n_threads)
            helping = [self._helpers.submit(self._fill, result, images, *other) for other in others]
            self._fill(result, images, *first)
            for helper in helping:
                helper.result()
        return result

    def _fill(
        self, result: NDArray[np.float32], images: NDArray[np.uint8], first: int, last: int
    ) -> None:
        """Compute the draws from `first` up to `last`, both the ends of blocks or of the result."""
        bounds = {"first": np.array(first), "last": np.array(last)}
        for start in range(0, len(images), _CHUNK):
            chunk = images[start : start + _CHUNK]
            x = chunk[:, None].astype(np.float32) / 255
            blocks = self._session.run(None, {"images": x, **bounds})
            computed = [block for block in blocks if block.size]
            stacked = np.concatenate(computed, axis=1).reshape(len(chunk), -1, self._n_outputs)
            result[first:last, start : start + _CHUNK] = stacked[:, : last - first].swapaxes(0, 1)

    @contextmanager
    def _free_threads(self, n_draws: int) -> Iterator[int]:
        """Take the threads that no other call keeps busy, at least the caller's own."""
        with self._lock:
            # A thread that has only a few draws to compute costs more than it helps.
            taken = max(1, min(self._threads - self._busy, n_draws // _FIRST_BLOCK))
            self._busy += taken
        try:
            yield taken
        finally:
            with self._lock:
                self._busy -= taken

    def _ranges(self, n_draws: int, n_threads: int) -> list[tuple[int, int]]:
        """Whole blocks for each thread, of about the same number of draws: [first, last)."""
        ends = [*self._ends[self._ends < n_draws], n_draws]
        goals = (n_draws * (i + 1) / n_threads for i in range(n_threads))
        cuts = sorted({0, *(min(ends, key=lambda end: abs(end - goal)) for goal in goals)})
        return [(int(first), int(last)) for first, last in pairwise(cuts)]


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


def ensemble_graph(networks: Networks, sizes: Sequence[int]) -> onnx.ModelProto:
    """The ONNX model: images (B, 1, H, W) to logits, one output a block.

    The scalar inputs `first` and `last` say which draws are wanted; the output of a block that
    holds none of them is empty.
    """
    config = networks.config
    side = config.image_size
    stacked = networks.stack(sum(sizes))
    nodes, outputs = [], []
    start = 0
    for index, size in enumerate(sizes):
        block = _Block(config, index)
        block.fill({name: values[start : start + size] for name, values in stacked.items()}, size)
        nodes += block.nodes_if_wanted(start, start + size)
        outputs.append(block.output)
        start += size
    return helper.make_model(
        helper.make_graph(
            nodes,
            "ensemble",
            [
                helper.make_tensor_value_info("images", TensorProto.FLOAT, ["B", 1, side, side]),
                helper.make_tensor_value_info("first", TensorProto.INT64, []),
                helper.make_tensor_value_info("last", TensorProto.INT64, []),
            ],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
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
            self._layer(
                f"conv{i}",
                kernel,
                weights[f"conv{i}.bias"],
                1 if i == 1 else size,
                pads=[conv.padding] * 4,
            )
            self._node("Relu")
            if conv.pool:
                self._node("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        if config.global_mean:
            self._node("GlobalAveragePool")
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

    def nodes_if_wanted(self, start: int, end: int) -> list[onnx.NodeProto]:
        """The nodes wrapped in a condition: computed if any draw of [start, end) is wanted."""
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
        self.output = f"{self._prefix}.output"
        names = {
            name: f"{self._prefix}.{name}" for name in ("start", "end", "begun", "left", "wanted")
        }
        return [
            *(
                helper.make_node(
                    "Constant", [], [names[name]], value=numpy_helper.from_array(np.array(value))
                )
                for name, value in (("start", start), ("end", end))
            ),
            helper.make_node("Greater", ["last", names["start"]], [names["begun"]]),
            helper.make_node("Less", ["first", names["end"]], [names["left"]]),
            helper.make_node("And", [names["begun"], names["left"]], [names["wanted"]]),
            helper.make_node(
                "If", [names["wanted"]], [self.output], then_branch=then, else_branch=otherwise
            ),
        ]

    def _layer(
        self, name: str, kernel: Floats, bias: Floats, groups: int, **attributes: Any
    ) -> None:
        """A convolution of all draws: kernels (S, out, in, k, k) as (S · out, in, k, k)."""
        stacked = self._constant(f"{name}.weight", kernel.reshape(-1, *kernel.shape[2:]))
        added = self._constant(f"{name}.bias", bias.reshape(-1))
        self._node("Conv", stacked, added, group=groups, **attributes)

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

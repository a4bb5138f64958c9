r"""The CPU engine: all posterior draws as one network in ONNX Runtime.

S networks with the same input are one wide network. In the first convolution, the S sets of filters
are more output channels. In every later layer, the draws are the *groups* of a grouped convolution.
A fully connected layer is a convolution whose kernel covers its whole input.

.. math:: y_{s} = W_{s} * x \quad (s = 1 \dots S) \;\Longleftrightarrow\;
          [y_1; \dots; y_S] = [W_1; \dots; W_S] * x

The draws are computed in blocks; unneeded blocks are skipped, so N draws cost about N/S of all.
Every image and draw has a fixed order of operations: its logits are bit-identical alone, in any
batch, and on any number of threads.
"""

import os
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
from model.posterior import Arrays, Ensemble
from model.system import granted_cpus

# Linux builds from 1.29 on report every session to their makers unless this is set before the
# import; `disable_telemetry_events` comes too late.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

_Float32s: TypeAlias = NDArray[np.float32]

_OPSET, _IR_VERSION = 21, 10
_FIRST_BLOCK, _LARGEST_BLOCK = 10, 12
_WASTE = 0.12  # share of draws that may be computed and not used
_CHUNK = 8  # images at once: feature maps of more do not fit the cache


class OnnxEngine:
    """The draws of a posterior as one network.

    Concurrent calls run in parallel. If threads are idle, a call spreads its blocks over them: the
    latency of a single image falls, and its logits stay bit-identical.

    Args:
        networks: The posterior, or another ensemble.
        n_draws: Number of draws S, made once here.
        threads: CPU threads that concurrent calls share; all granted CPUs if None.
    """

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, networks: Ensemble, *, n_draws: int, threads: int | None = None) -> None:
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
        # The graph is freed before the session copies its serialized form.
        serialized = ensemble_graph(networks, sizes).SerializeToString()
        self._session = onnxruntime.InferenceSession(
            serialized, options, providers=["CPUExecutionProvider"]
        )

    def logits(self, images: NDArray[np.uint8], n_draws: int) -> NDArray[np.float32]:
        """See `Engine.logits`."""
        result = np.empty((n_draws, len(images), self._n_outputs), np.float32)
        with self._idle_threads(n_draws) as n_threads:
            first, *others = self._ranges(n_draws, n_threads)
            futures = [self._helpers.submit(self._fill, result, images, *other) for other in others]
            self._fill(result, images, *first)
            for future in futures:
                future.result()
        return result

    def _fill(
        self, result: NDArray[np.float32], images: NDArray[np.uint8], first: int, last: int
    ) -> None:
        """Compute the draws in [first, last), whose ends are ends of blocks or of the result."""
        bounds = {"first": np.array(first), "last": np.array(last)}
        for start in range(0, len(images), _CHUNK):
            chunk = images[start : start + _CHUNK]
            x = chunk[:, None].astype(np.float32) / 255
            blocks = self._session.run(None, {"images": x, **bounds})
            computed = [block for block in blocks if block.size]
            stacked = np.concatenate(computed, axis=1).reshape(len(chunk), -1, self._n_outputs)
            result[first:last, start : start + _CHUNK] = stacked[:, : last - first].swapaxes(0, 1)

    @contextmanager
    def _idle_threads(self, n_draws: int) -> Iterator[int]:
        """Reserve the idle threads, at least the caller's own; yields their number."""
        with self._lock:
            # A thread for only a few draws costs more than it saves.
            taken = max(1, min(self._threads - self._busy, n_draws // _FIRST_BLOCK))
            self._busy += taken
        try:
            yield taken
        finally:
            with self._lock:
                self._busy -= taken

    def _ranges(self, n_draws: int, n_threads: int) -> list[tuple[int, int]]:
        """Ranges [first, last) of whole blocks, one a thread, with about equal numbers of draws."""
        ends = [*self._ends[self._ends < n_draws], n_draws]
        goals = (n_draws * (i + 1) / n_threads for i in range(n_threads))
        cuts = sorted({0, *(min(ends, key=lambda end: abs(end - goal)) for goal in goals)})
        return [(int(first), int(last)) for first, last in pairwise(cuts)]


def block_sizes(n_draws: int) -> list[int]:
    """Sizes of the blocks in which draws are computed.

    They grow in proportion to the draws before them, up to a maximum. For N of at least 10, the
    blocks that hold the first N draws hold at most 12 % and one draw more.
    """
    sizes: list[int] = []
    done = 0
    while done < n_draws:
        size = min(1 + int(_WASTE * done), _LARGEST_BLOCK) if sizes else _FIRST_BLOCK
        sizes.append(min(size, n_draws - done))
        done += sizes[-1]
    return sizes


def ensemble_graph(networks: Ensemble, sizes: Sequence[int]) -> onnx.ModelProto:
    """The ONNX model: images (B, 1, H, W) to logits, one output a block.

    The scalar inputs `first` and `last` select the draws [first, last). The output of a block
    without any of them is empty.
    """
    config = networks.config
    side = config.image_size
    stacked = networks.stack(sum(sizes))
    nodes, outputs = [], []
    start = 0
    for index, size in enumerate(sizes):
        block = _BlockGraph(config, index)
        block.add_layers({name: w[start : start + size] for name, w in stacked.items()}, size)
        nodes += block.conditional_nodes(start, start + size)
        outputs.append(block.output)
        start += size
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["B", 1, side, side]),
        helper.make_tensor_value_info("first", TensorProto.INT64, []),
        helper.make_tensor_value_info("last", TensorProto.INT64, []),
    ]
    graph = helper.make_graph(nodes, "ensemble", inputs, [_float_info(name) for name in outputs])
    opsets = [helper.make_opsetid("", _OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def _float_info(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


class _BlockGraph:
    """The ONNX nodes and constants of one block of draws."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.output = "images"
        self._config = config
        self._prefix = f"block{index}"

    def add_layers(self, weights: Arrays, size: int) -> None:
        """Add the layers of `size` draws with their stacked weights."""
        config = self._config
        for i, conv in enumerate(config.convs, 1):
            kernel = weights[f"conv{i}.weight"]
            groups = 1 if i == 1 else size
            bias = weights[f"conv{i}.bias"]
            self._layer(f"conv{i}", kernel, bias, groups, pads=[conv.padding] * 4)
            self._node("Relu")
            if conv.pool:
                self._node("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        if config.global_mean:
            self._node("GlobalAveragePool")
        _, side = config.last_map
        n_dense = len(config.hidden) + 1
        for i in range(1, n_dense + 1):
            # A fully connected layer is a convolution whose kernel covers its input.
            matrix = weights[f"dense{i}.weight"]
            kernel = matrix.reshape(*matrix.shape[:2], -1, *((side, side) if i == 1 else (1, 1)))
            shares_input = i == 1 and not config.convs
            self._layer(f"dense{i}", kernel, weights[f"dense{i}.bias"], 1 if shares_input else size)
            if i < n_dense:
                self._node("Relu")

    def conditional_nodes(self, start: int, end: int) -> list[onnx.NodeProto]:
        """The nodes in an `If`: computed if the block's draws [start, end) are selected."""
        p = self._prefix
        then = helper.make_graph(
            self.nodes, f"{p}.then", [], [_float_info(self.output)], self.constants
        )
        empty = numpy_helper.from_array(np.zeros((0, 0, 1, 1), np.float32))
        nothing = helper.make_node("Constant", [], [f"{p}.nothing"], value=empty)
        otherwise = helper.make_graph([nothing], f"{p}.else", [], [_float_info(f"{p}.nothing")])
        self.output = f"{p}.output"
        return [
            helper.make_node("Constant", [], [f"{p}.start"], value_int=start),
            helper.make_node("Constant", [], [f"{p}.end"], value_int=end),
            helper.make_node("Greater", ["last", f"{p}.start"], [f"{p}.after"]),
            helper.make_node("Less", ["first", f"{p}.end"], [f"{p}.before"]),
            helper.make_node("And", [f"{p}.after", f"{p}.before"], [f"{p}.selected"]),
            helper.make_node(
                "If", [f"{p}.selected"], [self.output], then_branch=then, else_branch=otherwise
            ),
        ]

    def _layer(
        self, name: str, kernel: _Float32s, bias: _Float32s, groups: int, **attributes: Any
    ) -> None:
        """A grouped convolution of all draws: kernels (S, out, in, k, k) as (S · out, in, k, k)."""
        stacked = self._constant(f"{name}.weight", kernel.reshape(-1, *kernel.shape[2:]))
        added = self._constant(f"{name}.bias", bias.reshape(-1))
        self._node("Conv", stacked, added, group=groups, **attributes)

    def _constant(self, name: str, values: _Float32s) -> str:
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

"""CPU runtimes compared: which one computes 100 stacked draws fastest.

The bundled network with 100 draws runs in ONNX Runtime, in OpenVINO (float32 and bfloat16) and as
grouped convolutions in PyTorch, with 1 and 2 threads and batches of 1 to 64 images. All take turns
in one run. OpenVINO needs the environment of `make peers`.
"""

import io
import sys
from collections.abc import Callable

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from benchmarks.common.images import random_images
from benchmarks.common.report import Row, format_table, has, make_parser, write_json
from benchmarks.common.timing import Contender, interleaved
from model import Posterior, load_checkpoint
from model.checkpoint import BUNDLED
from model.engines.cuda_engine import CudaEngine
from model.engines.onnx_engine import ensemble_graph, onnxruntime
from model.uncertainty import softmax

_N_DRAWS, _BLOCK = 100, 20
_BATCHES = (1, 4, 16, 64)
_THREADS = (1, 2)
_ROUNDS, _QUICK_ROUNDS = 7, 1

Floats = NDArray[np.float32]
Answer = Callable[[Floats], Floats]  # images (B, 1, 28, 28) to logits (S, B, C)


def main() -> int:
    """Run the command; returns its exit code."""
    options = make_parser("inference.runtimes", __doc__, quick="one round").parse_args()
    if not has("openvino"):
        print("skipped, not installed: OpenVINO (`make peers`)")
    posterior = load_checkpoint(BUNDLED).posterior
    rounds = _QUICK_ROUNDS if options.quick else _ROUNDS
    rows = [row for batch in _BATCHES for row in _compare(posterior, batch, rounds)]
    print(format_table(rows))
    write_json(options.json, {"quick": options.quick, "runtimes": rows})
    return 0


def _compare(posterior: Posterior, batch: int, rounds: int) -> list[Row]:
    x = random_images(batch)[:, None].astype(np.float32) / np.float32(255)
    answers = {
        (name, threads): answer
        for threads in _THREADS
        for name, answer in _runtimes(posterior, threads, x.shape).items()
    }
    exact = softmax(answers["ONNX Runtime, float32", 1](x))
    contenders = [
        Contender(name, lambda _, answer=answer: answer(x), threads, _N_DRAWS)
        for (name, threads), answer in answers.items()
    ]
    seconds = interleaved(contenders, rounds=rounds, title=f"batch of {batch}")
    return [
        {
            "runtime": name,
            "threads": threads,
            "batch": batch,
            "ms per image": 1000 * s / batch,
            "GFLOP/s": posterior.config.mflop_per_draw * _N_DRAWS * batch / s / 1e3,
            "largest difference": float(np.abs(softmax(answers[name, threads](x)) - exact).max()),
        }
        for (name, threads), s in zip(answers, seconds, strict=True)
    ]


def _runtimes(posterior: Posterior, threads: int, shape: tuple[int, ...]) -> dict[str, Answer]:
    graph = _unconditional(ensemble_graph(posterior, [_BLOCK] * (_N_DRAWS // _BLOCK)))
    found: dict[str, Answer] = {
        "ONNX Runtime, float32": _by_onnxruntime(graph, threads),
        "PyTorch, grouped, float32": _by_torch(posterior, threads),
    }
    if has("openvino"):
        for name, precision in (("float32", "f32"), ("bfloat16", "bf16")):
            found[f"OpenVINO, {name}"] = _by_openvino(graph, threads, precision, shape)
    return found


def _unconditional(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the conditions from the graph; OpenVINO handles them badly."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    del plain.graph.node[:], plain.graph.output[:], plain.graph.input[1:]
    for node in model.graph.node:
        if node.op_type == "If":
            branch = next(a.g for a in node.attribute if a.name == "then_branch")
            plain.graph.node.extend(branch.node)
            plain.graph.initializer.extend(branch.initializer)
            plain.graph.output.extend(branch.output)
    return plain


def _by_onnxruntime(graph: onnx.ModelProto, threads: int) -> Answer:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda x: _stacked(session.run(None, {"images": x}))


def _by_openvino(
    graph: onnx.ModelProto, threads: int, precision: str, shape: tuple[int, ...]
) -> Answer:
    import openvino  # noqa: PLC0415 - only in .venv-peers

    core = openvino.Core()
    model = core.read_model(io.BytesIO(graph.SerializeToString()))
    model.reshape(list(shape))  # OpenVINO is fastest with a fixed shape
    settings = {
        "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }  # fmt: skip
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def answer(x: Floats) -> Floats:
        request.infer([x], share_inputs=True)
        return _stacked([tensor.data for tensor in request.output_tensors])

    return answer


def _by_torch(posterior: Posterior, threads: int) -> Answer:
    engine = CudaEngine(posterior, n_draws=_N_DRAWS, device="cpu")

    def answer(x: Floats) -> Floats:
        torch.set_num_threads(threads)
        return engine.logits(np.rint(x[:, 0] * 255).astype(np.uint8), _N_DRAWS)

    return answer


def _stacked(blocks: list[Floats]) -> Floats:
    stacked = np.concatenate(blocks, axis=1).reshape(len(blocks[0]), _N_DRAWS, -1)
    return stacked.swapaxes(0, 1)


if __name__ == "__main__":
    sys.exit(main())

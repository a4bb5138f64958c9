"""The engines agree with the reference, and no image's logits depend on another image."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model import Conv, ModelConfig, Posterior, load, load_checkpoint, open_bytes
from model.checkpoint import BUNDLED
from model.engines import Engine, has_cuda_device, make_engine
from model.engines.cuda_engine import CudaEngine
from model.engines.onnx_engine import OnnxEngine, block_sizes
from model.engines.reference_engine import ReferenceEngine
from model.uncertainty import softmax
from tests.support.checkpoints import TINY, tiny_posterior
from tests.support.paths import ROOT

SHAPES = {
    "tiny": TINY,
    "no convolution": ModelConfig(convs=(), hidden=(20, 12)),
    "no hidden layer": ModelConfig(convs=(Conv(3, 5, pool=True),), hidden=()),
    "odd sides": ModelConfig(convs=(Conv(5, 4, pool=True), Conv(7, 3, pool=True)), hidden=(9,)),
    "what is no digit": ModelConfig(convs=(Conv(3, 5, pool=True),), hidden=(6,), not_a_digit=True),
    "padded": ModelConfig(
        convs=(Conv(3, 5, pool=True, padding=2), Conv(4, 3, padding=1), Conv(5, 2, padding=1)),
        hidden=(7,),
    ),
    "global mean": ModelConfig(
        convs=(Conv(3, 5, pool=True), Conv(6, 3, padding=1)), global_mean=True, not_a_digit=True
    ),
    "mean of the image": ModelConfig(convs=(), hidden=(5,), global_mean=True),
    "two classes": ModelConfig(convs=(Conv(4, 3), Conv(4, 3)), hidden=(8,), labels=("a", "b")),
}


def inputs(n: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="module")
def bundled() -> Posterior:
    return load_checkpoint(BUNDLED).posterior


@pytest.fixture(scope="module")
def ensemble(bundled: Posterior) -> OnnxEngine:
    return OnnxEngine(bundled, n_draws=100, threads=1)


# One meaning


@pytest.mark.parametrize("config", [TINY, *SHAPES.values()])
def test_the_reference_runs_the_very_networks_that_numpy_drew(config: ModelConfig) -> None:
    posterior, images = tiny_posterior(config), inputs(2)
    logits = ReferenceEngine(posterior, n_draws=4).logits(images, 4)
    assert logits.shape == (4, 2, config.n_outputs)
    expected = np.stack([network_in_numpy(config, posterior.draw(s), images) for s in range(4)])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def network_in_numpy(
    config: ModelConfig, weights: dict[str, np.ndarray], images: np.ndarray
) -> np.ndarray:
    """A network by the definition of its operations."""
    x = images[:, None].astype(np.float64) / 255
    for i, conv in enumerate(config.convs, 1):
        kernel, bias = weights[f"conv{i}.weight"], weights[f"conv{i}.bias"]
        size = kernel.shape[-1]
        x = np.pad(x, ((0, 0), (0, 0), *[(conv.padding, conv.padding)] * 2))
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))
        x = np.einsum("bihwkl,oikl->bohw", windows, kernel) + bias[:, None, None]
        x = np.maximum(x, 0)
        if conv.pool:
            even = x.shape[-1] // 2 * 2
            x = x[:, :, :even, :even]
            x = x.reshape(*x.shape[:2], even // 2, 2, even // 2, 2).max(axis=(3, 5))
    if config.global_mean:
        x = x.mean(axis=(2, 3))
    x = x.reshape(len(x), -1)
    for i in range(1, len(config.hidden) + 2):
        x = x if i == 1 else np.maximum(x, 0)
        x = x @ weights[f"dense{i}.weight"].T + weights[f"dense{i}.bias"]
    return np.asarray(x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_draws", [1, 17])
def test_every_engine_agrees_with_the_reference(shape: str, n_draws: int) -> None:
    posterior, images = tiny_posterior(SHAPES[shape]), inputs(3)
    reference = ReferenceEngine(posterior, n_draws=n_draws).logits(images, n_draws)
    engines: list[Engine] = [
        OnnxEngine(posterior, n_draws=n_draws, threads=1),
        OnnxEngine(posterior, n_draws=n_draws, threads=2),
        CudaEngine(posterior, n_draws=n_draws, device="cpu"),  # its code, without its device
    ]
    for engine in engines:
        found = engine.logits(images, n_draws)
        assert found.dtype == np.float32
        np.testing.assert_allclose(softmax(found), softmax(reference), rtol=0, atol=1e-5)
        assert engine.logits(images[:0], n_draws).shape == (n_draws, 0, reference.shape[2])


def test_the_bundled_model_agrees_with_the_reference_to_1e_5(
    bundled: Posterior, ensemble: OnnxEngine
) -> None:
    names = ("seven", "four-or-nine", "letter", "blank")
    files = [(ROOT / "docs" / "examples" / f"{n}.png").read_bytes() for n in names]
    images = np.concatenate([[open_bytes(file).pixels for file in files], inputs(8)])
    reference = softmax(ReferenceEngine(bundled, n_draws=100).logits(images, 100))
    for engine in (ensemble, CudaEngine(bundled, n_draws=100, device="cpu")):
        found = softmax(engine.logits(images, 100))
        np.testing.assert_allclose(found, reference, rtol=0, atol=1e-5)


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    on_cpu, on_cuda = (load(device=d) for d in ("cpu", "cuda"))
    assert on_cuda.engine.device == "cuda"
    images = inputs(70)  # more than one chunk
    for n_draws in (100, 37):
        mine, other = (c.probabilities(images, n_draws) for c in (on_cuda, on_cpu))
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-5)


# No answer depends on another


def test_an_image_has_the_same_bits_alone_and_in_any_company(ensemble: OnnxEngine) -> None:
    images = inputs(19)  # more than two chunks
    together = ensemble.logits(images, 100)
    for i in range(len(images)):
        assert np.array_equal(together[:, i], ensemble.logits(images[i : i + 1], 100)[:, 0])


@pytest.mark.parametrize("n_draws", [1, 2, 9, 10, 11, 40, 41, 57, 92, 99, 100])
def test_fewer_draws_are_a_prefix_to_the_last_bit(ensemble: OnnxEngine, n_draws: int) -> None:
    images = inputs(3)
    assert np.array_equal(ensemble.logits(images, n_draws), ensemble.logits(images, 100)[:n_draws])


def test_more_draws_held_change_no_draw(bundled: Posterior, ensemble: OnnxEngine) -> None:
    more = OnnxEngine(bundled, n_draws=130, threads=1)
    assert np.array_equal(more.logits(inputs(2), 100), ensemble.logits(inputs(2), 100))


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_cores_that_help_change_no_bit(
    bundled: Posterior, ensemble: OnnxEngine, threads: int
) -> None:
    helped = OnnxEngine(bundled, n_draws=100, threads=threads)
    for n_draws in (1, 19, 20, 41, 100):
        assert np.array_equal(
            helped.logits(inputs(9), n_draws), ensemble.logits(inputs(9), n_draws)
        )


def test_concurrent_calls_answer_as_serial_ones(ensemble: OnnxEngine) -> None:
    asked = [(inputs(1 + i % 9, seed=i), 10 + 7 * (i % 13)) for i in range(30)]
    serial = [ensemble.logits(*arguments) for arguments in asked]
    with ThreadPoolExecutor(4) as threads:
        concurrent = list(threads.map(lambda arguments: ensemble.logits(*arguments), asked))
    for one, other in zip(serial, concurrent, strict=True):
        assert np.array_equal(one, other)


# Blocks


@pytest.mark.parametrize("n_draws", [1, 9, 10, 11, 40, 100, 1000])
def test_the_first_draws_cost_little_more_than_their_share(n_draws: int) -> None:
    sizes = block_sizes(n_draws)
    assert sum(sizes) == n_draws
    assert min(sizes) >= 1
    ends = np.cumsum(sizes)
    for n in range(10, n_draws + 1):
        computed = ends[np.searchsorted(ends, n)]
        assert computed <= n + 0.12 * n + 1


def test_blocks_of_a_smaller_model_are_those_of_a_larger_one() -> None:
    for few, many in pairwise((11, 40, 100, 130)):
        assert block_sizes(few)[:-1] == block_sizes(many)[: len(block_sizes(few)) - 1]


# Which engine


def test_a_cpu_takes_the_ensemble_engine() -> None:
    engine = make_engine(tiny_posterior(), n_draws=2, device="cpu")
    assert (engine.name, engine.device, engine.n_draws) == ("onnxruntime", "cpu", 2)


def test_asking_for_cuda_without_one_is_rejected() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(RuntimeError, match=r"'cuda' was asked for.*CUDA.*'auto' or 'cpu'"):
        make_engine(tiny_posterior(), n_draws=2, device="cuda")


def test_a_driver_without_a_torch_that_can_use_it_leaves_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert has_cuda_device() is False
    monkeypatch.setattr("model.engines.engine.has_cuda_device", lambda: True)
    assert make_engine(tiny_posterior(), n_draws=2, device="auto").device == "cpu"


def test_a_gpu_without_pytorch_leaves_the_cpu_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("model.engines.engine.has_cuda_device", lambda: True)
    monkeypatch.delitem(sys.modules, "model.engines.cuda_engine")
    monkeypatch.setitem(sys.modules, "torch", None)  # its import fails
    assert make_engine(tiny_posterior(), n_draws=2, device="auto").device == "cpu"
    (line,) = caplog.messages
    assert "pip install 'maybe-neural-network[cuda]'" in line
    with pytest.raises(RuntimeError, match=r"'cuda' was asked for.*pip install"):
        make_engine(tiny_posterior(), n_draws=2, device="cuda")


# What a process loads, in one process for the tests below

LIGHT = f"""
import json, sys
import model
found = {{"imported": "torch" in sys.modules}}
found["cuda"] = model.engines.has_cuda_device()
found["looked up"] = "torch" in sys.modules
sys.modules["torch"] = None  # its import fails from here on
classifier = model.load()
found["engine"] = classifier.engine.name
found["prediction"] = classifier.predict({str(ROOT / "docs/examples/seven.png")!r}).prediction
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a process found that answers without PyTorch, and the files it left."""
    folder = tmp_path_factory.mktemp("light")
    # In CI telemetry would be off anyway.
    inherited = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith("ORT_")}
    done = subprocess.run(
        [sys.executable, "-c", LIGHT],
        cwd=ROOT,
        env={**inherited, "TMPDIR": str(folder)},
        check=True,
        capture_output=True,
        text=True,
    )
    return {**json.loads(done.stdout), "files": [path.name for path in folder.iterdir()]}


def test_importing_the_package_does_not_import_torch(light: dict[str, object]) -> None:
    assert light["imported"] is False


def test_looking_for_cuda_does_not_import_torch(light: dict[str, object]) -> None:
    assert light["cuda"] is torch.cuda.is_available()
    assert light["looked up"] is False


def test_predicting_on_a_cpu_needs_no_torch(light: dict[str, object]) -> None:
    assert (light["engine"], light["prediction"]) == ("onnxruntime", "7")


def test_onnx_runtime_starts_no_telemetry(light: dict[str, object]) -> None:
    # With telemetry, it keeps the number of its session in the temporary folder.
    assert light["files"] == []

"""Speed of engines and libraries, in milliseconds and relative to a matrix product.

All take turns in one run; the table shows medians. PyTorch contenders use 1 or 2 threads,
whichever is faster. Libraries run one draw per pass in PyTorch's inference mode. (Flipout could
take one pass over 100 copies of an image, but the copies share one draw of the magnitudes, so they
are not 100 draws.) The matrix product multiplies two 2048 × 2048 float32 matrices in PyTorch.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.common.images import random_images
from benchmarks.common.networks import LIBRARIES, posterior_mean_network
from benchmarks.common.report import Row, has
from benchmarks.common.timing import Contender, interleaved
from model.engines.onnx_engine import OnnxEngine
from model.engines.reference_engine import ReferenceEngine
from model.posterior import Posterior
from model.system import granted_cpus

N_DRAWS = 100
_FEWER = (10, 20, 25, 41, 50, 75)
_SIDE = 2048
_CALLS_PER_WORKER = 4
_PRODUCT = "matrix product"
_DETERMINISTIC = "deterministic network, 1 pass"

Images = NDArray[np.uint8]


def compare(posterior: Posterior, batch: int, *, rounds: int, title: str) -> list[Row]:
    """Compare all contenders for one batch size; returns one row each.

    In the rows, `ms` is per request of one batch, `of product` the share of the matrix product's
    rate, `× library` the speed-up over the fastest library, and `passes` the time in passes of the
    deterministic network.
    """
    images = random_images(batch)
    contenders = _products() + _onnx_engines(posterior, images)
    contenders += _torch_contenders(posterior, images)
    seconds = interleaved(contenders, rounds=rounds, title=title)
    timed = list(zip(contenders, seconds, strict=True))
    rate = {c.threads: 2 * _SIDE**3 / 1e9 / s for c, s in timed if c.name == _PRODUCT}
    best: dict[str, tuple[Contender, float]] = {}
    for contender, s in timed:
        if contender.name != _PRODUCT and s < best.get(contender.name, (contender, np.inf))[1]:
            best[contender.name] = contender, s
    library = min((s for c, s in best.values() if c.name in LIBRARIES), default=None)
    one_pass = best[_DETERMINISTIC][1]

    def row(contender: Contender, s: float) -> dict[str, Any]:
        gflops = posterior.config.mflop_per_draw * contender.n_draws * batch / s / 1e3
        samples = contender.n_draws > 1
        return {
            "contender": contender.name,
            "threads": contender.threads,
            "ms": s * 1e3,
            "images/s": batch / s,
            "GFLOP/s": gflops,
            "of product": gflops / rate[contender.threads],
            "× library": library / s if library and samples else "",
            "passes": s / one_pass,
        }

    products: list[Row] = [
        {**dict.fromkeys(row(*best[_DETERMINISTIC]), ""), "contender": _PRODUCT}
        | {"threads": threads, "GFLOP/s": value, "of product": 1.0}
        for threads, value in rate.items()
    ]
    return [*(row(*pair) for pair in best.values()), *products]


def fewer_draws(posterior: Posterior, *, rounds: int, title: str) -> list[Row]:
    """Measure the cost of the first N of 100 draws for one image, as a share of all."""
    images = random_images(1)
    contenders = []
    for threads in _thread_counts():
        engine = OnnxEngine(posterior, n_draws=N_DRAWS, threads=threads)
        call = partial(engine.logits, images)
        contenders += [Contender(f"{n} draws", call, threads, n) for n in (*_FEWER, N_DRAWS)]
    seconds = interleaved(contenders, rounds=rounds, title=title)
    taken = {(c.n_draws, c.threads): s for c, s in zip(contenders, seconds, strict=True)}
    return [
        {"draws": n, "share of draws": n / N_DRAWS}
        | {f"ms, threads={t}": taken[n, t] * 1e3 for t in _thread_counts()}
        | {f"share, threads={t}": taken[n, t] / taken[N_DRAWS, t] for t in _thread_counts()}
        for n in (*_FEWER, N_DRAWS)
    ]


def _thread_counts() -> tuple[int, ...]:
    return (1, 2) if granted_cpus() > 1 else (1,)


def _products() -> list[Contender]:
    """The matrix product with each thread count."""
    a, b, out = (torch.rand(_SIDE, _SIDE) for _ in range(3))
    call = partial(torch.matmul, a, b, out=out)
    return [Contender(_PRODUCT, lambda _: call(), threads) for threads in _thread_counts()]


def _onnx_engines(posterior: Posterior, images: Images) -> list[Contender]:
    found = []
    for threads in _thread_counts():
        engine = OnnxEngine(posterior, n_draws=N_DRAWS, threads=threads)
        name = f"ONNX engine, {threads} thread{'s' * (threads > 1)}"
        found.append(Contender(name, partial(engine.logits, images), threads, N_DRAWS))
        if threads == 1 and len(_thread_counts()) > 1:
            name, call = "ONNX engine, 2 worker threads", _two_workers(engine, images)
            found.append(Contender(name, call, 2, N_DRAWS, requests=2 * _CALLS_PER_WORKER))
    return found


def _two_workers(engine: OnnxEngine, images: Images) -> Callable[[int], None]:
    """Answer a few requests on each of two threads, like the service's worker threads."""
    pool = ThreadPoolExecutor(2)

    def work(n_draws: int) -> None:
        for _ in range(_CALLS_PER_WORKER):
            engine.logits(images, n_draws)

    def call(n_draws: int) -> None:
        for done in [pool.submit(work, n_draws) for _ in range(2)]:
            done.result()

    return call


def _torch_contenders(posterior: Posterior, images: Images) -> list[Contender]:
    """The PyTorch contenders with each thread count; the faster one counts."""
    reference = ReferenceEngine(posterior, n_draws=N_DRAWS)
    x = torch.from_numpy(images)[:, None].float() / 255
    deterministic = posterior_mean_network(posterior)
    calls: dict[str, tuple[Callable[[int], object], int]] = {
        "reference engine (PyTorch loop)": (partial(reference.logits, images), N_DRAWS),
        _DETERMINISTIC: (partial(_loop, deterministic, x), 1),
    }
    for name, (module, build) in LIBRARIES.items():
        if has(module):
            calls[name] = partial(_loop, build(posterior.config).eval(), x), N_DRAWS
    return [
        Contender(name, call, threads, n_draws)
        for name, (call, n_draws) in calls.items()
        for threads in _thread_counts()
    ]


@torch.inference_mode()
def _loop(network: nn.Module, x: torch.Tensor, n_draws: int) -> torch.Tensor:
    """Return the logits of S passes (S, B, C); a library draws new weights in each."""
    return torch.stack([network(x) for _ in range(n_draws)])

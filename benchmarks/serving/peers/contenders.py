"""Compared servers and their configurations, of which the fastest is measured."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.report import has

_PEERS = "benchmarks.serving.peers"
_OWN_PYTHON = Path(__file__).parents[3] / ".venv" / "bin" / "python"


@dataclass(frozen=True)
class Variant:
    """One configuration: its name in the table, and its environment variables."""

    label: str
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Contender:
    """A server."""

    key: str  # its name for `--only`
    name: str  # its name in the tables
    variants: Sequence[Variant]  # its configurations, the usual winner first
    arguments: Sequence[str]  # of the interpreter; `{port}` is replaced
    ready_path: str = "/health"  # answers 200 once the model is loaded
    needs: Sequence[str] = ()  # modules
    port_setting: str = "PEER_PORT"
    python: str = sys.executable

    def missing(self) -> list[str]:
        """Needed modules that are not installed."""
        return [name for name in self.needs if not has(name)]


def _variant(engine: str, *, workers: int, threads: int, batch: int = 1) -> Variant:
    label = f"{workers} process{'es' * (workers > 1)} × {threads} thread{'s' * (threads > 1)}"
    settings = {"ENGINE": engine, "WORKERS": workers, "THREADS": threads, "BATCH": batch}
    return Variant(
        label + (f", batches of {batch}" if batch > 1 else ""),
        {f"PEER_{name}": str(value) for name, value in settings.items()},
    )


def _variants(engine: str) -> list[Variant]:
    """Configurations for two CPUs that the documents of LitServe and BentoML suggest to try."""
    return [
        _variant(engine, workers=2, threads=1, batch=8),
        _variant(engine, workers=2, threads=1),
        _variant(engine, workers=1, threads=2, batch=8),
        _variant(engine, workers=1, threads=2),
        _variant(engine, workers=1, threads=1),
    ]


# One process, PyTorch's default number of threads on two CPUs, no batching.
_FIRST_VERSION = [_variant("loop", workers=1, threads=2)]
_FASTAPI_BEST = [_variant("loop", workers=n, threads=1) for n in (2, 1)]


def _fastapi(key: str, name: str, variants: Sequence[Variant]) -> Contender:
    return Contender(key, name, variants, ["-m", f"{_PEERS}.fastapi_loop"], needs=["torch"])


def _litserve(key: str, name: str, variants: Sequence[Variant], *needs: str) -> Contender:
    arguments = ["-m", f"{_PEERS}.litserve_app"]
    return Contender(key, name, variants, arguments, needs=["litserve", *needs])


def _bentoml(key: str, name: str, variants: Sequence[Variant], *needs: str) -> Contender:
    app = f"{_PEERS}.bentoml_app:Digits"
    arguments = ["-m", "bentoml", "serve", app, "--host", "127.0.0.1", "--port", "{port}"]
    return Contender(key, name, variants, arguments, "/readyz", ["bentoml", *needs])


OURS = Contender(
    "ours",
    "this service",
    [Variant("default", {"MNN_DEVICE": "cpu"})],
    ["-m", "service"],
    "/health/ready",
    port_setting="MNN_PORT",
    # Not the peers' environment: there, uvicorn finds a faster event loop and parser, which an
    # installation of this project does not have.
    python=str(_OWN_PYTHON) if _OWN_PYTHON.exists() else sys.executable,
)

CONTENDERS = (
    OURS,
    _fastapi("fastapi-plain", "FastAPI, torch loop, first version", _FIRST_VERSION),
    _fastapi("fastapi-loop", "FastAPI, torch loop, best", _FASTAPI_BEST),
    _litserve("litserve-plain", "LitServe, torch loop, first version", _FIRST_VERSION, "torch"),
    _litserve("litserve-loop", "LitServe, torch loop, best", _variants("loop"), "torch"),
    _bentoml("bentoml-loop", "BentoML, torch loop, best", _variants("loop"), "torch"),
    _litserve("litserve-engine", "LitServe, our engine, best", _variants("onnx")),
    _bentoml("bentoml-engine", "BentoML, our engine, best", _variants("onnx")),
)

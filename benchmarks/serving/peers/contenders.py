"""Who is measured, and in which configurations each may choose its best."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["CONTENDERS", "OURS", "Contender", "Variant"]

_ROOT = Path(__file__).parents[3]
_PEERS = "benchmarks.serving.peers"
_OWN_PYTHON = _ROOT / ".venv" / "bin" / "python"


@dataclass(frozen=True)
class Variant:
    """One configuration: what the table calls it, and its settings as environment variables."""

    label: str
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Contender:
    """A server that can be started.

    Attributes:
        key: What `--only` calls it.
        name: What the tables call it.
        arguments: What follows the interpreter; `{port}` is replaced.
        port_setting: The environment variable that holds the port.
        ready_path: Answers 200 once the model is loaded.
        needs: Modules without which it is left out.
        variants: Its configurations, the one that usually wins first.
        python: The interpreter.
    """

    key: str
    name: str
    arguments: Sequence[str]
    port_setting: str
    ready_path: str
    needs: Sequence[str]
    variants: Sequence[Variant]
    python: str = field(default=sys.executable)

    def missing(self) -> list[str]:
        """What it needs and this environment lacks."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def _variant(engine: str, *, workers: int, threads: int, batch: int = 1) -> Variant:
    label = f"{workers} process{'es' if workers > 1 else ''} × {threads} thread"
    label += "s" if threads > 1 else ""
    return Variant(
        label + (f", batches of {batch}" if batch > 1 else ""),
        {
            "PEER_ENGINE": engine,
            "PEER_WORKERS": str(workers),
            "PEER_THREADS": str(threads),
            "PEER_BATCH": str(batch),
        },
    )


def _variants(engine: str) -> list[Variant]:
    """What the documents of LitServe and BentoML leave to be tried out, for two cores."""
    return [
        _variant(engine, workers=2, threads=1, batch=8),
        _variant(engine, workers=2, threads=1),
        _variant(engine, workers=1, threads=2, batch=8),
        _variant(engine, workers=1, threads=2),
        _variant(engine, workers=1, threads=1),
    ]


# One process, PyTorch's own number of threads on two cores, nothing joined.
_AS_FIRST_WRITTEN = [_variant("loop", workers=1, threads=2)]


def _fastapi(key: str, name: str, variants: Sequence[Variant]) -> Contender:
    return Contender(
        key, name, ["-m", f"{_PEERS}.fastapi_loop"], "PEER_PORT", "/health", ["torch"], variants
    )


def _litserve(
    key: str, name: str, engine: str, *needs: str, variants: Sequence[Variant] = ()
) -> Contender:
    return Contender(
        key,
        name,
        ["-m", f"{_PEERS}.litserve_app"],
        "PEER_PORT",
        "/health",
        ["litserve", *needs],
        variants or _variants(engine),
    )


def _bentoml(key: str, name: str, engine: str, *needs: str) -> Contender:
    app = f"{_PEERS}.bentoml_app:Digits"
    return Contender(
        key,
        name,
        ["-m", "bentoml", "serve", app, "--host", "127.0.0.1", "--port", "{port}"],
        "PEER_PORT",
        "/readyz",
        ["bentoml", *needs],
        _variants(engine),
    )


OURS = Contender(
    "ours",
    "this service",
    ["-m", "service"],
    "MNN_PORT",
    "/health/ready",
    [],
    [Variant("as it comes", {"MNN_DEVICE": "cpu"})],
    # Not the peers' environment: their dependencies bring uvicorn a faster loop and parser, which
    # an installation of this project does not have.
    str(_OWN_PYTHON) if _OWN_PYTHON.exists() else sys.executable,
)

CONTENDERS = (
    OURS,
    _fastapi("fastapi-plain", "FastAPI, torch loop, as first written", _AS_FIRST_WRITTEN),
    _fastapi(
        "fastapi-loop",
        "FastAPI, torch loop, at its best",
        [_variant("loop", workers=2, threads=1), _variant("loop", workers=1, threads=1)],
    ),
    _litserve(
        "litserve-plain",
        "LitServe, torch loop, as first written",
        "loop",
        "torch",
        variants=_AS_FIRST_WRITTEN,
    ),
    _litserve("litserve-loop", "LitServe, torch loop, at its best", "loop", "torch"),
    _bentoml("bentoml-loop", "BentoML, torch loop, at its best", "loop", "torch"),
    _litserve("litserve-engine", "LitServe, our engine, at its best", "ensemble"),
    _bentoml("bentoml-engine", "BentoML, our engine, at its best", "ensemble"),
)

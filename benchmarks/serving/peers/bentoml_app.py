"""The same answers by BentoML; https://docs.bentoml.com recommends what is set here.

One worker process per core; adaptive batching is tried out by the benchmark.
"""

from pathlib import Path
from typing import Any

import bentoml

from benchmarks.serving.peers.common import BATCH, WORKERS, Reader

__all__ = ["Digits"]

_SETTINGS: dict[str, Any] = {
    "workers": WORKERS,
    "threads": 1,
    "traffic": {"timeout": 120},
    "logging": {"access": {"enabled": False}},
}

if BATCH == 1:

    @bentoml.service(**_SETTINGS)
    class Digits:
        """Takes the form's `file`, answers with the content of `POST /predict`."""

        def __init__(self) -> None:
            """Load the model, in each worker."""
            self._reader = Reader()

        @bentoml.api
        def predict(self, file: Path) -> dict[str, Any]:
            """The answer for one file."""
            return self._reader.answer(file.read_bytes())

else:

    @bentoml.service(**_SETTINGS)
    class Digits:
        """The same, with files of several requests computed together."""

        def __init__(self) -> None:
            """Load the model, in each worker."""
            self._reader = Reader()

        # A bound on latency that never refuses: what is measured is throughput without errors.
        @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=60_000)
        def predict(self, file: list[Path]) -> list[dict[str, Any]]:
            """The answers for the files of a batch."""
            return self._reader.answers([path.read_bytes() for path in file])

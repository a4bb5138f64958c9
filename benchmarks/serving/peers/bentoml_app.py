"""The same answers with BentoML, configured as https://docs.bentoml.com recommends.

One worker process per CPU. The benchmark tries out adaptive batching.
"""

from pathlib import Path
from typing import Any

import bentoml

from benchmarks.serving.peers.common import BATCH, WORKERS, Reader

_SETTINGS: dict[str, Any] = {
    "workers": WORKERS,
    "threads": 1,
    "traffic": {"timeout": 120},
    "logging": {"access": {"enabled": False}},
}

if BATCH == 1:

    @bentoml.service(**_SETTINGS)
    class Digits:
        """Takes the form field `file` and answers with the content of `POST /predict`."""

        def __init__(self) -> None:
            self._reader = Reader()

        @bentoml.api
        def predict(self, file: Path) -> dict[str, Any]:
            """Answer one file."""
            return self._reader.answer(file.read_bytes())

else:

    @bentoml.service(**_SETTINGS)
    class Digits:
        """The same with adaptive batching."""

        def __init__(self) -> None:
            self._reader = Reader()

        # The latency limit never rejects: the benchmark measures throughput without errors.
        @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=60_000)
        def predict(self, file: list[Path]) -> list[dict[str, Any]]:
            """Answer the files of a batch."""
            return self._reader.answers([path.read_bytes() for path in file])

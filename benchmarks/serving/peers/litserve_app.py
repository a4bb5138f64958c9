"""The same answers by LitServe; https://lightning.ai/docs/litserve recommends what is set here.

As many workers as cores, batching for throughput, and its fast queue for hundreds of requests a
second; which of them pay off is tried out by the benchmark.
"""

from typing import Any

import litserve
from starlette.requests import Request

from benchmarks.serving.peers.common import BATCH, PORT, WORKERS, Reader

__all__ = ["DigitAPI"]

_BATCH_TIMEOUT_S = 0.01  # at 0 its workers would spin while there is nothing to do


class DigitAPI(litserve.LitAPI):
    """Takes the form's `file`, answers with the content of `POST /predict`."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load the model, in each worker."""
        self._reader = Reader()

    def decode_request(self, request: Request) -> bytes:
        """The uploaded file's bytes: what is annotated as a request arrives as its form."""
        return request["file"].file.read()

    def predict(self, x: Any) -> Any:
        """The answer for one file, or the answers for a batch of files."""
        return self._reader.answer(x) if BATCH == 1 else self._reader.answers(x)


if __name__ == "__main__":
    litserve.LitServer(
        DigitAPI(max_batch_size=BATCH, batch_timeout=_BATCH_TIMEOUT_S),
        accelerator="cpu", workers_per_device=WORKERS, fast_queue=True, timeout=120,
    ).run(host="127.0.0.1", port=PORT, log_level="warning", generate_client_file=False)  # fmt: skip

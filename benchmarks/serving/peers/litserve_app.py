"""The same answers with LitServe, configured as https://lightning.ai/docs/litserve recommends.

One worker per CPU, batching for throughput, and the fast queue for hundreds of requests per second.
The benchmark tries out which of them pay off.
"""

from typing import Any

import litserve
from starlette.requests import Request

from benchmarks.serving.peers.common import BATCH, PORT, WORKERS, Reader

_BATCH_TIMEOUT_S = 0.01  # at 0 its workers would spin while idle


class DigitAPI(litserve.LitAPI):
    """Takes the form field `file` and answers with the content of `POST /predict`."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load the model in each worker."""
        self._reader = Reader()

    def decode_request(self, request: Request) -> bytes:
        """Read the uploaded file; LitServe passes the form to a parameter of type Request."""
        return request["file"].file.read()

    def predict(self, x: Any) -> Any:
        """Answer one file, or the files of a batch."""
        return self._reader.answer(x) if BATCH == 1 else self._reader.answers(x)


if __name__ == "__main__":
    litserve.LitServer(
        DigitAPI(max_batch_size=BATCH, batch_timeout=_BATCH_TIMEOUT_S),
        accelerator="cpu", workers_per_device=WORKERS, fast_queue=True, timeout=120,
    ).run(host="127.0.0.1", port=PORT, log_level="warning", generate_client_file=False)  # fmt: skip

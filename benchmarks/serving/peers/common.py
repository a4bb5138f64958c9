"""Options of the compared servers, and the answer that they all give."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from model import Classifier, load, load_checkpoint, open_bytes
from model.checkpoint import BUNDLED
from model.classifier import DEFAULT_DRAWS, DEFAULT_LEVEL
from service.api.schemas import predict_response
from service.model_lifecycle.loading import LoadedModel

# From the environment, because BentoML imports its service in other processes.
PORT = int(os.environ.get("PEER_PORT", "8000"))
ENGINE = os.environ.get("PEER_ENGINE", "loop")  # or `onnx`
WORKERS = int(os.environ.get("PEER_WORKERS", "1"))  # processes
THREADS = int(os.environ.get("PEER_THREADS", "1"))  # of the engine in each process
BATCH = int(os.environ.get("PEER_BATCH", "1"))  # largest batch that the framework forms


class Reader:
    """Answers image files with the content of `POST /predict`, with the engine of the options."""

    def __init__(self) -> None:
        loop = ENGINE == "loop"
        self._classifier = _torch_loop() if loop else load(device="cpu", threads=THREADS)
        self._classifier.probabilities(np.zeros((1, 28, 28), np.uint8))  # warm-up
        self._model = LoadedModel(self._classifier, "shipped")

    def answer(self, file: bytes) -> dict[str, Any]:
        """Answer one image file."""
        return self.answers([file])[0]

    def answers(self, files: Sequence[bytes]) -> list[dict[str, Any]]:
        """Answer several image files, computed as one batch."""
        images = [open_bytes(file) for file in files]
        levels = [DEFAULT_LEVEL] * len(images)
        predictions = self._classifier.predict_inputs(images, samples=DEFAULT_DRAWS, levels=levels)
        return [
            predict_response(each, self._model, preview=False, draws=False).model_dump()
            for each in predictions
        ]


def _torch_loop() -> Classifier:
    """The obvious implementation: run the network once per draw, in PyTorch."""
    import torch  # noqa: PLC0415 - slow to import, and the ONNX engine needs none

    from model.engines.reference_engine import ReferenceEngine  # noqa: PLC0415

    torch.set_num_threads(THREADS)
    checkpoint = load_checkpoint(BUNDLED)
    return Classifier(checkpoint, ReferenceEngine(checkpoint.posterior, n_draws=DEFAULT_DRAWS))

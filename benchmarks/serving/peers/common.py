"""What the peer servers share: their options, and the answer itself, made as the service's is."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from model import Classifier, load, load_checkpoint, open_bytes, summarise
from model.checkpoint import BUNDLED
from model.classifier import DEFAULT_DRAWS, DEFAULT_LEVEL
from model.preprocessing.normalize import SIDE

__all__ = ["BATCH", "ENGINE", "PORT", "THREADS", "WORKERS", "Reader"]

# By environment, because BentoML imports its service in processes of its own.
PORT = int(os.environ.get("PEER_PORT", "8000"))
ENGINE = os.environ.get("PEER_ENGINE", "loop")  # or `ensemble`
WORKERS = int(os.environ.get("PEER_WORKERS", "1"))  # processes that compute
THREADS = int(os.environ.get("PEER_THREADS", "1"))  # of the engine, in each of them
BATCH = int(os.environ.get("PEER_BATCH", "1"))  # most pictures that the framework joins


class Reader:
    """From files to answers with the content of `POST /predict`, by the engine of the options."""

    def __init__(self) -> None:
        """Load the shipped weights and draw them."""
        self._classifier = (
            _torch_loop() if ENGINE == "loop" else load(device="cpu", threads=THREADS)
        )
        self._classifier.probabilities(np.zeros((1, SIDE, SIDE), np.uint8))  # warm

    def answer(self, file: bytes) -> dict[str, Any]:
        """The answer for one picture file."""
        return self.answers([file])[0]

    def answers(self, files: Sequence[bytes]) -> list[dict[str, Any]]:
        """The answers for several picture files, computed together."""
        images = [open_bytes(file) for file in files]
        pixels = np.stack([image.pixels for image in images])
        summary = summarise(self._classifier.probabilities(pixels), DEFAULT_LEVEL)
        checkpoint = self._classifier.checkpoint
        accepted = checkpoint.selective.accepts(summary)
        members = checkpoint.conformal.prediction_sets(summary.probability)
        numbers = np.stack([summary.probability, summary.lower, summary.upper, summary.std], -1)
        answers = []
        for i, image in enumerate(images):
            reasons = [*image.reasons, *([] if accepted[i] else ["uncertain"])]
            top = int(summary.probability[i].argmax())
            labels = self._classifier.labels
            answers.append(
                {
                    "prediction": labels[top],
                    "probability": _rounded(summary.probability[i, top]),
                    "decision": "review" if reasons else "accept",
                    "reasons": reasons,
                    "calibrated": self._classifier.draws_reproduced,
                    "classes": [
                        {
                            "label": label,
                            "probability": probability,
                            "lower": lower,
                            "upper": upper,
                            "std": std,
                        }
                        for label, (probability, lower, upper, std) in zip(
                            labels, numbers[i].round(6).tolist(), strict=True
                        )
                    ],
                    "uncertainty": {
                        "predictive_entropy": _rounded(summary.predictive_entropy[i]),
                        "expected_entropy": _rounded(summary.expected_entropy[i]),
                        "mutual_information": _rounded(summary.mutual_information[i]),
                    },
                    "prediction_set": [
                        label for label, member in zip(labels, members[i], strict=True) if member
                    ],
                    "samples": DEFAULT_DRAWS,
                    "level": DEFAULT_LEVEL,
                    "model": {"name": checkpoint.name, "version": self._classifier.version},
                    "preview": None,
                    "draws": None,
                }
            )
        return answers


def _torch_loop() -> Classifier:
    """What one writes first: the network run once per draw, in PyTorch."""
    import torch  # noqa: PLC0415 - seconds and hundreds of megabytes that the ensemble does without

    from model.engines.reference_engine import ReferenceEngine  # noqa: PLC0415

    torch.set_num_threads(THREADS)
    checkpoint = load_checkpoint(BUNDLED)
    return Classifier(checkpoint, ReferenceEngine(checkpoint.posterior, n_draws=DEFAULT_DRAWS))


def _rounded(number: float) -> float:
    return round(float(number), 6)

"""Engines that fail or wait, in place of the real one."""

import threading

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray

from model import Classifier
from service.model_lifecycle.loading import LoadedModel
from tests.support.checkpoints import tiny_checkpoint

__all__ = ["FailingEngine", "WaitingEngine", "n_pending", "serve_engine"]


class FailingEngine:
    """Raises for images with foreground, answers blank ones."""

    name, device, n_draws = "failing", "cpu", 40

    def logits(self, images: NDArray[np.uint8], n_draws: int) -> NDArray[np.float32]:
        if images.any():
            raise ZeroDivisionError("secret detail of /some/path")
        return np.zeros((n_draws, len(images), 10), np.float32)


class WaitingEngine(FailingEngine):
    """Answers once `free` is set; `n_images` counts what it was given."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.n_images = 0

    def logits(self, images: NDArray[np.uint8], n_draws: int) -> NDArray[np.float32]:
        self.n_images += len(images)
        self.free.wait(300)
        return np.zeros((n_draws, len(images), 10), np.float32)


def serve_engine(app: FastAPI, engine: FailingEngine) -> None:
    """Put an engine in the place of the one that a running application uses."""
    model = LoadedModel(Classifier(tiny_checkpoint(), engine), "file")
    app.state.service.provider.install(model)


def n_pending(app: FastAPI) -> int:
    """Return how many images an application has admitted and not yet answered."""
    pending: int = app.state.service.provider.n_pending
    return pending

"""Jobs: one image each, on its way through the worker pool."""

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import UploadFile

from model.classifier import Classifier, Prediction
from model.preprocessing.normalize import DigitImage, open_bytes
from service.errors import file_too_large


class _DecodeBudget(Protocol):
    def __call__(self, n_pixels: int) -> AbstractContextManager[None]:
        """Wait until so many pixels may be decoded."""


@dataclass(frozen=True)
class JobResult:
    """What became of one image: its prediction or its exception, and its times in ms."""

    prediction: Prediction | None
    error: Exception | None
    queue_ms: float
    compute_ms: float

    def get(self) -> Prediction:
        """Return the prediction.

        Raises:
            Exception: What happened instead.
        """
        if self.error is not None:
            raise self.error
        if self.prediction is None:
            raise RuntimeError("a worker returned neither a prediction nor an error")
        return self.prediction


@dataclass(eq=False, repr=False, kw_only=True)
class Job(ABC):
    """One image to classify. The event loop creates and drops it; a worker fills it in.

    Attributes:
        classifier: The model that answers.
        samples: How many posterior draws to use.
        level: The mass of the credible intervals.
        deadline: When workers stop caring, by `time.monotonic`.
        is_released: Whether the job no longer counts as pending.
    """

    classifier: Classifier
    samples: int
    level: float
    deadline: float = field(default=math.inf, init=False)
    submitted: float = field(default=0.0, init=False)
    started: float = field(default=0.0, init=False)
    input: DigitImage | None = field(default=None, init=False)
    prediction: Prediction | None = field(default=None, init=False)
    error: Exception | None = field(default=None, init=False)
    is_released: bool = field(default=False, init=False)
    future: "asyncio.Future[JobResult]" = field(init=False)

    @property
    def n_bytes(self) -> int:
        """The size of the file; large ones are not batched with others."""
        return 0

    @property
    def batch_key(self) -> Hashable:
        """Jobs with the same key may be computed together."""
        return self.classifier, self.samples

    @abstractmethod
    def decode(self, max_pixels: int, budget: _DecodeBudget) -> DigitImage:
        """Return the network's input; called in a worker thread."""

    def prepare(self, max_pixels: int, budget: _DecodeBudget) -> None:
        """Decode the image, or keep the exception for its own request."""
        try:
            self.input = self.decode(max_pixels, budget)
        except Exception as error:  # noqa: BLE001 - the request that it belongs to gets it
            self.error = error

    def result(self) -> JobResult:
        """Return what became of the job until now."""
        waited, worked = self.started - self.submitted, time.monotonic() - self.started
        return JobResult(self.prediction, self.error, 1000 * waited, 1000 * worked)


@dataclass(eq=False, repr=False, kw_only=True)
class ImageJob(Job):
    """An uploaded picture, which a worker decodes and preprocesses."""

    file: UploadFile
    max_bytes: int

    @property
    def n_bytes(self) -> int:
        """The size of the uploaded file."""
        return self.file.size or 0

    def decode(self, max_pixels: int, budget: _DecodeBudget) -> DigitImage:
        """Read and preprocess the picture; until then its bytes may lie on disk."""
        if self.n_bytes > self.max_bytes:
            raise file_too_large(size=self.n_bytes, limit=self.max_bytes)
        return open_bytes(self.file.file.read(), max_pixels=max_pixels, decoding=budget)


@dataclass(eq=False, repr=False, kw_only=True)
class TensorJob(Job):
    """A 28×28 image that is the network's input already."""

    image: DigitImage

    def decode(self, max_pixels: int, budget: _DecodeBudget) -> DigitImage:  # noqa: ARG002
        """Return the image as it is."""
        return self.image

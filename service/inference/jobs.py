"""What is asked about one picture, and how the lanes answer it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fastapi import UploadFile

from model.classifier import Prediction
from model.preprocessing.normalize import DigitImage, open_bytes
from model.system.cpu import granted_cpus
from service.inference.decode_budget import PixelBudget
from service.inference.worker_pool import Lanes
from service.model_lifecycle.provider import Served
from service.observability.metrics import Metrics
from service.settings import Settings

__all__ = ["InputQuestion", "PictureLanes", "Question", "make_lanes"]

# A CPU gains little from more at once; a GPU is filled by as many.
_CPU_BATCH, _CUDA_BATCH = 8, 64


@dataclass(frozen=True, eq=False)
class Question:
    """One uploaded picture, and what the client wants to know of it."""

    served: Served
    file: UploadFile
    samples: int
    level: float


@dataclass(frozen=True, eq=False)
class InputQuestion:
    """The same about what is the network's 28×28 input already: the digit door is not run."""

    served: Served
    image: DigitImage
    samples: int
    level: float


PictureLanes: TypeAlias = Lanes[Question | InputQuestion, DigitImage, Prediction]


def make_lanes(settings: Settings, device: str, metrics: Metrics) -> PictureLanes:
    """The lanes for a device: on a CPU one per granted core, on CUDA one for the device."""
    cuda = device == "cuda"
    decoding = PixelBudget(settings.max_decoding_pixels)

    def prepare(question: Question | InputQuestion) -> DigitImage:
        if isinstance(question, InputQuestion):
            return question.image
        # Read here, in the lane: what waits stays where the form parser put it, on disk if large.
        data = question.file.file.read()
        return open_bytes(data, max_pixels=settings.max_pixels, decoding=decoding)

    return Lanes(
        prepare,
        _compute,
        belongs=lambda question: (question.served, question.samples),
        size=_size,
        n_lanes=settings.worker_threads or (1 if cuda else granted_cpus()),
        n_decoders=granted_cpus() if cuda else 0,
        batch=_CUDA_BATCH if cuda else _CPU_BATCH,
        queue=settings.max_queued_images,
        timeout_s=settings.request_timeout_s,
        worked=metrics.saw_lane,
    )


def _size(question: Question | InputQuestion) -> int:
    return 0 if isinstance(question, InputQuestion) else question.file.size or 0


def _compute(asked: Sequence[tuple[Question | InputQuestion, DigitImage]]) -> list[Prediction]:
    first = asked[0][0]
    return first.served.classifier.predict_inputs(
        [image for _, image in asked],
        samples=first.samples,
        levels=[question.level for question, _ in asked],
    )

"""The model being served: which weights, and whether they are ready."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from model.checkpoint import BUNDLED
from model.classifier import Classifier, load
from model.errors import CheckpointError
from model.preprocessing.normalize import SIDE
from service.errors import ProblemError
from service.settings import Settings

__all__ = ["ModelHolder", "Served", "announce", "load_served"]

_log = logging.getLogger("service")


@dataclass(frozen=True)
class Served:
    """A loaded and warm model, and where it came from."""

    classifier: Classifier
    source: Literal["shipped", "file"]
    path: Path = BUNDLED


class ModelHolder:
    """The one reference that routes read: the served model, once there is one."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.served: Served | None = None
        self.refresh_error: str | None = None  # why the newest file is not what is served
        self.draining = False  # told to stop: what comes is answered, but nothing more should come

    def get(self) -> Served:
        """The served model.

        Raises:
            ProblemError: 503 while there is none.
        """
        if self.served is None:
            raise _not_loaded()
        return self.served

    def refusal(self) -> ProblemError | None:
        """What is answered while there is no model."""
        return _not_loaded() if self.served is None else None

    @property
    def is_ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.served is not None and not self.draining

    def check_ready(self) -> None:
        """Refuse unless requests should be sent here.

        Raises:
            ProblemError: 503 while there is no model, or once the service is to stop.
        """
        if self.draining:
            raise ProblemError(
                503,
                "The service is about to stop; ask another one, or try again in a few seconds.",
                {"Retry-After": "5"},
            )
        self.get()


def _not_loaded() -> ProblemError:
    return ProblemError(
        503, "The model is being loaded; try again in a second.", {"Retry-After": "1"}
    )


def load_served(settings: Settings) -> Served:
    """Load, check and warm the weights that the settings name.

    Raises:
        CheckpointError: If the weights cannot be used.
        RuntimeError: If the device is not available.
    """
    path, source = _choose(settings)
    classifier = load(
        path, n_draws=settings.draws, device=settings.device, threads=settings.worker_threads or None
    )
    classifier.probabilities(np.zeros((1, SIDE, SIDE), np.uint8))
    return Served(classifier, source, path)


def announce(served: Served, settings: Settings, event: Literal["ready", "refreshed"]) -> None:
    """Tell the log what is served, and what keeps its answers from being calibrated."""
    classifier, checkpoint = served.classifier, served.classifier.checkpoint
    _log.info(
        "%s: %s %s (%s), %d draws by %s on %s",
        event,
        checkpoint.name,
        classifier.version,
        "shipped" if served.source == "shipped" else served.path,
        settings.draws,
        classifier.engine.name,
        classifier.engine.device,
    )
    if settings.draws != checkpoint.selective.n_draws:
        _log.warning(
            "%d draws are held, the decision was calibrated with %d: only answers that ask for as "
            "many samples are marked calibrated",
            settings.draws,
            checkpoint.selective.n_draws,
        )
    if not classifier.draws_reproduced:
        _log.warning(
            "this installation draws other networks than the one that calibrated the decision: "
            "no answer is marked calibrated"
        )


def _choose(settings: Settings) -> tuple[Path, Literal["shipped", "file"]]:
    if settings.checkpoint == BUNDLED:
        return BUNDLED, "shipped"
    try:
        settings.checkpoint.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise CheckpointError(
            f"{settings.checkpoint}: cannot be looked up ({error.strerror})"
        ) from error
    else:
        return settings.checkpoint, "file"
    if not settings.allow_bundled_model:
        raise CheckpointError(
            f"{settings.checkpoint}: there is no such file, and MNN_ALLOW_BUNDLED_MODEL is false"
        )
    if "checkpoint" in settings.model_fields_set:
        _log.warning("%s does not exist: serving the shipped weights", settings.checkpoint)
    return BUNDLED, "shipped"

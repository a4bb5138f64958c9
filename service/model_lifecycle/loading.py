"""Load, check and warm the model of a checkpoint."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from model.checkpoint import BUNDLED
from model.classifier import Classifier, load
from model.errors import CheckpointError
from model.preprocessing.normalize import SIDE
from service.settings import Settings

_log = logging.getLogger("service")


@dataclass(frozen=True)
class LoadedModel:
    """A model that is loaded and warm, and where it came from."""

    classifier: Classifier
    source: Literal["shipped", "file"]
    path: Path = BUNDLED

    @property
    def name(self) -> str:
        """The model's name, as in its checkpoint."""
        return self.classifier.checkpoint.name

    @property
    def version(self) -> str:
        """A hash of everything that decides an answer."""
        return self.classifier.version


def load_model(path: Path, settings: Settings, *, allow_bundled: bool) -> LoadedModel:
    """Load a checkpoint, check it, and warm the model up.

    Args:
        path: The checkpoint's file.
        settings: Device, draws and threads.
        allow_bundled: Whether the bundled model may stand in for a missing file.

    Raises:
        CheckpointError: If the weights cannot be used.
        RuntimeError: If the device is not available.
    """
    if path != BUNDLED and not _exists(path):
        if not allow_bundled:
            raise CheckpointError(
                f"{path}: there is no such file, and MNN_ALLOW_BUNDLED_MODEL is false"
            )
        if "checkpoint" in settings.model_fields_set:
            _log.warning("%s does not exist: serving the bundled model", path)
        path = BUNDLED
    classifier = load(
        path,
        n_draws=settings.draws,
        device=settings.device,
        threads=settings.worker_threads or None,
    )
    classifier.probabilities(np.zeros((1, SIDE, SIDE), np.uint8))
    return LoadedModel(classifier, "shipped" if path == BUNDLED else "file", path)


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    return True

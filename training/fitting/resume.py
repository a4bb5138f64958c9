"""Saving and resuming an unfinished fit; an interruption costs at most one epoch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from model.nn.network import BayesianCNN
from model.system import write_atomically
from training.fitting.trainer import EpochSummary, Fitter


class UnfinishedRunError(Exception):
    """The unfinished run on disk cannot be resumed with these settings."""


class UnfinishedRun:
    """The saved state of an unfinished fit, beside its future checkpoint.

    Args:
        output: Path of the future checkpoint.
        settings: Settings that must be equal to resume the fit, as JSON values.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any]) -> None:
        self.path = output.with_name(f"{output.stem}.unfinished.safetensors")
        self._settings = json.dumps(settings, sort_keys=True)

    def save(self, fitter: Fitter[BayesianCNN], history: list[EpochSummary]) -> None:
        """Write the state after an epoch."""
        epochs = json.dumps([vars(summary) for summary in history])
        metadata = {"settings": self._settings, "history": epochs}
        write_atomically(self.path, safetensors.torch.save(fitter.state(), metadata=metadata))

    def restore(self, fitter: Fitter[BayesianCNN]) -> list[EpochSummary]:
        """Resume the saved fit, if there is one.

        Returns:
            The summaries of the completed epochs.

        Raises:
            UnfinishedRunError: If the file is damaged or belongs to other settings.
        """
        if not self.path.exists():
            return []
        discard = "Add --fresh to discard it and start again."
        try:
            with safetensors.safe_open(self.path, "pt") as file:
                metadata = file.metadata()
            state = safetensors.torch.load_file(self.path)
            saved = json.loads(metadata["settings"])
            history = [EpochSummary(**summary) for summary in json.loads(metadata["history"])]
        except (ValueError, KeyError, TypeError, OSError, safetensors.SafetensorError) as error:
            raise UnfinishedRunError(
                f"{self.path}: the unfinished run cannot be read. {discard}"
            ) from error
        wanted = json.loads(self._settings)
        if saved != wanted:
            other = ", ".join(
                f"{key} {saved.get(key)} there, {wanted.get(key)} now"
                for key in sorted(saved.keys() | wanted.keys())
                if saved.get(key) != wanted.get(key)
            )
            raise UnfinishedRunError(
                f"{self.path}: an unfinished run with other settings ({other}). Finish it with "
                f"those, or: {discard}"
            )
        try:
            fitter.restore(state)
        except (KeyError, ValueError) as error:
            raise UnfinishedRunError(
                f"{self.path}: the unfinished run is damaged ({error}). {discard}"
            ) from error
        return history

    def discard(self) -> None:
        """Delete the saved state, if there is one."""
        self.path.unlink(missing_ok=True)

"""Keeping what is served equal to what the checkpoint's file holds, without a restart.

The file is looked at, not subscribed to: notifications do not cross network file systems, and not
every volume of a container passes them on.
"""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import TypeAlias

from model.checkpoint import BUNDLED
from model.errors import CheckpointError
from service.model_lifecycle.background import BackgroundThread
from service.model_lifecycle.provider import ModelHolder, Served, announce, load_served
from service.observability.metrics import Metrics
from service.process.memory import give_back
from service.settings import Settings

__all__ = ["CheckpointFile", "Refresher", "ReloadError"]

_log = logging.getLogger("service")

_Identity: TypeAlias = tuple[int, ...]

_UNTIL_UNUSED_S = 1.0  # after a refresh; requests are seldom under way for longer

_NEVER: _Identity = (-1,)  # what no file is
_FAULT = "a fault while loading the new checkpoint, which is tried again; see the log"


class ReloadError(Exception):
    """A checkpoint was not taken; its message may be told to clients."""


class CheckpointFile:
    """The file that the settings name, and what it was when it was last loaded.

    Args:
        settings: Name the file, and what stands in for it.
    """

    def __init__(self, settings: Settings) -> None:
        """Nothing is looked at yet; see the class."""
        self.settings = settings
        self._loaded: _Identity | None = None
        # Always the same thread: the system's allocator keeps memory for each that has loaded.
        # Nobody waits for it at a stop, when nobody has a use for the weights any more.
        self._thread = BackgroundThread("checkpoint")

    async def fetch(self) -> Served:
        """`load` beside the event loop."""
        return await asyncio.wrap_future(self._thread.submit(self.load))

    def tidy_later(self) -> None:
        """Give back the memory of a model before, or of what was no model, once it is unused."""
        loop = asyncio.get_running_loop()
        loop.call_later(_UNTIL_UNUSED_S, lambda: self._thread.submit(give_back))

    def load(self) -> Served:
        """Load, check and warm what the settings name.

        Raises:
            CheckpointError: If the weights cannot be used.
            RuntimeError: If the device is not available.
        """
        # Before reading: a change in between is then seen as one at the next look.
        self._loaded = _identity(self.settings.checkpoint)
        return load_served(self.settings)

    def forget(self) -> None:
        """Take the file for a changed one at the next look."""
        self._loaded = _NEVER

    def has_changed(self) -> bool:
        """Whether the file is another than at the last `load`, well or badly as that went."""
        return _identity(self.settings.checkpoint) != self._loaded


class Refresher:
    """Puts what the checkpoint's file holds in the place of what is served, one at a time.

    Requests that are being answered keep the model they began with. A file that cannot be used
    changes nothing and is reported in the log, in `holder.refresh_error` and in the metrics.

    Args:
        file: The checkpoint's file, loaded once already.
        holder: What is served.
        settings: Of the service.
        metrics: Where reloads are counted.
    """

    def __init__(
        self, file: CheckpointFile, holder: ModelHolder, settings: Settings, metrics: Metrics
    ) -> None:
        """Do nothing yet; see the class."""
        self._file, self._holder = file, holder
        self._settings, self._metrics = settings, metrics
        self._lock = asyncio.Lock()

    async def reload(self) -> Served:
        """Load, check and warm what the file holds, and serve it.

        A file that is gone gives way to the shipped weights, as it would at a start.

        Raises:
            ReloadError: If it cannot be used; the old model is served still.
        """
        async with self._lock:
            return await self._reload()

    async def follow(self, checkpoint: Path | None) -> Served:
        """Serve the weights of another file from now on, or the shipped ones if None.

        Nothing stands in for a file that is missing.

        Raises:
            ReloadError: If it cannot be used; the file before is kept to, and the old model served.
        """
        async with self._lock:
            before = self._file.settings
            self._file.settings = before.model_copy(
                update={"checkpoint": checkpoint or BUNDLED, "allow_bundled_model": False}
            )
            try:
                return await self._reload()
            except ReloadError:
                self._file.settings = before
                raise

    async def watch(self) -> None:
        """Look at the file every `reload_poll_interval_s` and serve its news; runs until cancelled.

        A file that cannot be used is tried again when it changes; if it could not even be read, at
        the next look.
        """
        while self._settings.reload_poll_interval_s:
            await asyncio.sleep(self._settings.reload_poll_interval_s)
            try:
                await self._look()
            except Exception:  # noqa: BLE001 - whatever it is, the next look may do
                _log.exception("could not look at the checkpoint, which is tried again")

    async def _look(self) -> None:
        async with self._lock:
            if await asyncio.to_thread(self._file.has_changed):
                with contextlib.suppress(ReloadError):
                    await self._reload()

    async def _reload(self) -> Served:
        holder = self._holder
        kept = holder.get().classifier.version
        try:
            served = await self._file.fetch()
        except Exception as error:
            told = isinstance(error, CheckpointError)
            reason = (
                _without_folders(str(error), self._file.settings.checkpoint) if told else _FAULT
            )
            if reason != holder.refresh_error:  # once, not at every try
                _log.error(
                    "the new checkpoint was not taken, %s is served still: %s",
                    kept,
                    error,
                    exc_info=not told,
                )
            holder.refresh_error = reason
            self._metrics.saw_reload(taken=False)
            self._file.tidy_later()
            if not told or isinstance(error.__cause__, OSError):
                self._file.forget()  # no verdict on what the file holds: it is tried again
            raise ReloadError(reason) from error
        holder.served, holder.refresh_error = served, None
        self._metrics.saw_reload(taken=True)
        self._metrics.serves(served)
        announce(served, self._settings, "refreshed")
        self._file.tidy_later()
        return served


def _without_folders(told: str, checkpoint: Path) -> str:
    """What clients may read of an error: it names a file, never its folder."""
    for path in (checkpoint, BUNDLED):  # which stands in for it
        told = told.replace(str(path), path.name)
    return told


def _identity(path: Path) -> _Identity | None:
    """What changes when a file's content or access does; None if there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return (error.errno or 0,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

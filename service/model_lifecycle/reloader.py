"""Hot-swap the served model when its checkpoint changes; one reload at a time.

The file is polled: notifications neither cross network file systems nor reach every container
volume.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias, TypeVar

from model.checkpoint import BUNDLED
from model.errors import CheckpointError
from service.model_lifecycle.loading import LoadedModel, load_model
from service.model_lifecycle.provider import ModelProvider
from service.observability.metrics import Metrics
from service.process.memory import trim_memory
from service.settings import Settings

T = TypeVar("T")

_log = logging.getLogger("service")

_FileIdentity: TypeAlias = tuple[int, ...]

_NO_FILE: _FileIdentity = (-1,)  # differs from every file, so that the next poll loads again
_TRIM_DELAY_S = 1.0  # requests rarely hold the replaced model longer
_UNEXPECTED = "an unexpected error while loading the checkpoint; it is tried again, see the log"


class ReloadError(Exception):
    """A checkpoint was rejected; clients may read the message."""


class ModelReloader:
    """Load checkpoints and put them into service.

    A checkpoint that cannot be used changes nothing. It is reported in the log, in the metrics
    and in `GET /model`.

    Args:
        provider: Gets the models.
        settings: The settings of the service.
        metrics: Count the reloads.

    Attributes:
        is_loading: Whether a checkpoint is being loaded at this moment.
    """

    def __init__(self, provider: ModelProvider, settings: Settings, metrics: Metrics) -> None:
        self._provider, self._settings, self._metrics = provider, settings, metrics
        self._path, self._allow_bundled = settings.checkpoint, settings.allow_bundled_model
        self._loaded: _FileIdentity | None = None
        self._lock = asyncio.Lock()
        self.is_loading = False
        # Always the same thread: glibc keeps an arena of memory for each thread that has loaded.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")

    async def start(self, checkpoint: Path | None = None) -> None:
        """Load the first model and put it into service.

        Args:
            checkpoint: The file to load; default: the one of the settings.

        Raises:
            CheckpointError: If the weights cannot be used.
            RuntimeError: If the device is not available.
        """
        self._path = checkpoint or self._path
        await self._install(self._path, allow_bundled=self._allow_bundled)

    async def reload(self) -> LoadedModel:
        """Load the checkpoint again and put it into service.

        Raises:
            ReloadError: If it cannot be used; the previous model stays in service.
        """
        async with self._lock:
            return await self._reload(self._path, allow_bundled=self._allow_bundled)

    async def switch_checkpoint(self, checkpoint: Path | None) -> LoadedModel:
        """Serve another file from now on; nothing stands in for it if it is missing.

        Args:
            checkpoint: The file; None for the bundled model.

        Raises:
            ReloadError: If it cannot be used; the previous file and model stay.
        """
        async with self._lock:
            path = checkpoint or BUNDLED
            model = await self._reload(path, allow_bundled=False)
            self._path, self._allow_bundled = path, False
            return model

    async def watch(self) -> None:
        """Poll the file and reload it when it changes; runs until cancelled.

        A file that cannot be used is tried again when it changes; if it could not be read at all,
        at the next poll.
        """
        while self._settings.reload_poll_interval_s:
            await asyncio.sleep(self._settings.reload_poll_interval_s)
            try:
                await self._poll()
            except Exception:  # noqa: BLE001 - the next poll may succeed
                _log.exception("polling the checkpoint failed; it is tried again")

    def close(self) -> None:
        """Start no more loads."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _poll(self) -> None:
        async with self._lock:
            if await asyncio.to_thread(_identity, self._path) != self._loaded:
                with contextlib.suppress(ReloadError):
                    await self._reload(self._path, allow_bundled=self._allow_bundled)

    async def _reload(self, path: Path, *, allow_bundled: bool) -> LoadedModel:
        previous = self._provider.get()
        try:
            model = await self._install(path, allow_bundled=allow_bundled)
        except Exception as error:
            self._report(error, path, previous)
            raise ReloadError(self._provider.reload_error) from error
        finally:
            loop = asyncio.get_running_loop()
            loop.call_later(_TRIM_DELAY_S, self._trim)
        self._metrics.record_reload(success=True)
        return model

    async def _install(self, path: Path, *, allow_bundled: bool) -> LoadedModel:
        """Load a checkpoint and install it: the one way in for every model."""

        def load() -> LoadedModel:
            # Before reading: a change meanwhile shows at the next poll.
            self._loaded = _identity(path)
            self.is_loading = True
            try:
                return load_model(path, self._settings, allow_bundled=allow_bundled)
            finally:
                self.is_loading = False

        model = await self._in_thread(load)
        self._provider.install(model)
        return model

    def _report(self, error: Exception, path: Path, previous: LoadedModel) -> None:
        expected = isinstance(error, CheckpointError)
        reason = _without_folders(str(error), path) if expected else _UNEXPECTED
        if reason != self._provider.reload_error:  # once, not at every poll
            _log.error(
                "the new checkpoint was rejected, %s stays in service: %s",
                previous.version,
                error,
                exc_info=not expected,
            )
        self._provider.reload_error = reason
        self._metrics.record_reload(success=False)
        if not expected or isinstance(error.__cause__, OSError):
            self._loaded = _NO_FILE  # says nothing about what the file holds

    def _trim(self) -> None:
        with contextlib.suppress(RuntimeError):  # the service has stopped
            self._thread.submit(trim_memory)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _without_folders(message: str, checkpoint: Path) -> str:
    """Remove folders from a message: clients may read file names, not paths."""
    for path in (checkpoint, BUNDLED):
        message = message.replace(str(path), path.name)
    return message


def _identity(path: Path) -> _FileIdentity | None:
    """Return what changes when a file's content or access changes; None if there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return (error.errno or 0,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

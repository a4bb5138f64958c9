"""Atomic file writes: readers see the old file or the new one, never a part."""

import contextlib
import glob
import os
import sys
import tempfile
from pathlib import Path

if sys.platform != "win32":
    import fcntl


def write_atomically(path: Path, data: bytes) -> None:
    """Write bytes to a temporary file beside `path`, sync it and rename it into place.

    Temporary files that killed writers of the same path have left are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    handle, temporary = _locked_temporary(path)
    with os.fdopen(handle, "wb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp creates it private
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _locked_temporary(path: Path) -> tuple[int, Path]:
    """A temporary file, locked while open so that other writers do not remove it."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        if sys.platform != "win32":
            with contextlib.suppress(OSError):  # without locks, `_sweep` removes nothing
                fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # another writer removed it before it was locked


def _sweep(path: Path) -> None:
    """Remove temporary files that no running process has locked."""
    if sys.platform == "win32":
        return
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError), left.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()

"""Atomic writes: the whole file or nothing, and killed writers' leftovers are removed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.system import atomic_write, write_atomically

# Announces that it writes, and continues on a line of input. Imports the module alone: it is quick.
WRITER = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(atomic_write.__file__).parent)!r})
from atomic_write import write_atomically
fsync = os.fsync
def wait(handle):
    print("writing", flush=True)
    sys.stdin.readline()
    fsync(handle)
os.fsync = wait
write_atomically(Path(sys.argv[1]), b"from the other process")
"""


def writing(path: Path) -> "subprocess.Popen[str]":
    """Another process, in the middle of writing to the path."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_readable_as_others_are_and_alone(tmp_path: Path) -> None:
    path, ordinary = tmp_path / "new" / "x.bin", tmp_path / "ordinary"
    write_atomically(path, b"first")
    write_atomically(path, b"second")
    ordinary.touch()
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode == ordinary.stat().st_mode
    assert names(path.parent) == ["x.bin"]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    for _ in range(3):
        with writing(path) as process:
            process.kill()
        assert not path.exists()
        assert len(names(tmp_path)) == 1  # and not one more each time
    write_atomically(path, b"whole")
    assert names(tmp_path) == ["x.bin"]


def test_what_another_is_writing_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    with writing(path) as process:
        write_atomically(path, b"mine")
        assert path.read_bytes() == b"mine"
        assert len(names(tmp_path)) == 2
        process.communicate("go on\n")
    assert process.returncode == 0
    assert path.read_bytes() == b"from the other process"
    assert names(tmp_path) == ["x.bin"]


def test_other_files_are_not_touched(tmp_path: Path) -> None:
    others = [".x.bin.tmp", ".y.bin.abc.tmp", "x.bin.abc.tmp", ".x.bin.abc"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    write_atomically(tmp_path / "x.bin", b"whole")
    assert names(tmp_path) == sorted([*others, "x.bin"])


def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.bin"
    write_atomically(path, b"old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x.bin"]

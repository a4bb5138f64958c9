"""Commands called in this process, which spares the seconds of importing PyTorch."""

import contextlib
import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Result:
    """What a command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


def call(main: Callable[[list[str]], int], folder: Path, *arguments: object) -> Result:
    """Call a command's `main` in a folder."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), contextlib.chdir(folder):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse rejects an option
            code = int(stop.code or 0)
    return Result(code, out.getvalue(), err.getvalue())

"""`python -m service`: listen, load the weights, answer."""

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from pydantic import ValidationError

from service.app import create_app
from service.model_lifecycle.background import is_busy
from service.process.descriptors import allow_descriptors
from service.process.memory import settle
from service.process.tuning import prepare
from service.server.graceful_server import Server
from service.settings import Settings

__all__ = ["main"]


def main() -> int:
    """Run the service until it is told to stop; returns its exit code."""
    argparse.ArgumentParser(
        prog="python -m service",
        description="Answer digit pictures over HTTP.",
        epilog="Settings are environment variables (MNN_PORT=9000); docs/configuration.md lists them.",
    ).parse_args()
    try:
        settings = Settings()
    except ValidationError as error:
        for fault in error.errors():
            print(f"error: {_told(fault)}", file=sys.stderr)  # noqa: T201
        return 2
    prepare(settings)
    allow_descriptors()
    failed = False

    def stop() -> None:
        nonlocal failed
        failed = True
        server.should_exit = True

    server = Server(create_app(settings, on_ready=settle, on_failed_start=stop), settings)
    # uvicorn raises the signal that stopped it once more when it is done: a stop that was asked for
    # is no failure.
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, lambda _signal, _frame: None)
    server.run()
    code = 1 if failed or not server.started else 0
    if is_busy():
        _leave(code)
    return code


def _told(fault: Mapping[str, Any]) -> str:
    """What is wrong with a setting, or with several together; a key is not repeated."""
    if not fault["loc"]:
        return str(fault["msg"]).removeprefix("Value error, ")
    name = "MNN_" + "_".join(str(part) for part in fault["loc"]).upper()
    given = "" if name == "MNN_API_KEY" else f"={fault['input']!r}"
    return f"{name}{given}: {str(fault['msg']).removeprefix('Value error, ')}"


def _leave(code: int) -> NoReturn:
    """End the process in the middle of loading weights.

    The interpreter's own end would take the thread down within the engine's library, which then
    aborts the process.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads it any more
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m service`: listen, load the model, answer."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from service.app import create_app
from service.process.tuning import prepare, raise_descriptor_limit, tune_gc
from service.server.graceful_server import GracefulServer
from service.settings import Settings


def main() -> int:
    """Run the service until it is told to stop; return its exit code."""
    argparse.ArgumentParser(
        prog="python -m service",
        description="Classify pictures of digits over HTTP.",
        epilog="Settings are environment variables (MNN_PORT=9000); docs/configuration.md lists "
        "them.",
    ).parse_args()
    try:
        settings = Settings()
    except ValidationError as error:
        for found in error.errors():
            print(f"error: {_describe(found)}", file=sys.stderr)  # noqa: T201
        return 2
    prepare(settings)
    raise_descriptor_limit()
    failed = False

    def stop() -> None:
        nonlocal failed
        failed = True
        server.should_exit = True

    app = create_app(settings, on_ready=tune_gc, on_failed_start=stop)
    server = GracefulServer(app, settings, app.state.service.provider, app.state.service.metrics)
    # uvicorn raises the signal again when it has stopped, but a requested stop is no failure.
    for requested in (signal.SIGINT, signal.SIGTERM):
        signal.signal(requested, lambda _signal, _frame: None)
    server.run()
    code = 1 if failed or not server.started else 0
    if app.state.service.reloader.is_loading:
        # The interpreter would wait for the load, however long a network file system takes.
        logging.shutdown()
        os._exit(code)
    return code


def _describe(found: Mapping[str, Any]) -> str:
    """Describe an invalid setting; the API key is not repeated."""
    message = str(found["msg"]).removeprefix("Value error, ")
    if not found["loc"]:
        return message
    name = "MNN_" + "_".join(str(part) for part in found["loc"]).upper()
    given = "" if name == "MNN_API_KEY" else f"={found['input']!r}"
    return f"{name}{given}: {message}"


if __name__ == "__main__":
    sys.exit(main())

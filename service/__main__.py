"""`python -m service`: listen, load the weights, answer."""

import argparse
import logging
import math
import signal
import sys
from collections.abc import Mapping
from typing import Any

import uvicorn
from pydantic import ValidationError

from service.app import create_app
from service.descriptors import allow_descriptors
from service.settings import Settings
from service.wire import connections

__all__ = ["main"]


def main() -> int:
    """Run the service until it is told to stop; returns its exit code."""
    argparse.ArgumentParser(
        prog="python -m service",
        description="Answer digit pictures over HTTP.",
        epilog="Settings are environment variables (MNN_PORT=9000); docs/operations.md lists them.",
    ).parse_args()
    try:
        settings = Settings()
    except ValidationError as error:
        for fault in error.errors():
            print(f"error: {_told(fault)}", file=sys.stderr)  # noqa: T201
        return 2
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s"
    )
    allow_descriptors()
    failed = False

    def stop() -> None:
        nonlocal failed
        failed = True
        server.should_exit = True

    app = create_app(settings, on_failed_start=stop)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=connections(settings.body_timeout_s, app.state.metrics),
            host=settings.host,
            port=settings.port,
            log_level=settings.log_level,
            log_config=None,
            server_header=False,
            # A client that does not read its answer must not hold up a stop for ever.
            timeout_graceful_shutdown=math.ceil(
                settings.body_timeout_s + settings.request_timeout_s
            ),
        )
    )
    # uvicorn raises the signal that stopped it once more when it is done: a stop that was asked for
    # is no failure.
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, lambda _signal, _frame: None)
    server.run()
    return 1 if failed or not server.started else 0


def _told(fault: Mapping[str, Any]) -> str:
    """What is wrong with a setting, or with several together; a key is not repeated."""
    if not fault["loc"]:
        return str(fault["msg"]).removeprefix("Value error, ")
    name = "MNN_" + "_".join(str(part) for part in fault["loc"]).upper()
    given = "" if name == "MNN_API_KEY" else f"={fault['input']!r}"
    return f"{name}{given}: {fault['msg']}"


if __name__ == "__main__":
    sys.exit(main())

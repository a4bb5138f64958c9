"""Logging: one JSON object per line for machines, plain lines for people at a terminal.

Whatever is logged during a request carries its ID. Pictures and predictions are never logged.
"""

import ctypes
import json
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Literal

from PIL import _imaging

from service.request_state import RequestState

# Set around each request. Worker threads have none: their log lines name no request.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)

_access = logging.getLogger("service.access")

_LINE = "%(levelname)s %(name)s: %(message)s"

# Monitors ask for these every few seconds; their lines would bury the others.
_PROBES = frozenset({"/health/live", "/health/ready", "/metrics"})
_PROBES_BELOW = "/v2/health/"


def configure(level: str, form: Literal["auto", "json", "text"]) -> None:
    """Send the log of this process to standard error.

    Args:
        level: The least severity that is logged, `debug` to `error`.
        form: `json`, `text`, or `auto`: text at a terminal, else JSON.
    """
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_LINE) if text else _JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # The answer says what is wrong with a damaged picture; it is no error of the service.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    _silence_libtiff()
    logging.captureWarnings(True)


def log_access(
    state: RequestState, method: str, path: str, status: int | None, client: str | None
) -> None:
    """Log one answered request; health probes and metrics at level debug.

    Args:
        state: The request.
        method: Its HTTP method.
        path: Its path, which decides the level and is not logged: clients may make it up.
        status: The status of the answer; None if the client left before.
        client: The address of the peer.
    """
    probe = path in _PROBES or path.startswith(_PROBES_BELOW)
    level = logging.DEBUG if probe else logging.INFO
    if not _access.isEnabledFor(level):
        return
    total_ms = 1000 * (time.perf_counter() - state.started)
    fields = {
        "method": method,
        "route": state.route,
        "status": status,
        "client": client,
        "queue_ms": round(state.queue_ms, 2),
        "compute_ms": round(state.compute_ms, 2),
        "total_ms": round(total_ms, 2),
        **state.log_fields,
    }
    outcome = status if status is not None else "client disconnected"
    _access.log(
        level,
        "%s %s: %s in %.1f ms",
        method,
        state.route,
        outcome,
        total_ms,
        extra={"fields": fields},
    )


def _silence_libtiff() -> None:
    """Keep libtiff from writing lines about damaged pictures into the log.

    Pillow offers no way to; where it bundles libtiff otherwise, the lines stay.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(str(_imaging.__file__)).TIFFSetErrorHandler(None)


class _JsonFormatter(logging.Formatter):
    """Format a record as one JSON object: time, level, logger, message, and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{seconds}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request_id := REQUEST_ID.get()) is not None:
            entry["request_id"] = request_id
        fields = getattr(record, "fields", None)
        if isinstance(fields, Mapping):
            entry.update(fields)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)

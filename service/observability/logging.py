"""The log: a JSON object a line for machines, or lines for people at a terminal.

Whatever is logged while a request is answered carries the request's id. No picture and nothing that
was read in one is ever logged.
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

__all__ = ["ANSWERED", "REQUEST_ID", "configure", "with_fields"]

ANSWERED = "service.answered"  # the logger of the line that each request leaves

# Set around each request. Threads have none of their own: what they log names no request.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)

_LINE = "%(levelname)s %(name)s: %(message)s"


def configure(level: str, form: Literal["auto", "json", "text"]) -> None:
    """Send the log of this process to standard error.

    Args:
        level: Least severity that is logged, `debug` to `error`.
        form: `json`, `text`, or `auto` for text where a person looks on and JSON elsewhere.
    """
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_LINE) if text else _JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # What Pillow thinks of a damaged picture is told by the answer, and is no fault of the service.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    _silence_libtiff()
    logging.captureWarnings(True)  # those of libraries would stand between the objects as text


def with_fields(**fields: object) -> dict[str, Any]:
    """The argument `extra` of a logging call that adds fields to its JSON object."""
    return {"fields": fields}


def _silence_libtiff() -> None:
    """Have libtiff write nothing of damaged pictures: its lines would stand between the objects.

    Pillow, which reads TIFF with it, offers no way to. Where it holds libtiff otherwise, those
    lines are written as before.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(str(_imaging.__file__)).TIFFSetErrorHandler(None)


class _JsonFormatter(logging.Formatter):
    """One JSON object a record: `time`, `level`, `logger`, `message`, and what else it carries."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told: dict[str, object] = {
            "time": f"{seconds}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request_id := REQUEST_ID.get()) is not None:
            told["request_id"] = request_id
        fields = getattr(record, "fields", None)
        if isinstance(fields, Mapping):
            told.update(fields)
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)

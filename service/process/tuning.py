"""What a process that serves is set to, whoever started it."""

import logging
import os
import sys

from service.observability import logging as logs
from service.settings import Settings, misspelt

__all__ = ["prepare"]

_log = logging.getLogger("service")

# Under a crowd, lanes would wait Python's own 5 ms for a busy event loop to hand them the
# interpreter.
_SWITCH_INTERVAL_S = 0.001


def prepare(settings: Settings) -> None:
    """Set up log and threads, and warn of variables that are nearly settings."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    logs.configure(settings.log_level, settings.log_format)
    for name, meant in misspelt(os.environ).items():
        _log.warning("%s is no setting and has no effect; is %s meant?", name, meant)

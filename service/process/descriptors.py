"""How many connections may be open at once: the system's default is less than the queue is long."""

import contextlib
import sys

if sys.platform != "win32":
    import resource

__all__ = ["allow_descriptors"]

_ENOUGH = 65_536


def allow_descriptors() -> None:
    """Raise the soft limit of open descriptors, 1,024 on many systems, as far as is allowed.

    Each picture that waits keeps a connection. Were the descriptors used up before the queue is
    full, nobody could be told to come again later, and the probes would fail.
    """
    if sys.platform == "win32":
        return  # there is no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(_ENOUGH, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # what is granted must do, then
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

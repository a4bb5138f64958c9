"""The address that a request asks for."""

import re

from starlette.types import Scope

__all__ = ["has_control", "own_path"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def own_path(scope: Scope) -> str:
    """The path within this application, by the very rule by which its routes are found.

    Where it is mounted below another, the part of the path that leads there is not its own; a part
    that only begins with the same letters is.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if path == root or path.startswith(root + "/"):
        return path[len(root) :]
    return path


def has_control(path: str) -> bool:
    """Whether there are control characters in it: no address of this service has any.

    Routes are found by patterns, of which some take a newline at the end for the end.
    """
    return _CONTROL.search(path) is not None

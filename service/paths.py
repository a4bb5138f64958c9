"""Paths of requests: within a mounted application, and matched against its routes."""

import re
from collections.abc import Iterable
from functools import lru_cache

from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Scope

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def own_path(scope: Scope) -> str:
    """Return the request's path below the point where this application is mounted.

    It follows Starlette's rule: `root_path` is cut off only where a path segment ends.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if path == root or path.startswith(root + "/"):
        return path[len(root) :]
    return path


def has_control_characters(path: str) -> bool:
    """Whether a path holds control characters, which no route of this service does.

    Route patterns end in `$`, which also matches before a final newline.
    """
    return _CONTROL.search(path) is not None


class RouteMatcher:
    """Find the route template (`/v2/models/{name}/infer`) of a path.

    Args:
        routes: The routes of the application; others than `Route` and `Mount` are ignored.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._patterns = [
            (route.path_regex, f"{route.path}/{{path}}" if isinstance(route, Mount) else route.path)
            for route in routes
            if isinstance(route, Route | Mount)
        ]
        self.match = lru_cache(maxsize=256)(self._match)

    def _match(self, path: str) -> str:
        """Return the template, or `none` if no route has this path."""
        if has_control_characters(path):
            return "none"
        return next((name for regex, name in self._patterns if regex.match(path)), "none")

"""The address that a request asks for."""

from starlette.types import Scope

__all__ = ["own_path"]


def own_path(scope: Scope) -> str:
    """The path within this application.

    Where it is mounted below another, the part of the path that leads there is not its own.
    """
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))

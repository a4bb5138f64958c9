"""Refusing before a body is read: when too much waits, parsing forms would only make it worse."""

from collections.abc import Callable, Sequence

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service import problems
from service.problems import ProblemError

__all__ = ["Admission"]


class Admission:
    """Wrap an ASGI application.

    Under a crowd most requests are refused, and what each costs the event loop is taken from those
    that are answered: before the application it is a quarter less than at its routes.

    Args:
        app: The application.
        routes: Those that need the model and a place in the queue, all of them by POST.
        check: Raises what a request to them is refused with at this moment, if anything.
    """

    def __init__(
        self, app: ASGIApp, *, routes: Sequence[BaseRoute], check: Callable[[], None]
    ) -> None:
        """Wrap the application; see the class."""
        self._app, self._check = app, check
        self._routes = [route for route in routes if isinstance(route, Route)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (other ASGI events pass through)."""
        route = self._route(scope)
        if route is not None:
            try:
                self._check()
            except ProblemError as refused:
                scope["route"] = route  # by which the request is counted and logged
                await _refuse(refused, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _route(self, scope: Scope) -> BaseRoute | None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return None
        # Where the application is mounted below another, that part of the address is not its own.
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return next((route for route in self._routes if route.path_regex.match(path)), None)


async def _refuse(refused: ProblemError, scope: Scope, receive: Receive, send: Send) -> None:
    """Drop the body and answer.

    Dropped and not left: a server that closes while the client writes resets the connection, and
    the client may never see the answer.
    """
    headers = dict(refused.headers or {})
    if Headers(scope=scope).get("expect", "").lower() == "100-continue":
        headers["Connection"] = "close"  # the body may come all the same
    else:
        try:
            while (await receive()).get("more_body", False):
                pass
        except ProblemError as error:  # too large, or too slow
            refused, headers = error, dict(error.headers or {})
    answer = problems.response(scope, refused.status_code, refused.detail, headers)
    await answer(scope, receive, send)

"""Turning pictures away while the queue is full, before anything of their form is parsed.

Finding a route and parsing a form cost the event loop several times what a refusal does. Were that
spent on every picture that is turned away, a crowd at the door would slow down those inside.
"""

from collections.abc import Callable, Sequence

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service import problems
from service.problems import ProblemError

__all__ = ["Admission"]


class Admission:
    """Wrap an ASGI application. What is let in may find the queue full still: the lanes decide.

    Args:
        app: The application.
        routes: Where pictures are posted to.
        refusal: The answer to a picture that comes now; None if there is room.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Sequence[BaseRoute],
        refusal: Callable[[], ProblemError | None],
    ) -> None:
        """Wrap the application; see the class."""
        self._app = app
        self._routes = {route.path: route for route in routes if isinstance(route, Route)}
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (other ASGI events pass through)."""
        refused = self._refuse(scope) if scope["type"] == "http" else None
        if refused is None:
            await self._app(scope, receive, send)
            return
        headers = dict(refused.headers or {})
        if Headers(scope=scope).get("expect", "").lower() == "100-continue":
            headers["Connection"] = "close"  # the body may come all the same
        else:
            try:
                await _drop_body(receive)
            except ProblemError as error:  # too large, or too slow
                refused, headers = error, dict(error.headers or {})
        answer = problems.response(
            scope["state"]["request_id"], refused.status_code, refused.detail, headers
        )
        await answer(scope, receive, send)

    def _refuse(self, scope: Scope) -> ProblemError | None:
        # Where the application is mounted below another, that part of the address is not its own.
        route = self._routes.get(scope["path"].removeprefix(scope.get("root_path", "")))
        if route is None or scope["method"] != "POST":
            return None
        refused = self._refusal()
        if refused is not None:
            scope["route"] = route  # by which the request is counted
        return refused


async def _drop_body(receive: Receive) -> None:
    """Read the body, so that the client hears the answer and may go on with its connection."""
    while (await receive()).get("more_body", False):
        pass

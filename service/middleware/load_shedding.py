"""Refusing before a body is read: when too much waits, parsing forms would only make it worse."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors as problems
from service.errors import ProblemError
from service.paths import own_path

__all__ = ["ENTRY", "Admission", "Entry", "Gate", "Refused"]

ENTRY = "entry"  # where a request's state holds its `Entry`


class Gate:
    """Whether requests for pictures may come in at this moment.

    Args:
        routes: Those that need the model and a place in the queue, all of them by POST.
        refusal: What a request to them is refused with at this moment, if it is, given how many
            others have arrived and have yet to take their places in the queue.
    """

    def __init__(
        self, routes: Sequence[BaseRoute], refusal: Callable[[int], ProblemError | None]
    ) -> None:
        """Let nobody in yet; see the class."""
        self._routes = [route for route in routes if isinstance(route, Route)]
        self._refusal = refusal
        self._n_entering = 0
        self._find = lru_cache(maxsize=64)(self._match)

    def ask(self, method: str, path: str) -> "Refused | Entry | None":
        """Whether a request may come in; None if it is none for pictures."""
        if method != "POST":
            return None
        route = self._find(path)
        if route is None:
            return None
        refused = self._refusal(self._n_entering)
        return Entry(self) if refused is None else Refused(route, refused)

    def _match(self, path: str) -> Route | None:
        return next((route for route in self._routes if route.path_regex.match(path)), None)

    def count(self, change: int) -> None:
        """One more has arrived, or has taken its place or left."""
        self._n_entering += change


@dataclass(frozen=True)
class Refused:
    """A request that may not come in: its route, and what it is answered."""

    route: Route
    why: ProblemError


class Entry:
    """A request that has been let in, which counts from the end of its body to its place.

    Many may come before the first of them asks for its place in the queue: without it, all of these
    would be let in for the same free place, and refused when their forms have been parsed. Before
    its body is whole it does not count: clients that are slow would keep everybody else out.
    """

    def __init__(self, gate: Gate) -> None:
        """Let it in; see the class."""
        self._gate: Gate | None = gate
        self._counts = False

    def arrive(self) -> None:
        """Its body is whole; to be called again does no harm."""
        if self._gate is not None and not self._counts:
            self._counts = True
            self._gate.count(1)

    def end(self) -> None:
        """It asks for its place now, or has gone; to be called again does no harm."""
        if self._gate is not None and self._counts:
            self._gate.count(-1)
        self._gate = None

    def __del__(self) -> None:
        """Whatever became of it: a place that nobody comes for is not kept."""
        self.end()


class Admission:
    """Wrap an ASGI application: refuse at the gate.

    Under a crowd most requests are refused, and what each costs the event loop is taken from those
    that are answered: before the application it is a quarter less than at its routes.

    Args:
        app: The application.
        gate: Says what is refused.
    """

    def __init__(self, app: ASGIApp, *, gate: Gate) -> None:
        """Wrap the application; see the class."""
        self._app, self._gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (other ASGI events pass through)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope["state"]
        found = state.get(ENTRY)  # let in by its head already
        if found is None:
            found = self._gate.ask(scope["method"], own_path(scope))
        if isinstance(found, Refused):
            scope["route"] = found.route  # by which the request is counted and logged
            await _refuse(found.why, scope, receive, send)
            return
        state[ENTRY] = found
        if found is None:
            await self._app(scope, receive, send)
            return

        async def receive_and_note() -> Message:
            message = await receive()
            if not message.get("more_body", False):
                found.arrive()
            return message

        try:
            await self._app(scope, receive_and_note, send)
        finally:
            found.end()


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

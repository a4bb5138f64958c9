"""Load shedding: reject requests for predictions that would find no place in the queue."""

from collections.abc import Callable, Collection
from contextlib import ExitStack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ProblemError, error_response
from service.request_state import Reservation, request_state


class LoadSheddingMiddleware:
    """Reject early: parsing forms that will be rejected only makes an overload worse.

    An admitted request holds a reservation from the moment its body is complete. Before that it
    does not count, since slow clients would keep out all others.

    Args:
        app: The application.
        routes: The templates of the routes that need the model; all are called by POST.
        check_capacity: Returns the error to answer with, or None if there is room for an image.
        reserve: Makes a reservation, which is not yet held.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Collection[str],
        check_capacity: Callable[[], ProblemError | None],
        reserve: Callable[[], Reservation],
    ) -> None:
        self._app = app
        self._routes = frozenset(routes)
        self._check_capacity, self._reserve = check_capacity, reserve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (other ASGI events pass through)."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        state = request_state(scope)
        if state.route not in self._routes:
            await self._app(scope, receive, send)
            return
        error = self._check_capacity()
        if error is not None:
            await _reject(error, scope, receive, send)
            return
        state.reservation = reservation = self._reserve()
        with ExitStack() as held:

            async def receive_and_reserve() -> Message:
                message = await receive()
                if message["type"] == "http.request" and not message.get("more_body", False):
                    held.enter_context(reservation)
                return message

            await self._app(scope, receive_and_reserve, send)


async def _reject(error: ProblemError, scope: Scope, receive: Receive, send: Send) -> None:
    """Drop the body, then answer.

    If the server closed while the client writes, the client might never see the answer.
    """
    close = {}
    if Headers(scope=scope).get("expect", "").lower() == "100-continue":
        close = {"Connection": "close"}  # the client may send the body in spite of the answer
    else:
        try:
            while (await receive()).get("more_body", False):
                pass
        except ProblemError as too_large_or_slow:
            error = too_large_or_slow
    answer = error_response(scope, error)
    answer.headers.update(close)
    await answer(scope, receive, send)

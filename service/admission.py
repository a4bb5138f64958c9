"""Refusing before a body is read: when too much waits, parsing forms would only make it worse."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.problems import ProblemError

__all__ = ["AdmittedRoute"]


class AdmittedRoute(APIRoute):
    """A route that needs the model and a place in the queue: without either, its body is dropped.

    Dropped and not left: a server that closes while the client writes resets the connection, and
    the client may never see the answer.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The usual handler behind the check."""
        handle = super().get_route_handler()

        async def admit_and_handle(request: Request) -> Response:
            try:
                request.app.state.holder.get()
                request.app.state.lanes.check_room(1)
            except ProblemError:
                if request.headers.get("expect", "").lower() != "100-continue":
                    async for _ in request.stream():
                        pass
                raise
            return await handle(request)

        return admit_and_handle

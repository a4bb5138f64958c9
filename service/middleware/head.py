"""HEAD: what GET would answer, without the body (RFC 9110, section 9.3.2).

FastAPI has its routes answer what they are declared for alone, but many who watch a service ask by
HEAD whether it is up.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Head"]


class Head:
    """Wrap an ASGI application: to it, HEAD is GET.

    The server leaves out the body of what is answered to HEAD, and keeps its `Content-Length`.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap the application; see the class."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (other ASGI events pass through)."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        inner = {**scope, "method": "GET"}  # a copy: the server and the log know it by its own

        async def send_by_route(message: Message) -> None:
            if "route" in inner:
                scope["route"] = inner["route"]  # by which it is counted and logged
            await send(message)

        await self._app(inner, receive, send_by_route)

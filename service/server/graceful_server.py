"""The server: uvicorn, and a stop that loses no request.

A stop that is asked for by SIGTERM goes in steps: not ready, so that nobody is sent here any more;
a wait, in which whoever comes is answered still and told to come back elsewhere; the listener is
closed; what was accepted is finished. SIGINT, a person at a terminal, leaves out the wait.
"""

import asyncio
import contextlib
import math
import signal
import socket
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.model_lifecycle.provider import ModelHolder
from service.server.connection import connections
from service.server.express import Express
from service.settings import Settings

__all__ = ["Server"]

# Within which a connection that was accepted just before the listener was closed shows its request.
_LINGER_S = 0.5


class Server(uvicorn.Server):
    """One application behind one listener.

    Args:
        app: The application.
        settings: Its settings.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        """Do not listen yet; see the class."""
        state = app.state
        # A key is looked at before anything is told.
        express = None if settings.require_api_key else Express(state.gate, state.holder, state.metrics)
        super().__init__(
            uvicorn.Config(
                app,
                http=connections(settings.body_timeout_s, state.metrics, express),
                host=settings.host,
                port=settings.port,
                log_level=settings.log_level,
                log_config=None,
                ws="none",
                proxy_headers=False,  # the log tells who has connected, not whom a client names
                access_log=False,  # the guard tells more of each request
                server_header=False,
                # A client that does not read its answer must not hold up a stop for ever.
                timeout_graceful_shutdown=math.ceil(
                    settings.body_timeout_s + settings.request_timeout_s
                ),
            )
        )
        self._holder: ModelHolder = app.state.holder
        self._wait_s = settings.drain_delay_s
        self._stop_at = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; a second signal ends the wait."""
        holder = self._holder
        if sig == signal.SIGTERM and self._wait_s and holder.served and not holder.draining:
            holder.draining = True
            self._stop_at = time.monotonic() + self._wait_s
            return
        holder.draining = True
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Look ten times a second whether to stop."""
        if time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nobody any more, and finish what was accepted.

        uvicorn closes connections that have no request under way, the one whose request is on the
        wire among them: each is left the time to show it.
        """
        await self._close_listeners()
        deadline = time.monotonic() + _LINGER_S
        while self.server_state.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    async def _close_listeners(self) -> None:
        """Accept whoever has connected, then close at once.

        The system connects clients by itself and keeps them, with what they have sent, until the
        event loop comes round to accept them: a busy one may be late. Closing resets all of these.
        """
        loop = asyncio.get_running_loop()
        connected: list[socket.socket] = []
        for server in self.servers:
            listeners = [listener.dup() for listener in server.sockets]
            for listener in listeners:
                with contextlib.suppress(OSError), listener:  # until there is nobody more
                    while True:
                        connected.append(listener.accept()[0])
            server.close()
        for client in connected:
            client.setblocking(False)
            with contextlib.suppress(OSError):  # who has left again is no loss
                await loop.connect_accepted_socket(self._connection, client)

    def _connection(self) -> asyncio.Protocol:
        connection: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return connection

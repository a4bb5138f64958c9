"""uvicorn with a graceful shutdown that loses no request.

SIGTERM starts to drain: readiness fails, so that load balancers send no more requests. After a
delay, in which requests are still answered, the listener closes and what was accepted is finished.
SIGINT, a person at a terminal, skips the delay.
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

from service.model_lifecycle.provider import ModelProvider
from service.observability.metrics import Metrics
from service.server.connection import make_connection_class
from service.settings import Settings

# A connection accepted just before the listener closed has this long to show its request.
_LINGER_S = 0.5


class GracefulServer(uvicorn.Server):
    """One application behind one listener.

    Args:
        app: The application.
        settings: Its settings.
        provider: Learns that the service is draining.
        metrics: Count requests that are rejected before they reach the application.
    """

    def __init__(
        self, app: FastAPI, settings: Settings, provider: ModelProvider, metrics: Metrics
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=make_connection_class(settings.body_timeout_s, metrics),
                host=settings.host,
                port=settings.port,
                log_level=settings.log_level,
                log_config=None,
                ws="none",
                proxy_headers=False,  # the log names the peer, not whom a client claims to be
                access_log=False,  # RequestContextMiddleware logs more
                server_header=False,
                # A client that reads no answer must not hold up a stop for ever.
                timeout_graceful_shutdown=math.ceil(
                    settings.body_timeout_s + settings.request_timeout_s
                ),
            )
        )
        self._provider = provider
        self._drain_delay_s = settings.drain_delay_s
        self._stop_at = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start to drain; a second signal ends the delay."""
        provider = self._provider
        if sig == signal.SIGTERM and self._drain_delay_s and provider.is_ready:
            provider.is_draining = True
            self._stop_at = time.monotonic() + self._drain_delay_s
            return
        provider.is_draining = True
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Check ten times a second whether to stop."""
        if time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener and finish what was accepted.

        uvicorn closes connections without a request at once. Those whose request is on its way
        get a moment to show it.
        """
        await self._close_listeners()
        deadline = time.monotonic() + _LINGER_S
        while self.server_state.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    async def _close_listeners(self) -> None:
        """Accept every connection in the backlog, then close the listener.

        The kernel connects clients before the event loop accepts them; closing the listener would
        reset those.
        """
        loop = asyncio.get_running_loop()
        accepted: list[socket.socket] = []
        for server in self.servers:
            listeners = [listener.dup() for listener in server.sockets]
            for listener in listeners:
                with contextlib.suppress(OSError), listener:  # until the backlog is empty
                    while True:
                        accepted.append(listener.accept()[0])
            server.close()
        for client in accepted:
            client.setblocking(False)
            with contextlib.suppress(OSError):  # the client has left meanwhile
                await loop.connect_accepted_socket(self._make_connection, client)

    def _make_connection(self) -> asyncio.Protocol:
        connection: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return connection

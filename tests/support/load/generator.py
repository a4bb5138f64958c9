"""A light generator of HTTP/1.1 load, closed loop or open loop, that accounts for every answer.

It shares the CPUs with the service, so it implements what little of HTTP it needs: requests are
prepared bytes, and answers end by their `Content-Length`.
"""

import asyncio
import contextlib
import hashlib
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar, cast

__all__ = [
    "Abandoned",
    "Address",
    "Answer",
    "End",
    "Load",
    "counted",
    "digest",
    "percentile_ms",
    "run",
]

try:
    from uvloop import new_event_loop
except ImportError:  # there is none for Windows
    from asyncio import new_event_loop

Address: TypeAlias = tuple[str, int]

T = TypeVar("T")


_IDLE_S = 2.0  # idle connections are not used after this; the service closes them after 5
_TIMEOUT_S = 30.0  # longer than any answer may take: a later one is a failure


class End(StrEnum):
    """How a request ended: `KEPT` and `CLOSED` with a whole answer, the others without."""

    KEPT = "kept"  # the service keeps the connection
    CLOSED = "closed"  # it does not
    REFUSED = "refused"  # there never was a connection
    LOST = "lost"  # there was one, and it ended
    LATE = "late"  # nothing came in time
    LEFT = "left"  # the client did not wait


@dataclass(frozen=True)
class Abandoned:
    """A request whose client leaves `after_s` seconds after its first `n_bytes`."""

    request: bytes
    n_bytes: int
    after_s: float


def digest(_status: int, body: bytes) -> object:
    """Return a digest of a body: what is kept of an answer by default."""
    return hashlib.blake2b(body, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request.

    Attributes:
        index: Which of the requests it was.
        status: The HTTP status; 0 if no whole answer came.
        due: When the request was to be sent, on the monotonic clock.
        connected: When there was a connection to send it on; NaN if there never was.
        sent: When all of it had been handed to the system; NaN if it never was.
        latency_s: From `due` to the last byte of the answer, or to the end without one.
        new: Whether a connection was opened for it.
        kept: What the `read` of the load returned.
        end: How it ended.
    """

    index: int
    status: int
    due: float
    connected: float
    sent: float
    latency_s: float
    new: bool
    kept: object
    end: End


def run(load: Coroutine[Any, Any, T]) -> T:
    """Run a load on the event loop that uses the least CPU."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(load)


def percentile_ms(answers: Iterable[Answer], percent: float) -> float:
    """Return a percentile of the latencies in ms; NaN if there are none."""
    latencies = sorted(answer.latency_s for answer in answers)
    if not latencies:
        return math.nan
    return 1000 * latencies[max(0, math.ceil(percent / 100 * len(latencies)) - 1)]


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.idle_since = time.monotonic()
        self.open = False
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._whole = -1  # bytes of head and body together; -1 while the head is not whole
        self._head = 0
        self._close = False
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self._flushed: asyncio.Event | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods alone
        self._transport.set_write_buffer_limits(high=0)  # what is written is known to be sent
        self.open = True

    def pause_writing(self) -> None:
        self._flushed = asyncio.Event()

    def resume_writing(self) -> None:
        if self._flushed is not None:
            self._flushed.set()
        self._flushed = None

    async def send(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Write a request; returns the future answer."""
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        if not self.open:
            self._waiting.set_exception(ConnectionResetError())
            return self._waiting
        self._transport.write(request)
        if self._flushed is not None:
            await self._flushed.wait()
        return self._waiting

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._whole < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            self._head = end + 4
            self._whole = self._head + _content_length(head)
            self._close = b"\r\nconnection: close" in head
        if len(self._buffer) >= self._whole:
            status, body = int(self._buffer[9:12]), bytes(self._buffer[self._head : self._whole])
            del self._buffer[: self._whole]
            self._whole = -1
            if self._close:
                self.close()
            self.idle_since = time.monotonic()
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result((status, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self.resume_writing()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(exc or ConnectionResetError())

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Reset the connection."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()


def _content_length(head: bytes) -> int:
    start = head.find(b"\r\ncontent-length:")
    if start < 0:
        raise ValueError(f"an answer without a Content-Length: {head!r}")
    return int(head[start + 17 :].split(b"\r\n", 1)[0])


class Load:
    """Requests to one service, and their answers.

    Args:
        address: Host and port.
        requests: Whole HTTP/1.1 requests; request n of a load is `requests[n % len(requests)]`.
        read: Returns what to keep of an answer, from its status and body; default: a digest.
        seen: Called with each answer, to show progress.
        keep_alive: Whether connections are reused; if not, each request opens its own.
    """

    def __init__(
        self,
        address: Address,
        requests: Sequence[bytes | Abandoned],
        *,
        read: Callable[[int, bytes], object] = digest,
        seen: Callable[[Answer], object] = lambda _: None,
        keep_alive: bool = True,
    ) -> None:
        self._address, self._requests = address, requests
        self._read, self._seen = read, seen
        self._keep_alive = keep_alive
        self._idle: list[_Connection] = []
        self.answers: list[Answer] = []

    async def closed_loop(
        self,
        concurrency: int,
        *,
        seconds: float = math.inf,
        number: float = math.inf,
        until: asyncio.Event | None = None,
    ) -> list[Answer]:
        """Keep so many requests under way, until a time, a number or an event."""
        began, asked = time.monotonic(), 0

        async def ask_on() -> None:
            nonlocal asked
            while asked < number and time.monotonic() - began < seconds:
                if until is not None and until.is_set():
                    return
                index, asked = asked, asked + 1
                await self.ask(index, time.monotonic())

        await asyncio.gather(*(ask_on() for _ in range(concurrency)))
        return await self._finished()

    async def open_loop(
        self, per_second: float, seconds: float, *, connections: int
    ) -> list[Answer]:
        """Send requests on a schedule, whatever the answers.

        Args:
            per_second: Requests due each second, evenly spaced.
            seconds: How long.
            connections: The most under way at once. Others wait, and their latency counts from
                when they were due.
        """
        began, number = time.monotonic(), round(per_second * seconds)
        due: deque[tuple[int, float]] = deque()
        tasks: set[asyncio.Task[None]] = set()

        async def ask_on() -> None:
            while due:
                await self.ask(*due.popleft())

        for index in range(number):
            when = began + index / per_second
            if (wait := when - time.monotonic()) > 0.001:
                await asyncio.sleep(wait)
            elif index % 20 == 0:
                await asyncio.sleep(0)  # late, but answers must be read
            due.append((index, when))
            if len(tasks) < connections:
                task = asyncio.create_task(ask_on())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        return await self._finished()

    async def ask(self, index: int, due: float) -> Answer:
        """Send one request and record its answer."""
        request = self._requests[index % len(self._requests)]
        status, kept, end = 0, None, End.LOST
        connected = sent = math.nan
        connection: _Connection | None = None
        new = True
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                connection, new = await self._connection()
                connected = time.monotonic()
                if isinstance(request, Abandoned):
                    await self._abandon(connection, request)
                    end = End.LEFT
                else:
                    coming = await connection.send(request)
                    sent = time.monotonic()
                    status, body = await coming
                    kept = self._read(status, body)
                    end = End.KEPT if connection.open else End.CLOSED
        except TimeoutError:
            end = End.LATE
        except OSError:
            end = End.LOST if connection is not None else End.REFUSED
        if connection is not None:
            if end is End.KEPT and self._keep_alive:
                self._idle.append(connection)
            else:
                connection.close()
        latency_s = time.monotonic() - due
        answer = Answer(index, status, due, connected, sent, latency_s, new, kept, end)
        self.answers.append(answer)
        self._seen(answer)
        return answer

    async def _abandon(self, connection: "_Connection", request: Abandoned) -> None:
        """Send a request or its first part, and leave soon after."""
        coming = await connection.send(request.request[: request.n_bytes])
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(coming, request.after_s)
        connection.abort()

    async def _connection(self) -> tuple[_Connection, bool]:
        while self._idle:
            connection = self._idle.pop()
            if connection.open and time.monotonic() - connection.idle_since < _IDLE_S:
                return connection, False
            connection.close()
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, *self._address)
        return connection, True

    async def _finished(self) -> list[Answer]:
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        await asyncio.sleep(0.01)  # in which they close
        return self.answers


def counted(answers: Iterable[Answer]) -> dict[str, int]:
    """Count answers by status; those without one by how they ended."""
    return dict(Counter(str(answer.status or answer.end) for answer in answers))

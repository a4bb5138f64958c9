"""Refusing on the wire what would be refused anyway: the queue is full, or there is no model.

Under a crowd most requests are refused, and each costs the event loop what is then missing to those
that are let in. A small request for pictures, of the kind that a crowd sends, is refused by its
head: no task, no middleware and no line in the log are spent on it. Whatever is not so simple goes
the ordinary way, and is refused by `service.middleware.load_shedding`.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from service.middleware.load_shedding import Entry, Gate, Refused
from service.middleware.request_context import choose_request_id
from service.model_lifecycle.provider import ModelHolder
from service.observability.logging import with_fields
from service.observability.metrics import Metrics
from service.server.raw import raw_answer

__all__ = ["Express", "Refusal"]

_log = logging.getLogger("service")

_LARGEST = 256 * 1024  # bytes of a body that is dropped as it comes
# What makes a request no simple one: a body of unknown length, one that waits to be asked for, and
# a page of another origin, which may read the answer only if it is told so.
_NOT_SIMPLE = frozenset({b"transfer-encoding", b"expect", b"origin"})


@dataclass(frozen=True)
class Refusal:
    """A request that is refused once its body has been dropped."""

    refused: Refused
    path: str
    request_id: str
    began: float


class Express:
    """Decides about heads, and words the answers.

    Args:
        gate: Says what is refused.
        holder: Knows whether the service is about to stop.
        metrics: Where refusals are counted.
    """

    def __init__(self, gate: Gate, holder: ModelHolder, metrics: Metrics) -> None:
        """Nothing is refused yet; see the class."""
        self._gate, self._holder, self._metrics = gate, holder, metrics
        self._n_untold = 0

    def ask(
        self, method: bytes, url: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> Refusal | Entry | None:
        """Whether the request with this head is refused here, or let in; else None.

        Args:
            method: Its HTTP method.
            url: Path and query as they came.
            headers: Names in lower case, and values.
        """
        path = url.partition(b"?")[0].decode("ascii", "replace")
        found = self._gate.ask(method.decode("ascii"), path)
        if not isinstance(found, Refused):
            return found
        given = dict(headers)
        length = given.get(b"content-length", b"")
        if (
            not (length.isdigit() and len(length) < 10 and int(length) <= _LARGEST)
            or _NOT_SIMPLE & given.keys()
        ):
            return None
        request_id = choose_request_id(given.get(b"x-request-id", b"").decode("latin-1"))
        return Refusal(found, path, request_id, time.perf_counter())

    @property
    def draining(self) -> bool:
        """Whether the service is about to stop, and connections are not kept."""
        return self._holder.draining

    def answer(
        self, refusal: Refusal, default: Sequence[tuple[bytes, bytes]], *, keep: bool
    ) -> bytes:
        """The whole answer to a refused request, which is counted.

        Args:
            refusal: The request.
            default: Headers of every answer.
            keep: Whether the connection goes on.
        """
        route, why = refusal.refused.route, refusal.refused.why
        seconds = time.perf_counter() - refusal.began
        self._metrics.saw_request(route.path_format, "POST", why.status_code, seconds)
        self._tell()
        return raw_answer(
            refusal.path,
            refusal.request_id,
            why.status_code,
            why.detail,
            headers=why.headers,
            default=default,
            seconds=seconds,
            close=not keep,
        )

    def _tell(self) -> None:
        """Log how many were refused, once a second."""
        self._n_untold += 1
        if self._n_untold == 1:
            asyncio.get_running_loop().call_later(1.0, self._tell_all)

    def _tell_all(self) -> None:
        n, self._n_untold = self._n_untold, 0
        _log.info("turned away %d requests within a second", n, extra=with_fields(turned_away=n))

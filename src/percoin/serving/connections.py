"""The connections of a server: how many a client may have, and how long one may keep it waiting."""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import TimerHandle, Transport
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from percoin.serving.guard import RESERVE, client_of

log = logging.getLogger(__name__)

# A client that says nothing, or half of something, for so long is not waited for.
REQUEST_SECS = 5.0
# Nor is one that takes so long to read what has been written.
UNREAD_SECS = 20.0
# Of all clients together, and those beyond it, or beyond the limit of one client, that can
# still ask for health.
_CONNECTIONS = 256
_RESERVE = 32
_RESERVE_OF_ONE = 4
_SECS_BETWEEN_WARNINGS = 60.0


class Connections:
    """Which connections are open, by client; used by the thread of the event loop alone.

    Beyond the limit of a client, or of all, a few more are let in to ask for health. There
    the newest takes the place of the oldest, so that nobody can fill it by waiting.

    Args:
        of_one: How many one client may have.
        in_all: How many all clients may have.
        clock: In seconds.
    """

    def __init__(
        self,
        of_one: int,
        in_all: int = _CONNECTIONS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._of_one = of_one
        self._in_all = in_all
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._reserve: OrderedDict[object, tuple[str, Callable[[], None]]] = OrderedDict()
        self._warned_at = -_SECS_BETWEEN_WARNINGS

    def enter(self, client: str, key: object, close: Callable[[], None]) -> bool:
        """Let a connection in; whether it has a place, and not only one in the reserve.

        Args:
            client: As ``client_of`` names it.
            key: Of the connection.
            close: Ends it at once.
        """
        if self._counts[client] < self._of_one and self._counts.total() < self._in_all:
            self._counts[client] += 1
            return True
        self._warn(client)
        own = [other for other, (whose, _) in self._reserve.items() if whose == client]
        if len(own) >= _RESERVE_OF_ONE:
            self._end(own[0])
        elif len(self._reserve) >= _RESERVE:
            self._end(next(iter(self._reserve)))
        self._reserve[key] = (client, close)
        return False

    def leave(self, client: str, key: object, had_place: bool) -> None:
        """A connection has ended."""
        self._reserve.pop(key, None)
        if had_place:
            self._counts[client] -= 1
            self._counts += Counter()  # forgets those that have none any more

    def _end(self, key: object) -> None:
        _, close = self._reserve.pop(key)
        close()

    def _warn(self, client: str) -> None:
        if self._clock() - self._warned_at < _SECS_BETWEEN_WARNINGS:
            return
        self._warned_at = self._clock()
        n_own, n_all = self._counts[client], self._counts.total()
        log.warning(
            "CONNECTIONS are full: %s has %d of limits.connections=%d, all together %d of %d; "
            "more are only told the health",
            *(client, n_own, self._of_one, n_all, self._in_all),
        )


def make_protocol(of_one: int) -> Callable[..., asyncio.Protocol]:
    """What an HTTP server makes of each connection.

    Args:
        of_one: How many one client may have.
    """
    return partial(ImpatientProtocol, Connections(of_one))


class ImpatientProtocol(H11Protocol):
    """Closes a connection on which the rest of a request, or the reader of a response, stays away.

    Args:
        connections: All that are open.
        config: Of the HTTP server, as everything that follows.
        **server: What it passes on.
    """

    _request_timer: TimerHandle | None = None
    _unread_timer: TimerHandle | None = None

    def __init__(self, connections: Connections, config: uvicorn.Config, **server: Any) -> None:
        super().__init__(config, **server)
        self._all = connections
        self._whose = ""
        self._has_place = False

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        self._whose = client_of(self.client[0]) if self.client else ""
        self._has_place = self._all.enter(self._whose, self, transport.abort)
        if not self._has_place:
            self.app_state = self.app_state | {RESERVE: True}
        self._wait_for_request()

    def data_received(self, data: bytes) -> None:
        """A part of a request, or all of it."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting_for_request()
        elif self._request_timer is None:
            self._wait_for_request()

    def pause_writing(self) -> None:
        """The client reads more slowly than the responses are written, or not at all."""
        super().pause_writing()
        if self._unread_timer is None:
            self._wait_for_reader()

    def resume_writing(self) -> None:
        """It has read most of what was written."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_waiting_for_reader()

    def timeout_keep_alive_handler(self) -> None:
        """No further request has come."""
        super().timeout_keep_alive_handler()
        self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._stop_waiting_for_request()
        self._stop_waiting_for_reader()
        self._all.leave(self._whose, self, self._has_place)
        super().connection_lost(exc)

    def _wait_for_request(self) -> None:
        self._request_timer = self.loop.call_later(REQUEST_SECS, self._close)

    def _wait_for_reader(self) -> None:
        self._unread_timer = self.loop.call_later(UNREAD_SECS, self.transport.abort)

    def _close(self) -> None:
        """End the connection once all is read: who reads nothing would keep it open for good."""
        self.transport.close()
        if self._unread_timer is None:
            self._wait_for_reader()

    def _stop_waiting_for_request(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _stop_waiting_for_reader(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

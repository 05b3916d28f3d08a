"""Limits on connections: how many a client may open, and how long each may be idle."""

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

# A client has this long to send a complete request.
REQUEST_SECS = 5.0
# A client has this long to read a response.
UNREAD_SECS = 20.0
# Maximum connections of all clients together. Beyond this limit, or beyond the limit of one
# client, a reserve of connections can still ask for health.
_CONNECTIONS = 256
_RESERVE = 32
_RESERVE_OF_ONE = 4
_SECS_BETWEEN_WARNINGS = 60.0


class Connections:
    """Counts the open connections of each client; only the event loop's thread may use it.

    Beyond the limit of one client or of all, a small reserve of connections may ask for
    health. In a full reserve, a new connection replaces the oldest, so that idle connections
    cannot block it.

    Args:
        of_one: Maximum connections of one client.
        in_all: Maximum connections of all clients together.
        clock: Gives the time in seconds.
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
        """Add a connection; return True for a normal place, False for one in the reserve.

        Args:
            client: Client name from ``client_of``.
            key: Identifies the connection.
            close: Closes the connection at once.
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
        """Remove a connection that has ended."""
        self._reserve.pop(key, None)
        if had_place:
            self._counts[client] -= 1
            self._counts += Counter()  # removes clients without connections

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
            "more can only ask for /health",
            *(client, n_own, self._of_one, n_all, self._in_all),
        )


def make_protocol(of_one: int) -> Callable[..., asyncio.Protocol]:
    """Make the protocol factory for an HTTP server; it makes one protocol per connection.

    Args:
        of_one: Maximum connections of one client.
    """
    return partial(ImpatientProtocol, Connections(of_one))


class ImpatientProtocol(H11Protocol):
    """Closes a connection if its client is too slow to send a request or to read a response.

    Args:
        connections: Counts all open connections.
        config: Settings of the HTTP server.
        **server: Further arguments of uvicorn for ``H11Protocol``.
    """

    _request_timer: TimerHandle | None = None
    _unread_timer: TimerHandle | None = None

    def __init__(self, connections: Connections, config: uvicorn.Config, **server: Any) -> None:
        super().__init__(config, **server)
        self._all = connections
        self._whose = ""
        self._has_place = False

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Called when a client has connected."""
        super().connection_made(transport)
        self._whose = client_of(self.client[0]) if self.client else ""
        self._has_place = self._all.enter(self._whose, self, transport.abort)
        if not self._has_place:
            self.app_state = self.app_state | {RESERVE: True}
        self._wait_for_request()

    def data_received(self, data: bytes) -> None:
        """Called with a part of a request, or with all of it."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting_for_request()
        elif self._request_timer is None:
            self._wait_for_request()

    def pause_writing(self) -> None:
        """Called when the client reads responses too slowly, or not at all."""
        super().pause_writing()
        if self._unread_timer is None:
            self._wait_for_reader()

    def resume_writing(self) -> None:
        """Called when the client has read most of the written data."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_waiting_for_reader()

    def timeout_keep_alive_handler(self) -> None:
        """Called when no further request has come in time."""
        super().timeout_keep_alive_handler()
        self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection has ended."""
        self._stop_waiting_for_request()
        self._stop_waiting_for_reader()
        self._all.leave(self._whose, self, self._has_place)
        super().connection_lost(exc)

    def _wait_for_request(self) -> None:
        self._request_timer = self.loop.call_later(REQUEST_SECS, self._close)

    def _wait_for_reader(self) -> None:
        self._unread_timer = self.loop.call_later(UNREAD_SECS, self.transport.abort)

    def _close(self) -> None:
        """Close the connection once all data is read, at the latest after ``UNREAD_SECS``.

        Without this limit, a client that reads nothing could keep it open for ever.
        """
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

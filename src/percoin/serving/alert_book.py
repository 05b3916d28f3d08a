"""What has been alerted and what still waits for a receiver, kept on disk."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

from percoin.json_codec import decode, dumps, loads
from percoin.serving.alerts import Alert, Seen
from percoin.whole_file import write_whole

log = logging.getLogger(__name__)

# Of one receiver that takes none.
_MOST_WAITING = 1000


@dataclass(frozen=True)
class _Content:
    """The file: how each market stood, and by receiver the alerts that it has not taken."""

    seen: Mapping[str, Seen] = field(default_factory=dict)
    waiting: Mapping[str, tuple[Alert, ...]] = field(default_factory=dict)


class AlertBook:
    """What each market's last look saw, and what waits for each receiver.

    An alert and the look that found it are written in one file at once, so that a process that
    is killed neither loses one nor finds it again. Several threads may use it; one process at a
    time may.

    Args:
        path: Of the file; its folder exists.
        receivers: Their names; what waits for others is dropped.

    Raises:
        OSError: The file cannot be read.
    """

    def __init__(self, path: Path, receivers: Iterable[str]) -> None:
        self._path = path
        self._lock = Lock()
        found = _read(path)
        waiting = {name: tuple(found.waiting.get(name, ())) for name in receivers}
        self._content = replace(found, waiting=waiting)

    def seen(self, market: str) -> Seen:
        """How a market stood at the last look."""
        return self._content.seen.get(market, Seen())

    def waiting(self, receiver: str) -> tuple[Alert, ...]:
        """What a receiver has not taken yet, oldest first."""
        return self._content.waiting[receiver]

    def note(self, seen: Mapping[str, Seen], alerts: Sequence[Alert]) -> int:
        """Write down a look and its alerts; return how many older ones had to be dropped.

        Raises:
            OSError: It cannot be written; nothing has changed, so the next look finds the same.
        """
        with self._lock:
            before = self._content
            all_waiting = {name: (*kept, *alerts) for name, kept in before.waiting.items()}
            waiting = {name: kept[-_MOST_WAITING:] for name, kept in all_waiting.items()}
            self._write(_Content({**before.seen, **seen}, waiting))
            return sum(map(len, all_waiting.values())) - sum(map(len, waiting.values()))

    def sent(self, receiver: str, alerts: Iterable[Alert]) -> None:
        """Note what a receiver has taken.

        Raises:
            OSError: It cannot be written. This process does not send it again; the next may.
        """
        ids = {alert.id for alert in alerts}
        with self._lock:
            kept = tuple(one for one in self._content.waiting[receiver] if one.id not in ids)
            after = replace(self._content, waiting={**self._content.waiting, receiver: kept})
            try:
                self._write(after)
            finally:
                self._content = after

    def _write(self, content: _Content) -> None:
        write_whole(self._path, dumps(content))
        self._content = content


def _read(path: Path) -> _Content:
    try:
        return decode(_Content, loads(path.read_bytes()))
    except FileNotFoundError:
        return _Content()
    except ValueError as error:
        log.warning("ALERTS: %s is broken and begins anew: %s", path.name, error)
        return _Content()

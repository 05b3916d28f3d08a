"""What was done to a market's versions, one line of JSON an event (``history.jsonl``).

A line is written and synced before its change is made. So no change lacks its line; where
a process was killed in between, the next one finds another version served than the last
line says, and notes that too.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from percoin import json_codec
from percoin.registry.bounds import MOST_HISTORY_BYTES
from percoin.registry.layout import MarketFolder


class Action(StrEnum):
    """What can be done to the versions of a market."""

    EXPORT = "export"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    WITHDRAW = "withdraw"
    PRUNE = "prune"
    NOTICE = "notice"


# After these an earlier version may be served again.
_GOING_BACK = {Action.ROLLBACK, Action.WITHDRAW, Action.NOTICE}


@dataclass(frozen=True, kw_only=True)
class Event:
    """A change that was made, or one that was noticed.

    Attributes:
        time: When it began, in UTC with microseconds.
        action: What was done.
        versions: To which versions.
        why: In words.
        before: The version served until then, if any.
        after: The version served from then on, if any.
    """

    time: str
    action: Action
    versions: tuple[str, ...]
    why: str
    before: str | None = None
    after: str | None = None


@dataclass(frozen=True)
class VersionHistory:
    """All events, oldest first, and the numbers of the lines that cannot be read."""

    events: tuple[Event, ...] = ()
    damaged_lines: tuple[int, ...] = ()

    def served_before(self, served: str | None) -> list[str]:
        """Which versions were served before ``served``, the last one first.

        Changes that a rollback undid are left out, so that rolling back twice leads
        further back and not forward again.
        """
        trail: list[str] = []
        for event in self.events:
            if event.before is not None and not trail:
                trail.append(event.before)
            if event.action is Action.ROLLBACK and event.after not in trail:
                # Further back than the history reaches.
                trail.clear()
            _follow(trail, event.after, event.action in _GOING_BACK)
        _follow(trail, served, goes_back=True)
        return trail[-2::-1]


def _follow(trail: list[str], served: str | None, goes_back: bool) -> None:
    if served is None or (trail and trail[-1] == served):
        return
    if goes_back and served in trail:
        while trail[-1] != served:
            trail.pop()
    else:
        trail.append(served)


def read_history(market: MarketFolder) -> VersionHistory:
    """Read the history of a market; a line that is not finished is not part of it yet.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        descriptor = _open(market, os.O_RDONLY)
    except FileNotFoundError:
        return VersionHistory()
    with os.fdopen(descriptor, "rb") as file:
        return _parse(file.read(MOST_HISTORY_BYTES))


def append(market: MarketFolder, event: Event) -> None:
    """Add an event, synced; only for the holder of the market's lock.

    Raises:
        OSError: The file cannot be written; readers ignore a part of a line, and the
            next writer removes it.
    """
    with os.fdopen(_open(market, os.O_RDWR | os.O_CREAT), "r+b") as file:
        content = file.read()
        file.seek(content.rfind(b"\n") + 1)
        file.truncate()
        events = [*_noticed(_parse(content).events[-1:], event), event]
        file.write("".join(json_codec.dumps(entry, indent=None) for entry in events).encode())
        file.flush()
        os.fsync(file.fileno())


def now_text() -> str:
    """The current time as events write it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _noticed(last: Iterable[Event], event: Event) -> list[Event]:
    why = "not what the line above says: that change was interrupted, or percoin did not write this"
    return [
        Event(
            time=event.time,
            action=Action.NOTICE,
            versions=(),
            why=why,
            before=entry.after,
            after=event.before,
        )
        for entry in last
        if entry.after != event.before
    ]


def _parse(content: bytes) -> VersionHistory:
    events, damaged = [], []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            events.append(json_codec.decode(Event, json_codec.loads(line)))
        except ValueError:
            damaged.append(number)
    return VersionHistory(tuple(events), tuple(damaged))


def _open(market: MarketFolder, flags: int) -> int:
    # Without blocking: opening a pipe would wait for its other end forever.
    descriptor = os.open(market.history, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(market.history))
    if status.st_size > MOST_HISTORY_BYTES:
        os.close(descriptor)
        raise OSError(errno.EFBIG, "too large for a history", str(market.history))
    return descriptor

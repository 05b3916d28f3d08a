"""Exact dates of the bars to use: ``start`` and ``end``."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from typing import Any

from percoin.config.fields import Effect, When, require, setting
from percoin.errors import ConfigError
from percoin.printable import printable
from percoin.types import DAY_MILLISECONDS

_MOST_SHOWN = 40


def start_date(affects: Effect | None = None) -> Any:
    """A field: the first day of the bars in use."""
    line = "first day of the rows (UTC), such as 2024-01-01; in place of history_days"
    # The pool's cuts say where rows begin.
    return setting(line, default=None, affects=affects, used=When(unless=("init=pooled",)))


def end_date(affects: Effect | None = None) -> Any:
    """A field: the day before which the bars in use end."""
    line = "day before which the bars end (UTC), itself not included; null is the newest bar"
    return setting(line, default=None, affects=affects)


def first_test_date() -> Any:
    """A field: the moment before which no test row opens."""
    line = (
        "test rows open no earlier than this moment (UTC), such as 2025-01-01T06:00; a search sets "
        "it, since earlier rows chose its settings"
    )
    return setting(
        line,
        default=None,
        affects=Effect.JUDGEMENT,
        # The cuts of a pool are moments of its own.
        used=When(unless=("recipe=pooled", "init=pooled")),
    )


def moment_ms(name: str, text: str | None) -> int | None:
    """A date or time in milliseconds since 1970-01-01 UTC; a day begins at midnight UTC.

    Args:
        name: Of the setting, for the message.
        text: As ISO 8601 has it; UTC without a zone. None stays None.

    Raises:
        ConfigError: It is no date.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{name}={printable(text, _MOST_SHOWN)} is not a day; write it like 2025-05-01"
        ) from None


def end_ms(name: str, text: str | None) -> int | None:
    """When a day, that day included, or a time ends, in milliseconds since 1970-01-01 UTC.

    Args:
        name: Of the setting, for the message.
        text: As for ``moment_ms``; a date without a time is the whole day.

    Raises:
        ConfigError: It is no date.
    """
    moment = moment_ms(name, text)
    if text is None or moment is None:
        return None
    try:
        date.fromisoformat(text)
    except ValueError:
        return moment
    return moment + DAY_MILLISECONDS


def check_dates(start: str | None, end: str | None, test_from: str | None = None) -> None:
    """Refuse dates that no bars, or no test rows, can lie between.

    Raises:
        ConfigError: One is no date or in the future, or the end is not after the others.
    """
    told = {"start": start, "end": end, "test_from": test_from}
    moments = {name: moment_ms(name, text) for name, text in told.items()}
    now = time.time() * 1000
    for name, text in told.items():
        moment = moments[name]
        require(
            moment is None or moment <= now,
            f"{name}={text} is in the future; "
            + ("leave it out to use the newest bars" if name == "end" else "give an earlier day"),
        )
    first, last = moments["start"], moments["end"]
    require(
        first is None or last is None or first < last,
        f"start={start} is not before end={end}; bars from start up to end are used, the day of "
        "end not included",
    )
    first = moments["test_from"]
    require(
        first is None or last is None or first < last,
        f"test_from={test_from} is not before end={end}, so that there are no test rows; give an "
        "earlier moment",
    )

"""What the fields of a manifest are checked with, and how it writes times."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
# The nanoseconds of pandas end there.
_FIRST_YEAR, _LAST_YEAR = 1970, 2261


def require(condition: bool, reason: str) -> None:
    """Refuse a field.

    Raises:
        ValueError: The condition does not hold.
    """
    if not condition:
        raise ValueError(reason)


def require_sha256(text: str, reason: str = "sha256 is not one") -> None:
    """Refuse a text that is no sha256 in lower-case hex."""
    require(_SHA256_PATTERN.fullmatch(text) is not None, reason)


def time_text(moment: datetime) -> str:
    """Write a time as manifests do, in UTC and whole seconds: ``2025-08-31T23:45:00Z``."""
    return moment.astimezone(UTC).strftime(_TIME_FORMAT)


def open_time_text(open_time: int) -> str:
    """The same for milliseconds since 1970-01-01 UTC, as bars count them."""
    return time_text(datetime.fromtimestamp(open_time // 1000, UTC))


def parse_time(text: str) -> datetime:
    """Read what ``time_text`` wrote.

    Raises:
        ValueError: It is written otherwise, or lies in no year of a market.
    """
    moment = datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
    # strptime also takes fewer digits; other readers do not.
    require(time_text(moment) == text, f"{text!r} is not a moment as manifests write it")
    require(_FIRST_YEAR <= moment.year <= _LAST_YEAR, f"{text} lies in no year of a market")
    return moment

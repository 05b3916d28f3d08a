"""What a manifest says of the pool of markets whose network a model is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

_SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PooledMarket:
    """The bars of one market of a pool.

    Attributes:
        sha256: ``Bars.sha256()`` of those in use.
        first_open_time: Of the first of them (UTC).
        last_open_time: Of the last.
        is_seen: Whether the network learnt from its train rows.
    """

    sha256: str
    first_open_time: str
    last_open_time: str
    is_seen: bool

    def __post_init__(self) -> None:
        _require(_SHA256_PATTERN.fullmatch(self.sha256) is not None, "sha256 is not one")
        first, last = (_milliseconds(text) for text in (self.first_open_time, self.last_open_time))
        _require(first <= last, "last_open_time lies before first_open_time")


@dataclass(frozen=True)
class PoolRecord:
    """The pool of a model that was trained on many markets, or that began as such a one.

    Attributes:
        first_time: Rows of any market open no earlier (UTC).
        validation_time: Validation begins then, for all markets.
        test_time: The test part begins then.
        markets: All of them by symbol, those left out of the training too.
        started_from: The version of the pooled model that a model of one market began with;
            None of the pooled model itself.
        improved: Whether its validation log-loss fell by that; if not, it has the pooled
            weights as they were. None of the pooled model itself.
    """

    first_time: str
    validation_time: str
    test_time: str
    markets: Mapping[str, PooledMarket]
    started_from: str | None = None
    improved: bool | None = None

    def __post_init__(self) -> None:
        moments = self.moments()
        _require(moments[0] < moments[1] < moments[2], "the cuts are not in time order")
        _require(len(self.seen) > 1, "fewer than two markets were trained on")
        both = (self.started_from is None, self.improved is None)
        _require(both[0] == both[1], "started_from and improved belong together")

    def moments(self) -> tuple[int, int, int]:
        """The three cuts in milliseconds since 1970-01-01 UTC."""
        texts = (self.first_time, self.validation_time, self.test_time)
        first, validation, test = (_milliseconds(text) for text in texts)
        return first, validation, test

    @property
    def seen(self) -> tuple[str, ...]:
        """The markets that the network learnt from, in the order of the training."""
        return tuple(name for name, market in self.markets.items() if market.is_seen)


def _milliseconds(text: str) -> int:
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1000


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise ValueError(reason)

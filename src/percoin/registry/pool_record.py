"""What a manifest says about the pool of markets that its network was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from percoin.registry.field_checks import parse_time, require, require_sha256
from percoin.types import is_symbol


@dataclass(frozen=True)
class PooledMarket:
    """The bars of one market of a pool.

    Attributes:
        sha256: ``Bars.sha256()`` of the bars in use.
        first_open_time: Of the first of these bars (UTC).
        last_open_time: Of the last.
        is_seen: Whether the network was trained on its train rows.
    """

    sha256: str
    first_open_time: str
    last_open_time: str
    is_seen: bool

    def __post_init__(self) -> None:
        require_sha256(self.sha256)
        first, last = (_milliseconds(text) for text in (self.first_open_time, self.last_open_time))
        require(first <= last, "last_open_time lies before first_open_time")


@dataclass(frozen=True)
class PoolRecord:
    """The pool of a model that was trained on many markets, or that started from such a model.

    Attributes:
        first_time: No row of any market opens earlier (UTC).
        validation_time: When validation begins, for all markets.
        test_time: When the test part begins.
        markets: All of them by symbol, also those left out of the training.
        started_from: The version of the pooled model that a model of one market started
            from; None for the pooled model itself.
        improved: Whether training on that market lowered the validation log-loss; if not, the
            weights are the pooled ones. None for the pooled model itself.
    """

    first_time: str
    validation_time: str
    test_time: str
    markets: Mapping[str, PooledMarket]
    started_from: str | None = None
    improved: bool | None = None

    def __post_init__(self) -> None:
        moments = self.moments()
        require(moments[0] < moments[1] < moments[2], "the cuts are not in time order")
        require(len(self.seen) > 1, "fewer than two markets were trained on")
        # Commands that are printed to be copied name them.
        require(all(map(is_symbol, self.markets)), "a name under markets is no market")
        both = (self.started_from is None, self.improved is None)
        require(both[0] == both[1], "started_from and improved belong together")

    def moments(self) -> tuple[int, int, int]:
        """The three cuts in milliseconds since 1970-01-01 UTC."""
        texts = (self.first_time, self.validation_time, self.test_time)
        first, validation, test = (_milliseconds(text) for text in texts)
        return first, validation, test

    @property
    def seen(self) -> tuple[str, ...]:
        """The markets that the network was trained on, in the order of the training."""
        return tuple(name for name, market in self.markets.items() if market.is_seen)


def _milliseconds(text: str) -> int:
    return int(parse_time(text).timestamp()) * 1000

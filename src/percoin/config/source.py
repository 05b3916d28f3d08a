"""Where bars come from: the group ``source``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from omegaconf import MISSING

from percoin.bars.sources.base import BarSource
from percoin.bars.sources.binance.source import MARKETS, ExchangeSource
from percoin.bars.sources.binance.transfer import Patience, is_address
from percoin.bars.sources.files import FilesSource
from percoin.bars.sources.playing import PlayingSource
from percoin.bars.sources.sample import SampleSource
from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.config.fields import MOST_SEED, file_path, number, require

# One page of an exchange's API; a prediction with a lookback of 60 takes 961.
NEWEST_BARS = 1000


@dataclass
class SourceConfig:
    """Where bars come from; one subclass per origin."""

    # Of the group source.
    option: ClassVar[str]

    def build(self, store: BarStore, n_bars: int = NEWEST_BARS, replace: bool = False) -> BarSource:
        """The source itself.

        Args:
            store: What ``data/bars`` holds.
            n_bars: How many of the newest bars a source that fetches brings there.
            replace: Whether such a source may replace stored bars of another one;
                if not, they are what it gives.
        """
        raise TypeError(f"{type(self).__name__} only gathers what its subclasses share")

    def build_live(self, store: BarStore) -> Callable[[int], BarSource]:
        """The source for a server that asks for the newest bars again and again.

        Args:
            store: As for ``build``.

        Returns:
            The source that brings so many of the newest bars.
        """
        return lambda n_bars: self.build(store, n_bars)


@dataclass
class StoreConfig(SourceConfig):
    """Bars that ``data/bars`` already holds."""

    option: ClassVar[str] = "store"

    def build(self, store: BarStore, n_bars: int = NEWEST_BARS, replace: bool = False) -> BarSource:
        """The store."""
        return store


@dataclass
class FilesConfig(SourceConfig):
    """A folder of Parquet, Feather, CSV or JSON files."""

    option: ClassVar[str] = "files"

    path: str = file_path()

    def build(self, store: BarStore, n_bars: int = NEWEST_BARS, replace: bool = False) -> BarSource:
        """The folder or file at ``path``."""
        return FilesSource(Path(self.path))


@dataclass
class SampleConfig(SourceConfig):
    """The real bars of 2017-2019 that an installed package ships."""

    option: ClassVar[str] = "sample"

    def build(self, store: BarStore, n_bars: int = NEWEST_BARS, replace: bool = False) -> BarSource:
        """The installed package."""
        return SampleSource()


@dataclass
class SimulatedConfig(SourceConfig):
    """Bars made from a seed."""

    option: ClassVar[str] = "simulated"

    seed: int = number(0, MOST_SEED)
    n_bars: int = number(1, 10_000_000)
    edge: float = number(0, 1)

    def build(self, store: BarStore, n_bars: int = NEWEST_BARS, replace: bool = False) -> BarSource:
        """The generator."""
        return SimulatedSource(seed=self.seed, n_bars=self.n_bars, edge=self.edge)

    def build_live(self, store: BarStore) -> Callable[[int], BarSource]:
        """A market of the same kind whose bars close as time goes by."""
        playing = PlayingSource(SimulatedSource(self.seed, self.n_bars, self.edge))
        return lambda n_bars: playing


@dataclass
class BinanceConfig(SourceConfig):
    """An exchange: history from Binance's archive, the newest bars from the API."""

    option: ClassVar[str] = "binance"

    market: str = MISSING
    exchange: str = MISSING
    archive_url: str | None = None
    api_url: str | None = None
    parallel: int = number(1, 64)
    attempts: int = number(1, 100)
    timeout_secs: float = number(above=0, most=3600)

    def __post_init__(self) -> None:
        require(
            self.market in MARKETS,
            f"source.market={self.market} must be one of {', '.join(MARKETS)}",
        )
        require(
            re.fullmatch(r"[a-z0-9]+", self.exchange) is not None,
            f"source.exchange={self.exchange} is not a name as ccxt spells it, such as binance",
        )
        for name in ("archive_url", "api_url"):
            url = getattr(self, name)
            require(
                url is None or (re.match(r"https?://\S+$", url) is not None and is_address(url)),
                f"source.{name}={url} must begin with http:// or https:// and name a host",
            )

    def build(self, store: BarStore, n_bars: int = NEWEST_BARS, replace: bool = False) -> BarSource:
        """The exchange, with the store that it keeps up to date."""
        return ExchangeSource(
            store,
            n_bars,
            exchange=self.exchange,
            market=self.market,
            archive_url=self.archive_url,
            api_url=self.api_url,
            replace=replace,
            n_parallel=self.parallel,
            patience=Patience(timeout_secs=self.timeout_secs, attempts=self.attempts),
        )

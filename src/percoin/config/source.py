"""Where bars come from: the group ``source``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from percoin.bars.sources.binance.source import MARKETS
from percoin.bars.sources.binance.transfer import is_address
from percoin.config.fields import MOST_SEED, file_path, number, require


@dataclass
class SourceConfig:
    """Where bars come from; one subclass per origin."""

    # Of the group source.
    option: ClassVar[str]


@dataclass
class StoreConfig(SourceConfig):
    """Bars that ``data/bars`` already holds."""

    option: ClassVar[str] = "store"


@dataclass
class FilesConfig(SourceConfig):
    """A folder of Parquet, Feather, CSV or JSON files."""

    option: ClassVar[str] = "files"

    path: str = file_path()


@dataclass
class SampleConfig(SourceConfig):
    """The real bars of 2017-2019 that an installed package ships."""

    option: ClassVar[str] = "sample"


@dataclass
class SimulatedConfig(SourceConfig):
    """Bars made from a seed."""

    option: ClassVar[str] = "simulated"

    seed: int = number(0, MOST_SEED)
    n_bars: int = number(1, 10_000_000)
    edge: float = number(0, 1)


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

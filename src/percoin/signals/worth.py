"""Measured quality ("worth") of each rule on a market, kept in one small file for each market.

The rules of the chain are fixed, so every stored bar tests them. ``signals.measure`` writes
these files; the chain of sources reads them.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from percoin import json_codec
from percoin.bars.schema import SIMULATED, is_simulated, kind_of_origin
from percoin.commands import command
from percoin.errors import ConfigError
from percoin.evaluation.gate import SHOWN
from percoin.intervals import Interval, KnownInterval, interval_text
from percoin.printable import printable
from percoin.registry.field_checks import parse_time, require
from percoin.types import LevelsReached, Source, Timeframe, Worth, check_symbol
from percoin.whole_file import write_whole

log = logging.getLogger(__name__)

FOLDER = "source_worth"
FORMAT_VERSION = 1
# A file of three rules takes 2 KB.
_MOST_BYTES = 2**20
# Of a file's name; a file of another program may name its source at any length.
_MOST_KIND_CHARS = 40


class SourceVerdict(StrEnum):
    """Result of comparing the directions of a source with a fair coin."""

    BETTER = "better_than_coin"
    LEVEL = "not_told_from_coin"
    WORSE = "worse_than_coin"
    TOO_FEW = "too_few_answers"

    @property
    def words(self) -> str:
        """The verdict in words for people."""
        return _spaced(self.value)

    @classmethod
    def of(cls, hit_rate: Interval | None) -> SourceVerdict:
        """The verdict that the interval of a hit rate gives."""
        if hit_rate is None or hit_rate.ends is None:
            return cls.TOO_FEW
        lower, upper = hit_rate.ends
        if upper < 0.5:
            return cls.WORSE
        return cls.BETTER if lower > 0.5 else cls.LEVEL


@dataclass(frozen=True)
class SourceWorth:
    """Measured quality of one source on one market.

    Attributes:
        verdict: Verdict on its directions.
        n_answers: Bars with the answer LONG or SHORT.
        n_moves: Bars of these whose label is LONG or SHORT too.
        hit_rate: Share of ``n_moves`` where answer and label agree; None if too few.
        levels: How often stop and targets of its answers were reached; None if too few, and in
            older files.
    """

    verdict: SourceVerdict
    n_answers: int
    n_moves: int
    hit_rate: KnownInterval | None = None
    levels: LevelsReached | None = None

    def __post_init__(self) -> None:
        require(0 <= self.n_moves <= self.n_answers, "n_moves are not among n_answers")
        rate = self.hit_rate
        if rate is not None:
            require(0 <= rate.value <= 1 and rate.lower <= rate.upper, "hit_rate is no share")


@dataclass(frozen=True)
class MeasuredBars:
    """The bars that sources were measured on; times are those of ``time_text``.

    Attributes:
        origin: Source of the bars.
        n_bars: Number of bars.
        first_open_time: Open time of the first bar.
        last_open_time: Open time of the last bar.
        sha256: Hash of their times and values.
    """

    origin: str
    n_bars: int
    first_open_time: str
    last_open_time: str
    sha256: str


@dataclass(frozen=True)
class MarketWorth:
    """Measured quality of every rule on one market; the content of its file.

    Attributes:
        format_version: Version of the file format.
        symbol: The market.
        tf: Timeframe of the market.
        measured_at: Time of the measurement, as ``time_text`` writes it.
        bars: The measured bars.
        label_rule: Decides whether a direction is right, in the form of ``LabelRule.to_json``.
        confidence: Confidence level of the intervals; more sources make them wider.
        sources: Results by the source's name in settings.
    """

    format_version: int
    symbol: str
    tf: Timeframe
    measured_at: str
    bars: MeasuredBars
    label_rule: Mapping[str, object]
    confidence: float
    sources: Mapping[str, SourceWorth]

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise ValueError(f"format_version is {self.format_version}, not {FORMAT_VERSION}")
        parse_time(self.bars.last_open_time)

    def of(self, source: Source) -> Worth:
        """Return the worth of one source, to attach to its answer."""
        found = self.sources.get(source.option)
        if found is None:
            return Worth()
        until = parse_time(self.bars.last_open_time) + self.tf.timedelta
        return Worth(
            found.verdict.value,
            found.hit_rate,
            found.n_moves,
            until,
            reached=found.levels,
        )


class WorthFiles:
    """The files of all markets; each market has one for each kind of bars.

    The kind is the exchange and type of market, ``files``, ``sample`` or ``simulated``: what was
    measured on one says nothing of the others.

    Args:
        data_dir: The files are in their own folder below it.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def path(self, symbol: str, timeframe: Timeframe, origin: str) -> Path:
        """Return the path of a market's file, such as ``BTCUSDT/15m-binance-spot.json``.

        Args:
            symbol: The market.
            timeframe: Timeframe of the market.
            origin: Source of its bars.

        Raises:
            ConfigError: The symbol is invalid.
        """
        kind = re.sub("[^a-z0-9]+", "-", _kind(origin).lower())[:_MOST_KIND_CHARS]
        folder = self._data_dir / FOLDER / check_symbol(symbol)
        return folder / f"{timeframe.value}-{kind}.json"

    def mark(self, symbol: str, timeframe: Timeframe, origin: str) -> object:
        """Return a value that changes when the file changes; None without a file."""
        try:
            state = self._found(symbol, timeframe, origin).stat()
        except (OSError, ConfigError):
            return None
        return state.st_ino, state.st_mtime_ns

    def read(self, symbol: str, timeframe: Timeframe, origin: str) -> MarketWorth | None:
        """Read a measurement on this kind of bars.

        None if there is none or it cannot be read (then logged).
        """
        try:
            content = _read_bytes(self._found(symbol, timeframe, origin))
            worth = json_codec.decode(MarketWorth, json_codec.loads(content))
            if (worth.symbol, worth.tf) != (symbol, timeframe):
                raise ValueError(f"it is that of {worth.symbol} {worth.tf}")
        except (FileNotFoundError, NotADirectoryError, ConfigError):
            return None
        except (OSError, ValueError) as error:
            log.warning(
                "%s %s: what its sources are worth cannot be read (%s); measure it again: %s",
                *(symbol, timeframe.value, printable(str(error))),
                measure_command(symbol, timeframe, data_dir=self._data_dir),
            )
            return None
        return worth if _kind(worth.bars.origin) == _kind(origin) else None

    def _found(self, symbol: str, timeframe: Timeframe, origin: str) -> Path:
        """The path of a market's file, or of the one that older versions wrote for real bars."""
        path = self.path(symbol, timeframe, origin)
        return path if path.exists() else path.with_name(f"{timeframe.value}.json")

    def write(self, worth: MarketWorth) -> Path:
        """Write a measurement and replace the older one.

        Raises:
            OSError: The file cannot be written.
        """
        path = self.path(worth.symbol, worth.tf, worth.bars.origin)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json_codec.dumps(worth))
        return path


def worth_text(worth: Worth) -> str:
    """Format a worth for people: the verdict, then how often its directions were right."""
    words = SHOWN.get(worth.verdict) or _spaced(worth.verdict)
    if worth.hit_rate is not None and worth.until is not None:
        rate = interval_text(worth.hit_rate, decimals=3, signed=False)
        words = (
            f"{words}; where the price moved after its LONG or SHORT, it was right in {rate} "
            f"of {worth.n_moves:,} cases (bars until {worth.until:%Y-%m-%d})"
        )
    return "; ".join(filter(None, (words, worth.refit)))


def _kind(origin: str) -> str:
    """As ``kind_of_origin``, but simulated markets are one kind: a server's changes each year."""
    return SIMULATED if is_simulated(origin) else kind_of_origin(origin)


def _spaced(verdict: str) -> str:
    return verdict.replace("_coin", " a coin").replace("_", " ")


def measure_command(symbol: str, timeframe: Timeframe, *words: str, data_dir: Path) -> str:
    """Return the command that measures the sources of a market.

    Args:
        symbol: The market.
        timeframe: Timeframe of the market.
        words: ``KEY=VALUE`` words that choose the source of its bars; none for the stored bars.
        data_dir: Folder that the measurement is kept in.
    """
    market = (f"symbol={symbol}", f"tf={timeframe.value}")
    return command("python -m percoin.signals", *market, *words, data_dir=data_dir)


def _read_bytes(path: Path) -> bytes:
    """Read a file that anybody may have put there.

    Raises:
        OSError: The system refuses to read it.
        ValueError: It is no regular file, or too large.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        require(stat.S_ISREG(status.st_mode), "it is no regular file")
        require(status.st_size <= _MOST_BYTES, f"it has more than {_MOST_BYTES} bytes")
        return file.read(_MOST_BYTES)


def _open_at_once(path: str, flags: int) -> int:
    # Opening a pipe would otherwise wait for its writer forever.
    return os.open(path, flags | os.O_NONBLOCK)

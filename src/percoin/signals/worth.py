"""Measured quality ("worth") of each rule on a market, kept in one small file for each market.

The rules of the chain are fixed, so every stored bar tests them. ``signals.measure`` writes
these files; the chain of sources reads them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from percoin import json_codec
from percoin.bars.schema import is_simulated
from percoin.commands import command
from percoin.errors import ConfigError
from percoin.intervals import KnownInterval, interval_text
from percoin.printable import printable
from percoin.types import Source, Timeframe, Worth, check_symbol
from percoin.whole_file import write_whole

log = logging.getLogger(__name__)

FOLDER = "source_worth"
FORMAT_VERSION = 1


# Words for people for each stored verdict of the gate on a model.
_MODEL_WORDS = {
    "accepted": "skill shown",
    "rejected": "no skill shown",
    "untestable": "too few rows to tell",
}


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


@dataclass(frozen=True)
class SourceWorth:
    """Measured quality of one source on one market.

    Attributes:
        verdict: Verdict on its directions.
        n_answers: Bars with the answer LONG or SHORT.
        n_moves: Bars of these whose label is LONG or SHORT too.
        hit_rate: Share of ``n_moves`` where answer and label agree; None if too few.
    """

    verdict: SourceVerdict
    n_answers: int
    n_moves: int
    hit_rate: KnownInterval | None = None


@dataclass(frozen=True)
class MeasuredBars:
    """The bars that sources were measured on; times are ISO 8601 with a zone.

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
        measured_at: Time of the measurement, ISO 8601 with a zone.
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
        if datetime.fromisoformat(self.bars.last_open_time).tzinfo is None:
            raise ValueError("last_open_time has no zone")

    def of(self, source: Source) -> Worth:
        """Return the worth of one source, to attach to its answer."""
        found = self.sources.get(source.option)
        if found is None:
            return Worth()
        until = datetime.fromisoformat(self.bars.last_open_time) + self.tf.timedelta
        return Worth(found.verdict.value, found.hit_rate, found.n_moves, until)


class WorthFiles:
    """The files of all markets; each market has one for real and one for simulated bars.

    Args:
        data_dir: The files are in their own folder below it.
    """

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / FOLDER

    def path(self, symbol: str, timeframe: Timeframe, origin: str) -> Path:
        """Return the path of a market's file.

        Args:
            symbol: The market.
            timeframe: Timeframe of the market.
            origin: Source of its bars.

        Raises:
            ConfigError: The symbol is invalid.
        """
        kind = "-simulated" if is_simulated(origin) else ""
        return self._root / check_symbol(symbol) / f"{timeframe.value}{kind}.json"

    def mark(self, symbol: str, timeframe: Timeframe, origin: str) -> object:
        """Return a value that changes when the file changes; None without a file."""
        try:
            state = self.path(symbol, timeframe, origin).stat()
        except (OSError, ConfigError):
            return None
        return state.st_ino, state.st_mtime_ns

    def read(self, symbol: str, timeframe: Timeframe, origin: str) -> MarketWorth | None:
        """Read a measurement; None if there is none or it cannot be read (then logged)."""
        try:
            content = self.path(symbol, timeframe, origin).read_bytes()
            worth = json_codec.decode(MarketWorth, json_codec.loads(content))
            if (worth.symbol, worth.tf) != (symbol, timeframe):
                raise ValueError(f"it is that of {worth.symbol} {worth.tf}")
        except (FileNotFoundError, NotADirectoryError, ConfigError):
            return None
        except (OSError, ValueError) as error:
            log.warning(
                "%s %s: what its sources are worth cannot be read (%s); measure it again: %s",
                *(symbol, timeframe.value, printable(str(error))),
                measure_command(symbol, timeframe),
            )
            return None
        return worth

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
    """Format a worth for people: ``not told from a coin: 0.503 [0.489, 0.517] of ...``."""
    words = _MODEL_WORDS.get(worth.verdict) or _spaced(worth.verdict)
    if worth.hit_rate is None or worth.until is None:
        return words
    rate = interval_text(worth.hit_rate, decimals=3, signed=False)
    return (
        f"{words}: {rate} of its {worth.n_moves:,} directions that a move followed were right, "
        f"bars until {worth.until:%Y-%m-%d}"
    )


def _spaced(verdict: str) -> str:
    return verdict.replace("_coin", " a coin").replace("_", " ")


def measure_command(symbol: str, timeframe: Timeframe) -> str:
    """Return the command that measures the sources of a market."""
    return command("python -m percoin.signals", f"symbol={symbol}", f"tf={timeframe.value}")

"""What each source behind the model is worth on a market, kept in one small file for each market.

The rules of the chain are fixed: every stored bar is a test of them. ``signals.measure`` makes
these files; whoever answers reads them.
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


# What a model's test has shown, by the gate's word.
_MODEL_WORDS = {
    "accepted": "skill shown",
    "rejected": "no skill shown",
    "untestable": "too few rows to tell",
}


class SourceVerdict(StrEnum):
    """What the directions of a source have shown against a fair coin."""

    BETTER = "better_than_coin"
    LEVEL = "not_told_from_coin"
    WORSE = "worse_than_coin"
    TOO_FEW = "too_few_answers"

    @property
    def words(self) -> str:
        """The same for people."""
        return _spaced(self.value)


@dataclass(frozen=True)
class SourceWorth:
    """One source on one market.

    Attributes:
        verdict: On its directions.
        n_answers: Bars on which it said LONG or SHORT.
        n_moves: Of these, those after which the label is LONG or SHORT too.
        hit_rate: Share of these that went the way of the answer; None if they are too few.
    """

    verdict: SourceVerdict
    n_answers: int
    n_moves: int
    hit_rate: KnownInterval | None = None


@dataclass(frozen=True)
class MeasuredBars:
    """The bars that sources were measured on; times are ISO 8601 with their zone.

    Attributes:
        origin: Where they are from.
        n_bars: How many.
        first_open_time: Start of the first.
        last_open_time: Start of the last.
        sha256: Of their times and values.
    """

    origin: str
    n_bars: int
    first_open_time: str
    last_open_time: str
    sha256: str


@dataclass(frozen=True)
class MarketWorth:
    """Every source behind the model on one market, as its file says it.

    Attributes:
        format_version: Of the file.
        symbol: The market.
        tf: Of it.
        measured_at: When, ISO 8601 with a zone.
        bars: On which bars.
        label_rule: By which a direction is right or wrong, as ``LabelRule.to_json`` says it.
        confidence: Of the intervals; the more sources, the wider they are.
        sources: By their names in settings.
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
        """For an answer of that source."""
        found = self.sources.get(source.option)
        if found is None:
            return Worth()
        until = datetime.fromisoformat(self.bars.last_open_time) + self.tf.timedelta
        return Worth(found.verdict.value, found.hit_rate, found.n_moves, until)


class WorthFiles:
    """The files of all markets, one for real bars and one for simulated ones.

    Args:
        data_dir: They lie in a folder of their own in it.
    """

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / FOLDER

    def path(self, symbol: str, timeframe: Timeframe, origin: str) -> Path:
        """Where the file of a market lies.

        Args:
            symbol: The market.
            timeframe: Of it.
            origin: Of its bars.

        Raises:
            ConfigError: The symbol is none.
        """
        kind = "-simulated" if is_simulated(origin) else ""
        return self._root / check_symbol(symbol) / f"{timeframe.value}{kind}.json"

    def mark(self, symbol: str, timeframe: Timeframe, origin: str) -> object:
        """Another one whenever the file is another one; None without a file."""
        try:
            state = self.path(symbol, timeframe, origin).stat()
        except (OSError, ConfigError):
            return None
        return state.st_ino, state.st_mtime_ns

    def read(self, symbol: str, timeframe: Timeframe, origin: str) -> MarketWorth | None:
        """What was measured; None if nothing was, or nothing that can be read."""
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
        """Keep a measurement in the place of an older one.

        Raises:
            OSError: The system refuses it.
        """
        path = self.path(worth.symbol, worth.tf, worth.bars.origin)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json_codec.dumps(worth))
        return path


def worth_text(worth: Worth) -> str:
    """A worth in a phrase for people: ``not told from a coin: 0.503 [0.489, 0.517] of ...``."""
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
    """What measures the sources of a market."""
    return command("python -m percoin.signals", f"symbol={symbol}", f"tf={timeframe.value}")

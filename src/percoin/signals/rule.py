"""Make a fixed rule a source. Live answers and answers over a history use the same function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from percoin.bars.schema import Bars, format_time
from percoin.bars.tick import find_ticks
from percoin.errors import DataError
from percoin.features.levels import LevelPrices, atr_of, find_levels, level_prices
from percoin.features.rules import Readings
from percoin.labels import known_horizon
from percoin.signals.market import close_times, newest_closed
from percoin.signals.protocol import MarketBars
from percoin.signals.worth import SourceVerdict, WorthFiles, worth_text
from percoin.types import IntArray, Passed, Prediction, Signal, Source, Timeframe, Worth


class Rule(Protocol):
    """A fixed rule on the bars of one or several timeframes.

    Attributes:
        source: Source that uses the rule.
        timeframes: The rule always reads these, whatever timeframe is asked about.
        level_timeframe: One of ``timeframes``; its ATR is the unit of stop and targets.
        min_bars: Minimum number of bars of each timeframe.
        memory_bars: Older bars than the newest so many change only rounding.
        silence: Reason in ``Passed`` when the rule says NO_TRADE.
    """

    source: Source
    timeframes: tuple[Timeframe, ...]
    level_timeframe: Timeframe
    min_bars: int
    memory_bars: int
    silence: str

    def read(self, frames: Mapping[Timeframe, Bars], moments: IntArray) -> Readings:
        """Apply the rule at each moment, to bars that had closed by then.

        Args:
            frames: Bars of each timeframe of the rule.
            moments: Milliseconds since 1970-01-01 UTC, ascending, shape (n,).

        Returns:
            One reading for each moment; unknown where the latest bar is missing.
        """
        ...

    def describe(self, readings: Readings, row: int) -> str:
        """Return the numbers behind one reading, as a phrase for people."""
        ...


class RuleSource:
    """A rule as a source of the chain.

    Args:
        rule: The rule.
        enabled: False gives no answer for any market.
        worths: Measured quality on each market; None leaves the rule unjudged.
        require_accepted: Give no answer on markets where the rule measured worse than a coin.
    """

    def __init__(
        self,
        rule: Rule,
        enabled: bool = True,
        worths: WorthFiles | None = None,
        require_accepted: bool = True,
    ) -> None:
        self._rule = rule
        self._enabled = enabled
        self._worths = worths
        self._require_accepted = require_accepted

    def answer(self, market: MarketBars) -> Prediction | Passed:
        """Apply the rule at the close of the newest bar asked about, or say why it is silent."""
        rule = self._rule
        if not self._enabled:
            name = rule.source.option
            return self._pass(f"{name}_disabled", f"switched off: use_{name}=false")
        worth, horizon = self._measured(market.asked)
        if self._require_accepted and worth.verdict == SourceVerdict.WORSE:
            hint = "require_accepted=false asks it anyway"
            return self._pass("source_rejected", f"{worth_text(worth)} ({hint})")
        moments = close_times(market.asked)[-1:]
        frames: dict[Timeframe, Bars] = {}
        for timeframe in rule.timeframes:
            try:
                bars = market.of(timeframe, rule.memory_bars)
            except DataError as error:
                return self._pass("insufficient_data", str(error))
            if len(bars) < rule.min_bars:
                found = f"{len(bars)} bars of {timeframe}, {rule.min_bars} are needed"
                return self._pass("insufficient_data", found)
            if newest_closed(bars, moments)[0] < 0:
                return self._pass("stale_data", _tell_stale(bars, market.asked))
            frames[timeframe] = bars.slice(max(0, len(bars) - rule.memory_bars))
        readings = _read(rule, frames, moments)
        if not readings.is_known[0]:
            detail = f"some of its indicators have no value: {rule.describe(readings, 0)}"
            return self._pass("insufficient_data", detail)
        if readings.signal[0] == Signal.NO_TRADE:
            return self._pass(rule.silence, rule.describe(readings, 0))
        prediction = self._predict(market, readings, frames[rule.level_timeframe])
        return replace(prediction, worth=worth, horizon_bars=horizon)

    def _measured(self, asked: Bars) -> tuple[Worth, int | None]:
        """What the rule measured on this market, and over how many bars; None if unmeasured."""
        if self._worths is None:
            return Worth(), None
        known = self._worths.read(asked.symbol, asked.timeframe, asked.origin)
        if known is None:
            return Worth(), None
        return known.of(self._rule.source), known_horizon(known.label_rule)

    def _predict(self, market: MarketBars, readings: Readings, level_bars: Bars) -> Prediction:
        asked, signal = market.asked, Signal(int(readings.signal[0]))
        return Prediction(
            symbol=asked.symbol,
            timeframe=asked.timeframe,
            signal=signal,
            confidence=abs(float(readings.score[0])),
            probabilities=None,
            source=self._rule.source,
            model_version=None,
            ts=asked.close_time().to_pydatetime(),
            levels=find_levels(level_bars, signal, float(asked.column("close")[-1])),
            detail=self._rule.describe(readings, 0),
        )

    def _pass(self, reason: str, detail: str) -> Passed:
        return Passed(self._rule.source, reason, detail)


def rule_history(rule: Rule, market: MarketBars) -> Readings:
    """Return what ``RuleSource`` would have said at each bar's close, shape (n_bars,).

    A reading is silent and unknown where ``RuleSource`` would have had too few bars.

    Raises:
        DataError: One of the rule's timeframes has no bars.
    """
    moments = close_times(market.asked)
    frames = {timeframe: market.of(timeframe, rule.memory_bars) for timeframe in rule.timeframes}
    enough = [newest_closed(bars, moments) >= rule.min_bars - 1 for bars in frames.values()]
    return _read(rule, frames, moments).known_where(np.all(enough, axis=0))


def rule_levels(rule: Rule, market: MarketBars, rows: IntArray, signals: IntArray) -> LevelPrices:
    """Return the stop and targets of the answers of ``RuleSource`` at the close of some bars.

    Args:
        rule: The rule.
        market: Bars of the market.
        rows: Positions among the asked bars where the rule answers, shape (n,).
        signals: LONG or SHORT at each, shape (n,).

    Raises:
        DataError: The timeframe of the levels has no bars.
    """
    bars = market.of(rule.level_timeframe, rule.memory_bars)
    newest = newest_closed(bars, close_times(market.asked)[rows])
    entry, unit = market.asked.column("close")[rows], atr_of(bars)[newest]
    return level_prices(entry, unit, find_ticks(bars).take(newest), signals == Signal.LONG)


def _read(rule: Rule, frames: Mapping[Timeframe, Bars], moments: IntArray) -> Readings:
    # Only unreal prices overflow. The result is then unknown and needs no warning.
    with np.errstate(over="ignore", invalid="ignore"):
        return rule.read(frames, moments)


def _tell_stale(bars: Bars, asked: Bars) -> str:
    closed = format_time(bars.close_time())
    return (
        f"the newest of the {bars.timeframe} bars closed {closed} UTC, and a later one was due "
        f"by {format_time(asked.close_time())}"
    )

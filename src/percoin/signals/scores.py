"""Score a source: compare its answers with the labels on the rows of a dataset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from percoin.dataset import MarketDataset
from percoin.evaluation.backtest import BacktestResult, Costs, backtest, buy_and_hold
from percoin.evaluation.baselines import (
    class_shares,
    frequencies_after,
    rolling_prior_bars,
    rolling_shares,
    settled_class_counts,
)
from percoin.evaluation.evaluate import Assessment, Forecast, assess
from percoin.evaluation.hit_rate import hit_rate, moves_after
from percoin.evaluation.threshold import spread_signals
from percoin.evaluation.trading import bars_per_year, exit_rule_of, prices_of
from percoin.evaluation.uncertainty import Bootstrap, Estimate
from percoin.types import UNKNOWN_LABEL, FloatArray, IntArray, Signal


@dataclass(frozen=True)
class Tally:
    """Results of the LONG and SHORT answers on some rows.

    Attributes:
        n_rows: Number of rows.
        n_answers: Rows with the answer LONG or SHORT.
        n_moves: Rows of these whose label is LONG or SHORT too.
        hit_rate: Share of ``n_moves`` where answer and label agree, tested against one
            half; None if there are none.
        money: Backtest of every answer, one position at a time, closed as the label says.
    """

    n_rows: int
    n_answers: int
    n_moves: int
    hit_rate: Estimate | None
    money: BacktestResult


@dataclass(frozen=True)
class SourceScore:
    """Scores of one source on one market.

    Attributes:
        name: Name in tables.
        assessment: Scores on the test rows, as for any baseline. For a rule, the
            probabilities of an answer are the class frequencies after it on the train rows.
        test: Results on the test rows.
        everywhere: Results on all rows; None for a model, which has learnt from some of them.
    """

    name: str
    assessment: Assessment
    test: Tally
    everywhere: Tally | None


@dataclass(frozen=True)
class Scorer:
    """Scores sources on one dataset.

    Attributes:
        dataset: Rows with labels and split.
        costs: Costs of each side of a trade.
        bootstrap: Settings of the intervals.
        n_trials: Number of compared sources, for the deflated Sharpe ratio.
    """

    dataset: MarketDataset
    costs: Costs
    bootstrap: Bootstrap
    n_trials: int

    def score_rule(self, name: str, answers: IntArray) -> SourceScore:
        """Score a rule.

        Args:
            name: Name in tables.
            answers: ``Signal`` at each bar, ``UNKNOWN_LABEL`` where the rule has too little
                data to answer, shape (n_bars,).
        """
        train, test = self.dataset.rows("train"), self.dataset.rows("test")
        table = frequencies_after(answers[train], self.dataset.label[train])
        signals = np.where(answers == UNKNOWN_LABEL, Signal.NO_TRADE, answers).astype(np.int64)
        forecast = Forecast(name, table[answers[test]], signals[test])
        return SourceScore(
            name,
            self._assess(forecast),
            self.tally(name, signals, test),
            self.tally(name, signals, self._all_rows()),
        )

    def score_model(self, name: str, probabilities: FloatArray) -> SourceScore:
        """Score a model on its test rows only, because it has learnt from its train rows.

        Args:
            name: Name in tables.
            probabilities: Probabilities of the test rows, shape (n_rows, C).
        """
        test = self.dataset.rows("test")
        decided = probabilities.argmax(axis=1).astype(np.int64)
        signals = spread_signals(decided, test, len(self.dataset.bars))
        forecast = Forecast(name, probabilities)
        return SourceScore(name, self._assess(forecast), self.tally(name, signals, test), None)

    def tally(self, name: str, signals: IntArray, rows: IntArray) -> Tally:
        """Measure the LONG and SHORT answers on some rows.

        Args:
            name: Name in tables.
            signals: Signal at each bar, shape (n_bars,).
            rows: Positions among the bars, ascending.
        """
        label, chosen = self.dataset.label[rows], signals[rows]
        moves, hits = moves_after(chosen, label)
        bars = self.dataset.bars
        return Tally(
            n_rows=len(rows),
            n_answers=int((chosen != Signal.NO_TRADE).sum()),
            n_moves=len(hits),
            hit_rate=hit_rate(hits, bars.open_time[rows][moves], bars.timeframe, self.bootstrap),
            money=self._trade(name, chosen, rows),
        )

    def hold(self) -> tuple[BacktestResult, BacktestResult]:
        """Buy and hold over the test rows, and over all rows."""
        yearly = bars_per_year(self.dataset.bars.timeframe)
        test, everywhere = (
            buy_and_hold(
                prices_of(self.dataset, *self._span(rows)), self.costs, bars_per_year=yearly
            )
            for rows in (self.dataset.rows("test"), self._all_rows())
        )
        return test, everywhere

    def _assess(self, forecast: Forecast) -> Assessment:
        labels = self.dataset.label[self.dataset.rows("test")]
        shares = class_shares(self.dataset.label[self.dataset.rows("train")])
        prior = np.tile(shares, (len(labels), 1))
        return assess(forecast, labels, prior, self.bootstrap, self._recent(shares))

    def _recent(self, without: FloatArray) -> FloatArray:
        """Rolling prior (class shares of the last days) on the test rows, shape (n_rows, C)."""
        dataset = self.dataset
        counts = settled_class_counts(
            dataset.label,
            dataset.label_rule.horizon,
            rolling_prior_bars(dataset.bars.timeframe),
        )
        return rolling_shares(counts[dataset.rows("test")], without)

    def _trade(self, name: str, chosen: IntArray, rows: IntArray) -> BacktestResult:
        first, last = self._span(rows)
        return backtest(
            name,
            prices_of(self.dataset, first, last),
            spread_signals(chosen, rows - first, last - first),
            exit_rule_of(self.dataset, first, last),
            self.costs,
            bars_per_year=bars_per_year(self.dataset.bars.timeframe),
            n_trials=self.n_trials,
        )

    def _all_rows(self) -> IntArray:
        split = self.dataset.split
        return np.concatenate([split.train, split.validation, split.test])

    def _span(self, rows: IntArray) -> tuple[int, int]:
        """Bars from the first row to the end of the last row's label."""
        return int(rows[0]), int(rows[-1]) + self.dataset.label_rule.horizon + 1

"""Judge external forecasts of a market in the same way as percoin's own models."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from percoin.assembly import bar_source, dataset_spec, trading_costs
from percoin.bars.schema import Bars, format_time
from percoin.bars.store import BarStore
from percoin.config import JudgeConfig
from percoin.dataset import MarketDataset, PreparedMarket, SplitSpec
from percoin.errors import ConfigError, InvalidForecastsError, NotEnoughBarsError
from percoin.evaluation.backtest import BUY_AND_HOLD, Exit
from percoin.evaluation.baselines import class_shares, default_baselines, frequencies_after
from percoin.evaluation.evaluate import Evaluation, Forecast
from percoin.evaluation.fold_forecasts import JudgingRules, forecast_given
from percoin.evaluation.gate import STAMPED, Outcome, Verdict
from percoin.evaluation.judgement import judge_folds
from percoin.evaluation.level_reach import reached_text
from percoin.evaluation.metrics import N_CLASSES, row_log_loss
from percoin.evaluation.table import format_evaluation
from percoin.evaluation.uncertainty import Bootstrap, Estimate
from percoin.intervals import interval_text
from percoin.judge.forecasts import Forecasts, read_forecasts
from percoin.judge.reaction import Reaction
from percoin.report.board import Board, make_board
from percoin.report.reading import Judging, SavedModel
from percoin.splits import Split, chronological_split, split_at
from percoin.types import (
    DAY_MILLISECONDS,
    UNKNOWN_LABEL,
    FloatArray,
    IntArray,
    LevelsReached,
    Timeframe,
)

# Share of the rows used to learn class frequencies after each signal, without probabilities.
_LEARNING_SHARE = 0.3
# Largest shift, in bars, in the search for forecasts with a wrong time stamp.
_MOST_BARS_OFF = 5
_MOST_REPETITIONS = 500
# Of a time zone from UTC, in milliseconds.
_LARGEST_ZONE_OFFSET = 14 * 3_600_000


@dataclass(frozen=True, eq=False)
class JudgedForecasts:
    """The result of judging a file of forecasts.

    Attributes:
        dataset: The rows; the test part is the judged forecasts.
        evaluation: The same results as for a model.
        notes: Remarks about the file, one sentence each, without a full stop.
        exit: Where positions of the backtests close.
        levels: How often stop and targets of its directions were reached; None if too few.
    """

    dataset: MarketDataset
    evaluation: Evaluation
    notes: tuple[str, ...]
    exit: Exit = Exit.HORIZON
    levels: LevelsReached | None = None

    def to_json(self) -> dict[str, Any]:
        """The result for programs; equity curves keep fewer points."""
        bars = self.dataset.bars
        return {
            "symbol": bars.symbol,
            "tf": bars.timeframe.value,
            "bars": bars.origin,
            "label_rule": self.dataset.label_rule.to_json(),
            "shown": self.evaluation.shown(),
            "notes": list(self.notes),
            "exit": self.exit.value,
            "levels": None if self.levels is None else asdict(self.levels),
            "evaluation": self.evaluation.to_json(),
        }

    def board(self) -> Board:
        """The result as a report."""
        bars, test = self.dataset.bars, self.dataset.rows("test")
        days = [str(bars.frame.index[int(test[end])].date()) for end in (0, -1)]
        model = SavedModel(
            bars.symbol,
            bars.timeframe,
            evaluation=self.evaluation,
            judging=Judging(exit=self.exit, levels=self.levels),
            variant=self.evaluation.model.name,
            tested=(days[0], days[1]),
        )
        return make_board([model], notes=[f"{note}." for note in self.notes])

    def render(self) -> str:
        """The result as plain text for the terminal."""
        bars, test = self.dataset.bars, self.dataset.rows("test")
        first, last = (format_time(bars.close_time(int(test[end]))) for end in (0, -1))
        market = f"{bars.symbol} {bars.timeframe.value}"
        return "\n".join(
            [
                f"{market}, forecasts of bars that closed {first} to {last} UTC",
                *self.notes,
                "",
                format_evaluation(self.evaluation, self.exit),
                *self._levels(),
            ]
        )

    def _levels(self) -> list[str]:
        if self.levels is None:
            return []
        return ["", reached_text(self.levels, self.dataset.label_rule.horizon)]


def judge_file(settings: JudgeConfig) -> JudgedForecasts:
    """Judge the file that the settings name.

    Raises:
        ConfigError: The name in the settings is the name of a baseline, or that of buy and hold.
        InvalidForecastsError: The file cannot be judged in its current form.
        PercoinError: The bars are not available, or too few.
    """
    timeframe = settings.tf.timeframe
    if settings.name in {BUY_AND_HOLD, *(baseline.name for baseline in default_baselines())}:
        raise ConfigError(f"name={settings.name} is the name of a baseline; give another one")
    forecasts = read_forecasts(Path(settings.forecasts), settings.symbol, timeframe)
    spec = dataset_spec(settings)
    n_bars = spec.bars_to_load(timeframe)
    source = bar_source(settings.source, BarStore(Path(settings.data_dir) / "bars"), n_bars)
    market = PreparedMarket.prepare(source.load(settings.symbol, timeframe), spec)
    rules = JudgingRules(
        costs=trading_costs(settings.costs),
        exit=Exit(settings.backtest.exit),
        n_trials=settings.trials,
        n_looks=settings.looks,
        repetitions=settings.repetitions,
        seed=settings.seed,
        model_name=settings.name,
    )
    trained_until = settings.trained_until_ms
    return judge_forecasts(forecasts, market, rules, settings.threshold, trained_until)


def judge_forecasts(
    forecasts: Forecasts,
    market: PreparedMarket,
    rules: JudgingRules,
    threshold: float = 0.0,
    trained_until: int | None = None,
) -> JudgedForecasts:
    """Judge forecasts on the bars of their market.

    The baselines learn from the rows before the forecasts. They are judged on the same rows as
    the forecasts.

    Args:
        forecasts: Forecasts; each is known when its bar closes.
        market: Bars, features and labels of the market.
        rules: Settings of the judgement.
        threshold: Minimum confidence for a trade; above 0 signals need one.
        trained_until: End of the bars that the forecaster has seen, itself not included, in
            milliseconds since 1970-01-01 UTC; None if unknown.

    Raises:
        InvalidForecastsError: A forecast has no bar or lies before ``trained_until``, no
            forecast can be judged, or there is no confidence to hold against ``threshold``.
        NotEnoughBarsError: Too few bars before the forecasts to fit baselines, or too few
            signals without probabilities.
        MissingClassError: The rows before the forecasts lack a class.
    """
    if threshold > 0 and forecasts.probabilities is None and forecasts.confidence is None:
        raise InvalidForecastsError(
            market.bars.symbol,
            market.bars.timeframe.value,
            f"threshold={threshold:g}, and the signals have no confidence",
            "add a column confidence, or leave out threshold",
        )
    notes = _check_seen(forecasts, market.bars, trained_until)
    if forecasts.unused:
        notes.append(f"columns of the file that are not used: {', '.join(forecasts.unused)}")
    rows = _rows_of(forecasts, market.bars)
    notes += _left_out(rows, market)
    dataset, kept = _dataset(market, rows)
    if len(kept) < len(rows):
        notes.append(
            f"{len(rows) - len(kept)} of {len(rows)} forecasts are not judged: the outcome is not "
            "known yet, or bars around them are missing"
        )
    dataset, forecast, said = _as_forecast(forecasts, dataset, kept, rules.model_name)
    notes += said
    fold = forecast_given(dataset, forecast, rules, threshold)
    judgement = judge_folds([fold], rules)
    checked = _found_out(dataset, forecast, judgement.evaluation)
    return JudgedForecasts(dataset, checked, tuple(notes), rules.exit, judgement.levels)


def _check_seen(forecasts: Forecasts, bars: Bars, trained_until: int | None) -> list[str]:
    if trained_until is None:
        return ["trained_until is not given: the forecaster may have learnt from these bars"]
    # A bar that opens at trained_until or later closes after it: the forecaster has not seen it.
    n_seen = int((forecasts.open_time < trained_until).sum())
    if n_seen:
        raise InvalidForecastsError(
            bars.symbol,
            bars.timeframe.value,
            f"{n_seen} of {len(forecasts)} forecasts are of bars up to "
            f"trained_until={_last(trained_until)}: the forecaster has learnt from them",
            "leave them out, or give the day up to which it really was trained",
        )
    return [f"trained until {_last(trained_until)}, as its owner says"]


def _rows_of(forecasts: Forecasts, bars: Bars) -> IntArray:
    """Positions of the forecasts' bars among all bars."""
    opened = bars.open_time
    rows = np.searchsorted(opened, forecasts.open_time)
    is_there = opened[np.minimum(rows, len(opened) - 1)] == forecasts.open_time
    n_missing = int((~is_there).sum())
    if n_missing:
        first = _minute(int(forecasts.open_time[~is_there][0]))
        held = f"{_minute(int(opened[0]))} to {_minute(int(opened[-1]))}"
        raise InvalidForecastsError(
            bars.symbol,
            bars.timeframe.value,
            f"{n_missing} of {len(forecasts)} forecasts are for bars that are missing, first "
            f"{first} UTC; the bars go from {held}",
            "give the open times of the bars, in UTC, and bars that hold all of them",
        )
    return rows.astype(np.int64)


def _left_out(rows: IntArray, market: PreparedMarket) -> list[str]:
    """A note on bars from the first to the last forecast that have none; empty if all do."""
    usable = market.rows[(market.rows >= rows[0]) & (market.rows <= rows[-1])]
    bare = np.setdiff1d(usable, rows)
    if len(bare) == 0:
        return []
    # Those between the same two forecasts are one stretch.
    after = np.searchsorted(rows, bare)
    longest = bare[after == np.bincount(after).argmax()]
    first, last = (_minute(int(market.bars.open_time[longest[end]])) for end in (0, -1))
    where = f"most in a row from {first} to {last}" if len(longest) > 1 else f"such as {first}"
    return [
        f"{len(bare):,} of {len(usable):,} bars from the first to the last forecast have none, "
        f"{where} UTC: nothing is judged there"
    ]


def _dataset(market: PreparedMarket, forecast_rows: IntArray) -> tuple[MarketDataset, IntArray]:
    """The dataset with a split before the forecasts, and the forecast rows that can be judged."""
    kept = np.intersect1d(forecast_rows, market.rows)
    if len(kept) == 0:
        is_early = len(market.rows) > 0 and forecast_rows[-1] < market.rows[0]
        raise InvalidForecastsError(
            market.bars.symbol,
            market.bars.timeframe.value,
            f"none of the {len(forecast_rows)} forecasts can be judged: the outcome is not known "
            "yet, or bars around them are missing",
            "give newer forecasts, or older bars and a longer history_days"
            if is_early
            else "give older forecasts, or newer bars",
        )
    try:
        split = _split_before(market.rows, kept, market.spec.split_spec)
    except ValueError as error:
        raise NotEnoughBarsError(
            market.bars.symbol,
            market.bars.timeframe.value,
            f"{int((market.rows < kept[0]).sum())} usable rows lie before the first forecast "
            f"({format_time(market.bars.frame.index[kept[0]])} UTC), and baselines learn from "
            f"these ({error})",
            "leave out early forecasts, or load bars that begin earlier (history_days)",
        ) from None
    return market.dataset(lambda _: split), kept


def _split_before(rows: IntArray, kept: IntArray, spec: SplitSpec) -> Split:
    """Put train and validation before the first forecast row, where the test part begins.

    If the forecasts start at the test part of percoin's usual split, train and validation are
    those of the usual split.
    """
    purge, embargo = spec.purge_bars, spec.embargo_bars
    usual = _usual_split(rows, spec)
    if usual is not None and usual.test[0] == kept[0]:
        return Split(usual.train, usual.validation, kept)
    before = rows[rows < kept[0] - embargo]
    train, validation, _ = spec.fractions
    n_train = round(len(before) * train / (train + validation))
    if not 0 < n_train < len(before):
        raise ValueError(f"{len(before)} of them cannot be cut in two")
    split = split_at(rows, int(before[n_train]), int(kept[0]) - embargo, purge, embargo)
    return Split(split.train, split.validation, kept)


def _usual_split(rows: IntArray, spec: SplitSpec) -> Split | None:
    try:
        return chronological_split(rows, spec.fractions, spec.purge_bars, spec.embargo_bars)
    except ValueError:
        return None


def _as_forecast(
    forecasts: Forecasts, dataset: MarketDataset, kept: IntArray, name: str
) -> tuple[MarketDataset, Forecast, list[str]]:
    """Probabilities for the test rows, and notes about them.

    If the file has only signals, the first rows are used to learn how often each class follows
    each signal. The returned dataset leaves them out of the test rows.
    """
    opened = dataset.bars.open_time[kept]
    chosen = np.searchsorted(forecasts.open_time, opened)
    if forecasts.probabilities is not None:
        return dataset, Forecast(name, forecasts.probabilities[chosen]), []
    signal = forecasts.signal[chosen]
    if forecasts.confidence is not None:
        shares = class_shares(dataset.label[dataset.rows("train")])
        said = _spread(signal, forecasts.confidence[chosen], shares)
        note = "the rest of the probability is shared by the class shares of the train rows"
        return dataset, Forecast(name, said, signal), [note]
    n_learn = math.ceil(len(kept) * _LEARNING_SHARE)
    # The labels of these rows must be known before the first judged row.
    first_judged = int(kept[min(n_learn, len(kept) - 1)]) - dataset.label_rule.horizon
    learnt = kept[:n_learn][kept[:n_learn] < first_judged]
    if n_learn == len(kept) or len(learnt) == 0:
        raise NotEnoughBarsError(
            dataset.bars.symbol,
            dataset.bars.timeframe.value,
            f"{len(kept)} signals without probabilities",
            "give more of them, or confidence beside them",
        )
    table = frequencies_after(signal[: len(learnt)], dataset.label[learnt])
    split = replace(dataset.split, test=kept[n_learn:])
    note = (
        f"signals without probabilities: the first {n_learn} are used to learn how often each "
        "class followed each signal, and are not judged"
    )
    judged = signal[n_learn:]
    return replace(dataset, split=split), Forecast(name, table[judged], judged), [note]


def _spread(signal: IntArray, confidence: FloatArray, shares: FloatArray) -> FloatArray:
    """Probabilities: the confidence for the signal's class, the rest split by the shares."""
    is_said = np.eye(N_CLASSES, dtype=bool)[signal]
    others = np.where(is_said, 0.0, shares)
    rest = (1 - confidence)[:, None] * others / others.sum(axis=1, keepdims=True)
    spread: FloatArray = np.where(is_said, confidence[:, None], rest)
    return spread


def _found_out(dataset: MarketDataset, forecast: Forecast, evaluation: Evaluation) -> Evaluation:
    """Add to the evaluation what a shift of the forecasts along the bars shows.

    The verdict becomes a rejection if the forecasts fit later bars better than their own, or
    change with later bars: they are stamped too early. It gets a caution if they change with
    earlier bars, or if they are no better than the same forecasts a day earlier or later.
    """
    usual = evaluation.bootstrap
    bootstrap = replace(usual, repetitions=min(_MOST_REPETITIONS, usual.repetitions))
    moved = _Moved(dataset, forecast, bootstrap)
    reaction = Reaction(dataset.bars, dataset.rows("test"), forecast.probabilities, bootstrap)
    verdict = evaluation.verdict
    far = most_bars_off(dataset.bars.timeframe)
    seen = _seen_early(moved, reaction, far)
    late = reaction.to_range(range(-far, 0))
    if seen is not None:
        verdict = Verdict(
            Outcome.REJECTED, (seen, *verdict.reasons), verdict.cautions, verdict.p_value
        )
    elif late is not None:
        bars, excess = late
        caution = (
            f"stamped {_bars(-bars)} too late? they change with the range of the bar "
            f"{_bars(-bars)} earlier more than with that of their own bar (correlation higher by "
            f"{interval_text(excess)}); open_time is when a bar opens"
        )
        verdict = replace(verdict, cautions=(*verdict.cautions, caution))
    day = moved.over_another_day()
    if evaluation.collapse is None and day is not None and day.lower is not None and day.lower <= 0:
        caution = (
            "no better than the same forecasts a day earlier or later "
            f"({interval_text(day)} nats a row): they know only the time of day or how active the "
            "market is"
        )
        verdict = replace(verdict, cautions=(*verdict.cautions, caution))
    return replace(evaluation, verdict=verdict)


def _seen_early(moved: _Moved, reaction: Reaction, far: int) -> str | None:
    """Why the forecasts must be stamped too early; None if nothing shows it."""
    unknown = "they were not known at the close of their own bar"
    hears = reaction.to_range(range(1, far + 1))
    fits = moved.fits_better(range(1, _MOST_BARS_OFF + 1)) if hears is None else None
    if fits is not None:
        bars, gain = fits
        return (
            f"{STAMPED}{_bars(bars)} too early: they fit the outcome {_bars(bars)} later better "
            f"than that of their own bar, by {interval_text(gain)} nats a row; {unknown}"
        )
    hears = hears or reaction.to_return(range(1, far + 1))
    if hears is None:
        return None
    bars, excess = hears
    return (
        f"{STAMPED}{_bars(bars)} too early: they change with what the market does {_bars(bars)} "
        f"later more than with their own bar (correlation higher by {interval_text(excess)}); "
        f"{unknown}"
    )


def most_bars_off(timeframe: Timeframe) -> int:
    """The largest shift to look for: of a few bars, or of another time zone."""
    return max(_MOST_BARS_OFF, -(-_LARGEST_ZONE_OFFSET // timeframe.milliseconds))


class _Moved:
    """Compares the forecasts with the labels of other bars, at a shift of some bars."""

    def __init__(self, dataset: MarketDataset, forecast: Forecast, bootstrap: Bootstrap) -> None:
        self._label = dataset.label
        self._rows = dataset.rows("test")
        self._said = forecast.probabilities
        self._bootstrap = bootstrap
        # The best of several shifts needs the same certainty as a single one (Bonferroni).
        error = (1 - bootstrap.confidence) / _MOST_BARS_OFF
        self._of_best = replace(bootstrap, confidence=1 - error)
        self._own = row_log_loss(self._said, self._label[self._rows])
        self._day = math.ceil(dataset.bars.timeframe.bars_per_day)

    def fits_better(self, shifts: range) -> tuple[int, Estimate] | None:
        """The shift with the best fit, if it is significantly better than no shift; else None."""
        gains = {shift: self._gain(shift) for shift in shifts}
        known = {shift: gain for shift, gain in gains.items() if gain is not None}
        if not known:
            return None
        best = max(known, key=lambda shift: known[shift].value)
        is_sure = known[best].lower is not None and (known[best].lower or 0.0) > 0
        return (best, known[best]) if is_sure else None

    def over_another_day(self) -> Estimate | None:
        """Mean loss one day earlier and later minus the own loss; None with too few rows."""
        gains = [self._losses_at(shift) for shift in (self._day, -self._day)]
        is_known = np.all([known for known, _ in gains], axis=0)
        if is_known.sum() < self._bootstrap.shortest_block:
            return None
        other = np.mean([losses[is_known] for _, losses in gains], axis=0)
        return self._bootstrap.estimate(other - self._own[is_known])

    def _gain(self, shift: int) -> Estimate | None:
        is_known, losses = self._losses_at(shift)
        if not is_known.any():
            return None
        return self._of_best.estimate((self._own - losses)[is_known])

    def _losses_at(self, shift: int) -> tuple[FloatArray, FloatArray]:
        """Whether the label ``shift`` bars later is known, and the log-loss against it."""
        rows = self._rows + shift
        nearest = np.clip(rows, 0, len(self._label) - 1)
        labels = np.where(rows == nearest, self._label[nearest], UNKNOWN_LABEL)
        is_known = labels != UNKNOWN_LABEL
        losses = np.zeros(len(rows))
        losses[is_known] = row_log_loss(self._said[is_known], labels[is_known])
        return is_known, losses


def _bars(number: int) -> str:
    return "1 bar" if number == 1 else f"{number} bars"


def _last(end: int) -> str:
    """The day that ends then, or the minute."""
    if end % DAY_MILLISECONDS:
        return f"{_minute(end)} UTC"
    return str(pd.Timestamp(end - 1, unit="ms").date())


def _minute(moment: int) -> str:
    return f"{pd.Timestamp(moment, unit='ms'):%Y-%m-%d %H:%M}"

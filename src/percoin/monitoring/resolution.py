"""Makes track record entries from predictions, and finds their outcomes in later bars."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import numpy as np

from percoin.bars.panel import load_beside, with_panel
from percoin.bars.schema import Bars, format_time
from percoin.errors import BarsNotFoundError, ConfigError, DataError, OwnCodeError
from percoin.evaluation.baselines import (
    ROLLING_PRIOR,
    class_shares,
    frequencies_after,
    last_known_labels,
    rolling_prior_bars,
    settled_class_counts,
    shares_of,
)
from percoin.expected_move.targets import move_targets
from percoin.features.rules import Readings, read_momentum, read_rsi_ma
from percoin.labels import LabelRule, Labels, OwnRule, TripleBarrier, label_rule_from_json
from percoin.monitoring.record import (
    BaselineForecast,
    Kept,
    PredictionOutcome,
    RecordedPrediction,
    TrackRecord,
    kind_of_bars,
)
from percoin.types import (
    UNKNOWN_LABEL,
    ExpectedMove,
    FloatArray,
    IntArray,
    Prediction,
    Signal,
    Timeframe,
)

LoadBeside = Callable[[str], Bars]

log = logging.getLogger(__name__)

PRIOR = "prior"
PERSISTENCE = "persistence"
# Relative: bars of another exchange differ by more, numbers in another format by less.
_SAME_CLOSE = 1e-6
# Why a prediction is void.
_MISSING = "the bar that it was made on is missing"
_CHANGED = "its bar has another close now than it had then"


def make_entry(
    prediction: Prediction,
    bars: Bars,
    rule: LabelRule | None,
    now: datetime,
    train_shares: Sequence[float] | None = None,
    beside: LoadBeside | None = None,
    known_until: datetime | None = None,
) -> RecordedPrediction:
    """Make the record entry of a prediction, with the baseline forecasts at the same moment.

    The prior uses the class shares of the model's train rows, as in the model's own test.
    All other probabilities, and the prior without ``train_shares``, are class shares of the
    labels in ``bars`` that were known when the newest bar closed. The prior uses all these
    labels, the rolling prior those of the last days, and the other baselines the labels
    that followed the same signal.

    Args:
        prediction: Prediction on the newest bar.
        bars: Bars behind the prediction.
        rule: Label rule that defines the right answer; None if there is none.
        now: Current time with a time zone.
        train_shares: Class shares in the train rows of the model that answered, shape (C,);
            None without a model, or if the model does not store them.
        beside: As in ``resolve``; without the bars that a rule compares, no label is known.
        known_until: When the newest bar closed that the model was made from. An earlier
            prediction is not live, whatever the clock says; None without a model.
    """
    now_ms, ts = _ms(now), _ms(prediction.ts)
    is_new = known_until is None or prediction.ts >= known_until
    is_live = rule is not None and is_before_outcome(rule, ts, bars.timeframe, now_ms)
    labels = np.full(len(bars), UNKNOWN_LABEL)
    if rule is not None and (seen := beside_rule(rule, bars, beside)) is not None:
        start = int(np.searchsorted(bars.open_time, seen.open_time[0]))
        labels[start : start + len(seen)] = rule.label(seen).label
    return RecordedPrediction(
        symbol=prediction.symbol,
        tf=prediction.timeframe,
        ts=ts,
        bars=kind_of_bars(bars.origin),
        source=prediction.source.value,
        model_version=prediction.model_version or "",
        version_id=prediction.version_id or "",
        label_rule="" if rule is None else rule_text(rule),
        signal=int(prediction.signal),
        confidence=float(prediction.confidence),
        probabilities=prediction.probabilities,
        close=float(bars.column("close")[-1]),
        baselines={} if rule is None else _baselines(bars, rule, labels, train_shares),
        expected_move=_move_of(prediction, rule),
        is_live=is_live and is_new,
        written_at=now_ms,
    )


def _move_of(prediction: Prediction, rule: LabelRule | None) -> ExpectedMove | None:
    """The expected move, if its horizon is that of the rule: they are resolved together."""
    move = prediction.expected_move
    is_measured = rule is not None and move is not None and move.horizon_bars == rule.horizon
    return move if is_measured else None


def rule_text(rule: LabelRule) -> str:
    """A label rule as JSON text with sorted keys, so that equal rules give equal text."""
    return json.dumps(rule.to_json(), sort_keys=True)


def is_before_outcome(rule: LabelRule, ts: int, timeframe: Timeframe, now_ms: int) -> bool:
    """Whether the outcome of a prediction at ``ts`` is still unknown to everybody.

    The next bar can already touch a barrier, and nobody knows when a rule of the user's own is
    settled; a return over the horizon is known at its last bar. Only the time counts, not the bars
    at hand: if a file of bars ended last year, somebody knows the bars that followed. Times are
    milliseconds since 1970-01-01 UTC.
    """
    first_bars = 1 if isinstance(rule, TripleBarrier | OwnRule) else rule.horizon
    return now_ms < ts + first_bars * timeframe.milliseconds


def resolve(
    record: TrackRecord, bars: Bars, now: datetime, beside: LoadBeside | None = None
) -> int:
    """Write the outcomes of a market's open predictions that these bars decide.

    A second call with the same bars changes nothing. A prediction stays open until a call
    has the bars that it needs.

    Args:
        record: The track record.
        bars: Bars of one market.
        now: Current time with a time zone.
        beside: Loads the bars of another market; without it, predictions whose label compares
            markets stay open.

    Returns:
        How many predictions were resolved.

    Raises:
        RecordError: The database cannot be used now.
    """
    newest_close = int(bars.open_time[-1]) + bars.timeframe.milliseconds
    kept = record.open_predictions(
        bars.symbol, bars.timeframe, kind_of_bars(bars.origin), newest_close
    )
    outcomes = find_outcomes(kept, bars, beside)
    return record.resolve(outcomes, _ms(now)) if outcomes else 0


def find_outcomes(
    predictions: Sequence[Kept], bars: Bars, beside: LoadBeside | None = None
) -> list[PredictionOutcome]:
    """Find the outcomes of predictions with the label rules of training.

    Args:
        predictions: Open predictions of the bars' market.
        bars: The bars behind the predictions, and later ones.
        beside: As in ``resolve``.

    Returns:
        One outcome for each prediction whose horizon has passed and whose bars are here. If
        a gap leaves the bar without a label, the outcome is void. A prediction whose bar has
        another close here has none: these are bars of another market. One whose label
        compares markets has none before the bars of every one of them reach its horizon: the
        mean of some of them would be another rule.
    """
    outcomes: list[PredictionOutcome] = []
    for text in dict.fromkeys(kept.label_rule for kept in predictions):
        rule = label_rule_from_json(json.loads(text))
        chosen = [kept for kept in predictions if kept.label_rule == text]
        seen = beside_rule(rule, bars, beside)
        if seen is None:
            continue
        try:
            outcomes += _outcomes_by(rule, chosen, seen)
        except (ConfigError, OwnCodeError) as error:
            # Code of the user's own; they stay open until it is there.
            log.warning("%s %s: no outcomes: %s", bars.symbol, bars.timeframe.value, error)
    return outcomes


def beside_rule(rule: LabelRule, bars: Bars, beside: LoadBeside | None) -> Bars | None:
    """The bars with those of the markets that a rule compares, where all are at hand.

    Args:
        rule: The label rule.
        bars: Of the market.
        beside: As in ``resolve``.

    Returns:
        The same bars for a rule that compares none; None if the bars of a market are missing,
        which is logged.
    """
    if not rule.compared_with or not len(bars):
        return bars
    market = f"{bars.symbol} {bars.timeframe}"
    try:
        if beside is None:
            raise BarsNotFoundError(
                bars.symbol, bars.timeframe, "the bars of its pool are not at hand", "bring them"
            )
        others = [load_beside(bars, symbol, beside) for symbol in rule.compared_with]
    except DataError as error:
        log.warning("%s: predictions of labels=%s stay open: %s", market, rule.kind, error)
        return None
    behind = min(others, key=lambda other: int(other.open_time[-1]))
    newest = int(behind.open_time[-1])
    if newest < int(bars.open_time[-1]):
        told = "%s %s: predictions after %s wait for bars of %s"
        since = format_time(behind.close_time())
        log.info(told, bars.symbol, bars.timeframe.value, since, behind.symbol)
    # Before the first bar at hand of one of them, its absence would be no fact of the market.
    first = max(int(other.open_time[0]) for other in others)
    start, stop = (int(n) for n in np.searchsorted(bars.open_time, [first, newest + 1]))
    cut = [other.slice(int(np.searchsorted(other.open_time, first))) for other in others]
    return with_panel(bars, cut).slice(start, stop) if start < stop else None


def _outcomes_by(
    rule: LabelRule, predictions: Sequence[Kept], bars: Bars
) -> list[PredictionOutcome]:
    step, open_time = bars.timeframe.milliseconds, bars.open_time
    first, newest_close = int(open_time[0]), int(open_time[-1]) + step
    due = [
        kept
        for kept in predictions
        if kept.ts + rule.horizon * step <= newest_close
        # Volatility (sigma) uses past bars: if they are missing, the label differs from training.
        and kept.ts - (1 + rule.past_bars) * step >= first
    ]
    if not due:
        # Saves time: labels are slow for a horizon longer than the bars.
        return []
    rows = [int(np.searchsorted(open_time, kept.ts - step)) for kept in due]
    is_there = [bool(open_time[row] == kept.ts - step) for kept, row in zip(due, rows, strict=True)]
    close = bars.column("close")
    is_same = [
        known and math.isclose(kept.close, close[row], rel_tol=_SAME_CLOSE)
        for kept, row, known in zip(due, rows, is_there, strict=True)
    ]
    if not any(is_same) and any(is_there):
        # None was made on these prices: the bars may be those of another exchange.
        log.warning(
            "%s %s: %s predictions stay open: they were made on other prices than these bars have",
            *(bars.symbol, bars.timeframe.value, sum(is_there)),
        )
        return []
    labels = rule.label(bars)
    variance = move_targets(bars, rule.horizon).range_variance
    return [
        _outcome(kept, labels, row, float(variance[row]))
        if same
        else PredictionOutcome(kept.id, None, None, _CHANGED if known else _MISSING)
        for kept, row, known, same in zip(due, rows, is_there, is_same, strict=True)
    ]


def _outcome(kept: Kept, labels: Labels, row: int, range_variance: float) -> PredictionOutcome:
    label, forward_return = int(labels.label[row]), float(labels.forward_return[row])
    if label == UNKNOWN_LABEL:
        return PredictionOutcome(
            kept.id, None, None, "a gap in the bars, or a price that did not move"
        )
    if not math.isfinite(forward_return):
        return PredictionOutcome(kept.id, None, None, "its return is no number")
    move, realized = kept.expected_move, None
    # Bars that all stand still have no variance to score a forecast by.
    if move is not None and range_variance > 0:
        realized = move.range_factor * range_variance
    return PredictionOutcome(kept.id, label, forward_return, realized_variance=realized)


def _baselines(
    bars: Bars, rule: LabelRule, labels: IntArray, train_shares: Sequence[float] | None
) -> Mapping[str, BaselineForecast]:
    """The forecast of each baseline at the newest bar, by name."""
    # Without gaps, persistence is the label of ``horizon`` bars ago; -1 means unknown.
    answers = {
        PERSISTENCE: last_known_labels(labels, rule.horizon),
        "rsi_ma": _answers(read_rsi_ma(bars)),
        "momentum": _answers(read_momentum(bars)),
    }
    known = labels != UNKNOWN_LABEL
    shares = class_shares(labels[known]) if train_shares is None else np.array(train_shares)
    n_bars = rolling_prior_bars(bars.timeframe)
    recent = settled_class_counts(labels, rule.horizon, n_bars)[-1]
    rolling = shares_of(recent) if recent.sum() else shares
    found = {
        name: BaselineForecast(int(said.argmax()), _floats(said))
        for name, said in ((PRIOR, shares), (ROLLING_PRIOR, rolling))
    }
    for name, said in answers.items():
        table = frequencies_after(said[known], labels[known])
        found[name] = BaselineForecast(int(said[-1]), _floats(table[said[-1]]))
    return found


def _answers(readings: Readings) -> IntArray:
    return np.where(readings.is_known, readings.signal, UNKNOWN_LABEL).astype(np.int64)


def _floats(shares: FloatArray) -> tuple[float, ...]:
    return tuple(float(shares[signal]) for signal in Signal)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)

"""From bars to entries of the track record, and from later bars to what became of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np

from percoin.bars.schema import Bars
from percoin.evaluation.baselines import (
    ROLLING_PRIOR,
    class_shares,
    frequencies_after,
    last_known_labels,
    rolling_prior_bars,
    settled_class_counts,
    shares_of,
)
from percoin.features.rules import Readings, read_momentum, read_rsi_ma
from percoin.labels import LabelRule, Labels, TripleBarrier, label_rule_from_json
from percoin.monitoring.record import (
    BaselineForecast,
    Kept,
    PredictionOutcome,
    RecordedPrediction,
    TrackRecord,
    kind_of_bars,
)
from percoin.types import UNKNOWN_LABEL, FloatArray, IntArray, Prediction, Signal, Timeframe

PRIOR = "prior"
PERSISTENCE = "persistence"


def make_entry(
    prediction: Prediction,
    bars: Bars,
    rule: LabelRule | None,
    now: datetime,
    train_shares: Sequence[float] | None = None,
) -> RecordedPrediction:
    """What the record keeps of a prediction, with what simple forecasters say beside it.

    The prior is that of the model's train rows, as in its judgement. Without one, and of
    the other baselines, probabilities are shares of the labels that were known when the bar
    closed, of the bars that are held: the prior of all, the rolling prior of the last days,
    and what followed each answer.

    Args:
        prediction: On the newest bar.
        bars: That it was made on.
        rule: What the right answer will be by; None if nothing says.
        now: With a zone.
        train_shares: Of each class among the train rows of the model that answered, shape
            (C,); None without a model, or if it does not tell them.
    """
    now_ms, ts = _ms(now), _ms(prediction.ts)
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
        baselines={} if rule is None else _baselines(bars, rule, train_shares),
        is_live=rule is not None and is_before_outcome(rule, ts, bars.timeframe, now_ms),
        written_at=now_ms,
    )


def rule_text(rule: LabelRule) -> str:
    """A label rule in one spelling, for keys."""
    return json.dumps(rule.to_json(), sort_keys=True)


def is_before_outcome(rule: LabelRule, ts: int, timeframe: Timeframe, now_ms: int) -> bool:
    """Whether nobody could have known yet what comes of a prediction made at ``ts``.

    A barrier may be touched by the very next bar, a return over the horizon is settled
    with its last bar. How old the bars are counts, not what they are: those of a file that
    ended last year have been followed by others that somebody knows.
    """
    first_bars = 1 if isinstance(rule, TripleBarrier) else rule.horizon
    return now_ms < ts + first_bars * timeframe.milliseconds


def resolve(record: TrackRecord, bars: Bars, now: datetime) -> int:
    """Resolve what these bars tell of the open predictions of their market.

    Asked again, it finds nothing left to do. A prediction whose bars are not among these
    stays open until someone brings them.

    Args:
        record: The predictions.
        bars: Of one market.
        now: With a zone.

    Returns:
        How many were resolved.

    Raises:
        RecordError: The database cannot be used now.
    """
    newest_close = int(bars.open_time[-1]) + bars.timeframe.milliseconds
    kept = record.open_predictions(
        bars.symbol, bars.timeframe, kind_of_bars(bars.origin), newest_close
    )
    outcomes = find_outcomes(kept, bars)
    return record.resolve(outcomes, _ms(now)) if outcomes else 0


def find_outcomes(predictions: Sequence[Kept], bars: Bars) -> list[PredictionOutcome]:
    """What became of predictions, by the label rules of training.

    Args:
        predictions: Of the bars' market, without an outcome.
        bars: With those that the predictions were made on, and later ones.

    Returns:
        One for each whose horizon has passed and whose bars are here. A gap where training
        has no label makes it void.
    """
    outcomes: list[PredictionOutcome] = []
    for text in dict.fromkeys(kept.label_rule for kept in predictions):
        rule = label_rule_from_json(json.loads(text))
        chosen = [kept for kept in predictions if kept.label_rule == text]
        outcomes += _outcomes_by(rule, chosen, bars)
    return outcomes


def _outcomes_by(
    rule: LabelRule, predictions: Sequence[Kept], bars: Bars
) -> list[PredictionOutcome]:
    step, open_time = bars.timeframe.milliseconds, bars.open_time
    first, newest_close = int(open_time[0]), int(open_time[-1]) + step
    due = [
        kept
        for kept in predictions
        if kept.ts + rule.horizon * step <= newest_close
        # Sigma looks back: a label from bars that begin too late is not the one of training.
        and kept.ts - (1 + rule.past_bars) * step >= first
    ]
    if not due:
        # A rule may look further than there are bars, and its labels would take as long.
        return []
    labels = rule.label(bars)
    rows = [int(np.searchsorted(open_time, kept.ts - step)) for kept in due]
    return [
        _outcome(kept, labels, row, bool(open_time[row] == kept.ts - step))
        for kept, row in zip(due, rows, strict=True)
    ]


def _outcome(kept: Kept, labels: Labels, row: int, is_there: bool) -> PredictionOutcome:
    if not is_there:
        return PredictionOutcome(kept.id, None, None, "the bar that it was made on is missing")
    label, forward_return = int(labels.label[row]), float(labels.forward_return[row])
    if label == UNKNOWN_LABEL:
        return PredictionOutcome(
            kept.id, None, None, "a gap in the bars, or a price that did not move"
        )
    if not math.isfinite(forward_return):
        return PredictionOutcome(kept.id, None, None, "its return is no number")
    return PredictionOutcome(kept.id, label, forward_return)


def _baselines(
    bars: Bars, rule: LabelRule, train_shares: Sequence[float] | None
) -> Mapping[str, BaselineForecast]:
    """What each says at the newest bar."""
    labels = rule.label(bars).label
    # Of rows without a gap persistence is the label of ``horizon`` bars ago; -1 stays unknown.
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

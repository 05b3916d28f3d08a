"""A prediction as JSON for programs; the command and the server use the same form."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from percoin.bars.schema import Bars
from percoin.signals.freshness import is_overdue
from percoin.types import (
    CLASS_NAMES,
    ExpectedMove,
    Prediction,
    Signal,
    Source,
    Timeframe,
    Worth,
    horizon_end,
)

TARGETS = ("tp1", "tp2", "tp3")
_USE_FIELDS = (
    "version_id",
    "horizon_bars",
    "valid_until",
    "threshold",
    "would_trade",
    "levels_reached",
    "labels",
    "compared_with",
)


def to_json(prediction: Prediction, bars: Bars, now: datetime) -> dict[str, object]:
    """Return the prediction as one JSON object; times are ISO 8601 in UTC.

    Args:
        prediction: Prediction on the newest bar.
        bars: Bars that the prediction was made from.
        now: Time with a zone; the age of the newest bar is counted up to it.
    """
    content: dict[str, object] = {
        "symbol": prediction.symbol,
        "tf": prediction.timeframe.value,
        "pred": prediction.signal.name,
        "confidence": prediction.confidence,
        "source": prediction.source.value,
        "model_version": prediction.model_version,
        "ts": prediction.ts.isoformat(),
        **age_to_json(prediction.ts, prediction.timeframe, now),
        "close": float(bars.column("close")[-1]),
        "bars": bars.origin,
        "probabilities": None,
        "detail": prediction.detail or None,
        **_move_to_json(prediction),
        **_worth_to_json(prediction.worth),
        **_use_to_json(prediction),
        "passed": [
            {"source": passed.source.value, "reason": passed.reason, "detail": passed.detail}
            for passed in prediction.passed
        ],
    }
    if prediction.probabilities is not None:
        content["probabilities"] = dict(zip(CLASS_NAMES, prediction.probabilities, strict=True))
    levels = prediction.levels
    if levels is not None:
        content |= {
            "entry_price": levels.entry_price,
            "stop_loss": levels.stop_loss,
            "tp1": levels.tp1,
            "tp2": levels.tp2,
            "tp3": levels.tp3,
        }
    return content


def age_to_json(ts: datetime, timeframe: Timeframe, now: datetime) -> dict[str, object]:
    """Return the fields of a prediction that change with the clock alone.

    Args:
        ts: Close of the bar that the prediction is made on.
        timeframe: Length of the bar.
        now: Current time, with a zone.
    """
    return {
        "age_secs": round((now - ts).total_seconds(), 3),
        "stale": is_overdue(ts, timeframe, now),
    }


def _move_to_json(prediction: Prediction | None) -> dict[str, object]:
    """Return how far the price is expected to move; null values if that is not known."""
    move = None if prediction is None else prediction.expected_move
    if prediction is None or move is None:
        return {"expected_move": None, "bands": None, "bands_at": None}
    at = horizon_end(prediction.ts, move.horizon_bars, prediction.timeframe)
    return {
        "expected_move": move.percent,
        "bands": bands_to_json(move),
        "bands_at": None if at is None else at.isoformat(),
    }


def bands_to_json(move: ExpectedMove) -> dict[str, dict[str, float]]:
    """Return the two prices of each band by its level in percent."""
    return {str(band.level): {"lower": band.lower, "upper": band.upper} for band in move.bands}


def _worth_to_json(worth: Worth | None) -> dict[str, object]:
    """Return the measured quality of the answering source; null values for holding."""
    if worth is None:
        return {"verdict": None, "refit": None, "hit_rate": None}
    judged: dict[str, object] = {"verdict": worth.verdict, "refit": worth.refit}
    rate = worth.hit_rate
    if rate is None or worth.until is None:
        return judged | {"hit_rate": None}
    measured = {"n_moves": worth.n_moves, "until": worth.until.isoformat()}
    return judged | {"hit_rate": rate.as_json() | measured}


def _use_to_json(prediction: Prediction) -> dict[str, object]:
    """Return how long the answer is good for and whether it would be traded, as it was judged."""
    worth, valid_until = prediction.worth, prediction.valid_until
    return {
        "version_id": prediction.version_id,
        "horizon_bars": prediction.horizon_bars,
        "valid_until": None if valid_until is None else valid_until.isoformat(),
        "threshold": None if worth is None else worth.threshold,
        "would_trade": prediction.would_trade,
        "levels_reached": _reached_to_json(prediction),
        "labels": prediction.labels,
        "compared_with": list(prediction.compared_with) or None,
    }


def _reached_to_json(prediction: Prediction) -> dict[str, object] | None:
    """Return how often such stops and targets were reached; None without levels of its own."""
    reached = None if prediction.worth is None else prediction.worth.reached
    if reached is None or prediction.levels is None:
        return None
    shares = {name: getattr(reached, name).as_json() for name in ("stop_loss", *TARGETS)}
    return {"n_signals": reached.n_signals, **shares}


def no_bars_to_json(
    symbol: str, timeframe: Timeframe, sources: Sequence[Source], why: str
) -> dict[str, object]:
    """Return the answer for a market without a single bar: hold.

    Args:
        symbol: The market.
        timeframe: The timeframe asked about.
        sources: Sources that come before holding in the chain.
        why: Why there are no bars.
    """
    return {
        "symbol": symbol,
        "tf": timeframe.value,
        "pred": Signal.NO_TRADE.name,
        "confidence": 0.0,
        "source": Source.HOLD.value,
        "model_version": None,
        "ts": None,
        "age_secs": None,
        "stale": True,
        "close": None,
        "bars": None,
        "probabilities": None,
        "detail": None,
        **_move_to_json(None),
        **_worth_to_json(None),
        **dict.fromkeys(_USE_FIELDS),
        "passed": [
            {"source": source.value, "reason": "insufficient_data", "detail": why}
            for source in sources
        ],
    }

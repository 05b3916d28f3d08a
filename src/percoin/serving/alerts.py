"""What is worth an alert: how a market stands, held against how it stood at the last look."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from percoin.registry.manifest import StoredVerdict
from percoin.types import Timeframe


class AlertKind(StrEnum):
    """What an alert tells."""

    SIGNAL_CHANGED = "signal_changed"
    MODEL_DEMOTED = "model_demoted"
    """The model that is served is not accepted any more."""
    BARS_STALE = "bars_stale"


@dataclass(frozen=True)
class Alert:
    """One event, told once to each receiver.

    Attributes:
        id: The same if it is delivered again.
        kind: An ``AlertKind``.
        symbol: Market.
        tf: Bar length.
        at: When it was noticed, ISO 8601 in UTC.
        text: One line for people.
        details: What a program may want to know, by name.
    """

    kind: str
    symbol: str
    tf: str
    at: str
    text: str
    details: Mapping[str, str | float | None]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Seen:
    """How a market stood at a look.

    Attributes:
        pred: Name of the signal; None before the first answer.
        is_accepted: Whether the model that is served was accepted.
        is_stale: Whether its bars were too old.
    """

    pred: str | None = None
    is_accepted: bool = False
    is_stale: bool = False


@dataclass(frozen=True)
class ObservedMarket:
    """How a market stands now.

    Attributes:
        symbol: Market.
        timeframe: Bar length.
        now: Time of the look, with a zone.
        answer: Its answer as a JSON object; None before the first.
        model: Its model as ``/api/models`` tells it.
        closed: Close of the bar behind the answer; None without an answer.
        is_stale: Whether its bars are too old.
    """

    symbol: str
    timeframe: Timeframe
    now: datetime
    answer: Mapping[str, Any] | None
    model: Mapping[str, Any]
    closed: datetime | None
    is_stale: bool

    @property
    def key(self) -> str:
        """The market in one word for a file."""
        return f"{self.symbol} {self.timeframe}"

    def seen(self, before: Seen) -> Seen:
        """What the next look is held against; what cannot be told now stays as it was."""
        verdict = self.model["verdict"]
        return Seen(
            before.pred if self.answer is None else self.answer["pred"],
            before.is_accepted if verdict is None else verdict == StoredVerdict.ACCEPTED,
            # A server that has just begun has no bars yet.
            self.is_stale or (self.closed is None and before.is_stale),
        )


def find_alerts(before: Seen, state: ObservedMarket) -> Iterator[Alert]:
    """The alerts for what has changed since ``before``; a first signal is no change."""
    seen = state.seen(before)
    if before.pred is not None and seen.pred != before.pred:
        yield _signal_changed(before.pred, state)
    if before.is_accepted and not seen.is_accepted:
        yield _model_demoted(state)
    if seen.is_stale and not before.is_stale:
        yield _bars_stale(state)


def _signal_changed(before: str, state: ObservedMarket) -> Alert:
    answer = state.answer or {}
    sure = f", confidence {answer['confidence']:.2f}" if answer["confidence"] is not None else ""
    worth = f" ({answer['verdict']})" if answer["verdict"] else ""
    text = f"{answer['pred']}, was {before}{sure}, by {answer['source']}{worth}"
    names = ("pred", "confidence", "source", "model_version", "verdict", "ts", "close")
    details = {name: answer[name] for name in names}
    return _alert(AlertKind.SIGNAL_CHANGED, state, text, before=before, **details)


def _model_demoted(state: ObservedMarket) -> Alert:
    model = state.model
    reason = next(iter(model["reasons"]), "")
    text = f"its model is not accepted any more: {reason or model['verdict']}"
    details = {name: model[name] for name in ("version_id", "model_version", "verdict")}
    return _alert(AlertKind.MODEL_DEMOTED, state, text, reason=reason, **details)


def _bars_stale(state: ObservedMarket) -> Alert:
    closed = None if state.closed is None else state.closed.isoformat(timespec="seconds")
    text = "no bar has come yet" if closed is None else f"no bar has come since {closed}"
    return _alert(AlertKind.BARS_STALE, state, text, closed=closed)


def _alert(
    kind: AlertKind, state: ObservedMarket, text: str, **details: str | float | None
) -> Alert:
    at = state.now.isoformat(timespec="seconds")
    text = f"{state.key}: {text}"
    return Alert(kind.value, state.symbol, state.timeframe.value, at, text, details)

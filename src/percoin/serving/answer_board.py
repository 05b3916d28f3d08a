"""The answers of all markets, each made once and kept until what it rests on changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from threading import Event, Thread

import numpy as np

from percoin.bars.schema import Bars
from percoin.serving.bar_keeper import BarKeeper, Held, tell_missing
from percoin.serving.discretion import Discretion
from percoin.serving.each_market import EachMarket, Pauses
from percoin.serving.offer import Clock, Market, Offer, utc_now
from percoin.serving.recorder import Recorder
from percoin.serving.served_models import ServedModels
from percoin.serving.strict_json import dumps
from percoin.signals.chain import Chain, ask
from percoin.signals.freshness import find_staleness
from percoin.signals.market import SourcedBars
from percoin.signals.response import age_to_json, no_bars_to_json, to_json
from percoin.types import Source, Timeframe

log = logging.getLogger(__name__)

Basis = tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Answer:
    """What is said of one market.

    Attributes:
        content: The answer as JSON, at the moment when it was made.
        closed: When the bar closed that it was made on.
        basis: All that it rests on; another one makes another answer.
        before: Its text up to the age, written once for many requests.
        after: Its text from the age on.
    """

    content: Mapping[str, object]
    closed: datetime
    basis: Basis
    before: str = field(init=False)
    after: str = field(init=False)

    def __post_init__(self) -> None:
        entries = list(self.content.items())
        place = list(self.content).index("age_secs")
        n_aging = len(age_to_json(self.closed, Timeframe.M15, self.closed))
        before, after = dict(entries[:place]), dict(entries[place + n_aging :])
        object.__setattr__(self, "before", dumps(before)[:-1])
        object.__setattr__(self, "after", dumps(after)[1:])

    def at(self, timeframe: Timeframe, now: datetime) -> dict[str, object]:
        """The answer with its age at a moment."""
        return {**self.content, **age_to_json(self.closed, timeframe, now)}

    def text_at(self, timeframe: Timeframe, now: datetime) -> str:
        """The same as JSON text."""
        age = dumps(age_to_json(self.closed, timeframe, now))[1:-1]
        return f"{self.before}, {age}, {self.after}"


class AnswerBoard:
    """Makes the answers of all markets in the background; reading one only looks it up.

    Args:
        offer: The markets.
        keeper: Their bars.
        models: Their models.
        chain: Who is asked; the last always has an answer.
        discretion: Which folders are not spoken of.
        clock: The time.
        on_answer: Called after each answer that was made, with who gave it.
        recorder: Writes each answer down before it can be read here; None writes none.
    """

    def __init__(
        self,
        offer: Offer,
        keeper: BarKeeper,
        models: ServedModels,
        chain: Chain,
        discretion: Discretion,
        clock: Clock = utc_now,
        on_answer: Callable[[Source], None] = lambda source: None,
        recorder: Recorder | None = None,
    ) -> None:
        self._offer = offer
        self._keeper = keeper
        self._models = models
        self._chain = chain
        self._discretion = discretion
        self._clock = clock
        self._on_answer = on_answer
        self._recorder = recorder
        self._worths = chain.worths
        self._answers: dict[Market, Answer] = {}
        self._looks = EachMarket("ANSWER", "no answer can be made", clock)
        self._steps = EachMarket("ANSWER", "no answer can be made", clock)
        self._tried: dict[Market, Basis] = {}
        # Of answers without a model that is there: it may only have been on its way.
        self._pauses = Pauses(clock)
        self._renewed: dict[Market, datetime] = {}
        self._changed = Event()
        self._is_stopped = False
        self._thread: Thread | None = None

    def answer(self, symbol: str, timeframe: Timeframe) -> dict[str, object]:
        """What is said of a market now; on nothing, as long as nothing is known."""
        answer = self._answers.get((symbol, timeframe))
        if answer is not None:
            return answer.at(timeframe, self._clock())
        held = self._keeper.held(symbol)[timeframe]
        why = f"{symbol} {timeframe}: the first answer is being made; ask again in a moment"
        if held.bars is None:
            why = tell_missing(symbol, timeframe, held)
        return no_bars_to_json(symbol, timeframe, self._chain.names, self._discretion.text(why))

    def text(self, symbol: str, timeframe: Timeframe) -> str:
        """The same as JSON text, of which all but the age has been written before."""
        answer = self._answers.get((symbol, timeframe))
        if answer is None:
            return dumps(self.answer(symbol, timeframe))
        return answer.text_at(timeframe, self._clock())

    def closed(self, symbol: str, timeframe: Timeframe) -> datetime | None:
        """When the bar closed that a market's answer was made on; None without one."""
        answer = self._answers.get((symbol, timeframe))
        return None if answer is None else answer.closed

    def failure(self, market: Market) -> str:
        """Why the newest answer of a market could not be made; empty if it could."""
        return self._looks.failure(market) or self._steps.failure(market)

    def renewed(self, market: Market) -> datetime | None:
        """When a market's answer was last made, or found to be what would be made again."""
        return self._renewed.get(market)

    def update(self) -> int:
        """Make the answers whose basis has changed; returns how many."""
        self._models.look()
        n_made = 0
        for market in self._offer.markets():
            if not self._is_stopped:
                n_made += self._update(market)
        if self._recorder is not None and not self._is_stopped:
            self._recorder.catch_up(self._offer, self._keeper)
        return n_made

    def start(self, every_secs: float) -> None:
        """Update in the background, after each ``wake`` and in any case every so often."""
        self._thread = Thread(
            target=self._work, args=(every_secs,), name="percoin-answers", daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """Look soon: bars have come."""
        self._changed.set()

    def stop(self, timeout_secs: float) -> bool:
        """Make no further answer; whether the one in the making ended in time."""
        self._is_stopped = True
        self._changed.set()
        if self._thread is not None:
            self._thread.join(timeout_secs)
        return self._thread is None or not self._thread.is_alive()

    @property
    def is_working(self) -> bool:
        """Whether the thread that was started is there."""
        return self._thread is None or self._thread.is_alive()

    def _work(self, every_secs: float) -> None:
        while not self._is_stopped:
            self._changed.clear()
            try:
                self.update()
            except Exception:
                # A thread that ended here would leave every answer as it is for good.
                log.exception("ANSWERS cannot be updated")
            self._changed.wait(every_secs)

    def _update(self, market: Market) -> bool:
        """Make one answer if it is due; whether it was made."""
        now = self._clock()
        all_held = self._keeper.held(market[0])
        bars = all_held[market[1]].bars
        if bars is None:
            return False
        look = partial(self._basis, market, bars, all_held, now)
        basis = self._looks.run(market, look, None)
        if basis is None:
            return False
        known = self._answers.get(market)
        if known is not None and known.basis == basis and not self._pauses.is_due(market):
            self._renewed[market] = now
            return False
        if self._tried.get(market) == basis and not self._steps.may_try(market):
            return False
        self._tried[market] = basis
        return self._steps.run(market, partial(self._make, market, bars, basis, now), False)

    def _make(self, market: Market, bars: Bars, basis: Basis, now: datetime) -> bool:
        """Make one answer, write it down, then show it; always true."""
        sourced = SourcedBars(bars, self._keeper.source(bars.symbol))
        prediction = ask(self._chain.sources, sourced, self._chain.max_age_bars, now)
        if self._recorder is not None:
            self._recorder.note(prediction, bars, now)
        self._on_answer(prediction.source)
        content = self._discretion.content(to_json(prediction, bars, now))
        self._answers[market] = Answer(content, prediction.ts, basis)
        self._renewed[market] = now
        if any(passed.reason == "model_invalid" for passed in prediction.passed):
            self._pauses.begin(market)
        else:
            self._pauses.end(market)
        return True

    def _basis(
        self, market: Market, bars: Bars, all_held: Mapping[Timeframe, Held], now: datetime
    ) -> Basis:
        """All that an answer rests on: the model, what the rules are worth, and the bars.

        Of other timeframes only bars count that had closed by the close of the newest
        asked one.
        """
        status = self._models.status(market)
        closed_ms = all_held[market[1]].close_times[-1]
        seen = [
            (len(times), int(times[0]), int(times[-1]))
            for held in all_held.values()
            if len(times := held.close_times[: _n_closed(held, closed_ms)])
        ]
        is_old = bool(find_staleness(bars, self._chain.max_age_bars, now))
        model = None if status is None else (status.mark, status.problem)
        worth = None if self._worths is None else self._worths.mark(*market, bars.origin)
        return (model, worth, is_old, int(closed_ms), bars.origin, *seen)


def _n_closed(held: Held, moment: int) -> int:
    return int(np.searchsorted(held.close_times, moment, side="right"))

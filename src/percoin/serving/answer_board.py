"""The answers for all markets; each is made once and kept until its inputs change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
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
from percoin.signals.chain import Chain, ask, prepare
from percoin.signals.freshness import find_staleness
from percoin.signals.market import SourcedBars
from percoin.signals.response import age_to_json, no_bars_to_json, to_json
from percoin.types import Source, Timeframe

log = logging.getLogger(__name__)

# So many markets are asked together: the first answers need not wait for all of them.
_TOGETHER = 64

Basis = tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer for one market.

    Attributes:
        content: The answer as a JSON object, with its age when it was made.
        closed: Close time of the bar behind the answer.
        basis: All inputs of the answer; if they change, a new answer is made.
        version_id: The version that answered; None if no model did.
        before: JSON text before the age, written once for many requests.
        after: JSON text after the age.
    """

    content: Mapping[str, object]
    closed: datetime
    basis: Basis
    version_id: str | None = None
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
        """The answer as a JSON object, with its age at ``now``."""
        return {**self.content, **age_to_json(self.closed, timeframe, now)}

    def text_at(self, timeframe: Timeframe, now: datetime) -> str:
        """The answer as JSON text, with its age at ``now``."""
        age = dumps(age_to_json(self.closed, timeframe, now))[1:-1]
        return f"{self.before}, {age}, {self.after}"


class AnswerBoard:
    """Makes the answers for all markets in the background; requests only look them up.

    Args:
        offer: The served markets.
        keeper: Holds their bars.
        models: Knows their models.
        chain: Sources in the order they are asked; the last always answers.
        discretion: Removes folder names from texts.
        clock: Gives the current time.
        on_answer: Called after each new answer, with the source that gave it.
        recorder: Writes each answer before requests can read it; None writes nothing.
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
        # Retry times after a model could not be read: its files may still be on their way.
        self._pauses = Pauses(clock)
        self._renewed: dict[Market, datetime] = {}
        self._changed = Event()
        self._is_stopped = False
        self._thread: Thread | None = None

    def answer(self, symbol: str, timeframe: Timeframe) -> dict[str, object]:
        """A market's answer as a JSON object; before the first answer, it says why none exists."""
        answer = self._answers.get((symbol, timeframe))
        if answer is not None:
            return answer.at(timeframe, self._clock())
        held = self._keeper.held(symbol)[timeframe]
        why = f"{symbol} {timeframe}: the first answer is being made; ask again in a moment"
        if held.bars is None:
            why = tell_missing(symbol, timeframe, held)
        return no_bars_to_json(symbol, timeframe, self._chain.names, self._discretion.text(why))

    def text(self, symbol: str, timeframe: Timeframe) -> str:
        """A market's answer as JSON text; only the age is written anew."""
        answer = self._answers.get((symbol, timeframe))
        if answer is None:
            return dumps(self.answer(symbol, timeframe))
        return answer.text_at(timeframe, self._clock())

    def closed(self, symbol: str, timeframe: Timeframe) -> datetime | None:
        """Close time of the bar behind a market's answer; None without an answer."""
        answer = self._answers.get((symbol, timeframe))
        return None if answer is None else answer.closed

    def version_id(self, symbol: str, timeframe: Timeframe) -> str | None:
        """The version that gave a market's answer; None without an answer of a model."""
        answer = self._answers.get((symbol, timeframe))
        return None if answer is None else answer.version_id

    def failure(self, market: Market) -> str:
        """Why the last try to make a market's answer failed; empty if it worked."""
        return self._looks.failure(market) or self._steps.failure(market)

    def renewed(self, market: Market) -> datetime | None:
        """When a market's answer was last made or found to be still right."""
        return self._renewed.get(market)

    def update(self) -> int:
        """Make the answers whose inputs have changed; return how many were made."""
        self._models.look()
        self._keeper.keep_also(self._models.compared_with())
        n_made = 0
        due = [found for each in self._offer.markets() if (found := self._due(each)) is not None]
        for start in range(0, len(due), _TOGETHER):
            together = due[start : start + _TOGETHER]
            if len(together) > 1 and not self._is_stopped:
                self._prepare([bars for _, bars, _ in together])
            for market, bars, basis in together:
                if not self._is_stopped:
                    make = partial(self._make, market, bars, basis)
                    n_made += self._steps.run(market, make, False)
        if self._recorder is not None and not self._is_stopped:
            self._recorder.catch_up(self._offer, self._keeper)
        return n_made

    def start(self, every_secs: float) -> None:
        """Update in a background thread: after each ``wake``, and every ``every_secs`` seconds."""
        self._thread = Thread(
            target=self._work, args=(every_secs,), name="percoin-answers", daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """Update soon, for example because new bars have come."""
        self._changed.set()

    def stop(self, timeout_secs: float) -> bool:
        """Stop making answers; return whether the thread ended in time."""
        self._is_stopped = True
        self._changed.set()
        if self._thread is not None:
            self._thread.join(timeout_secs)
        return self._thread is None or not self._thread.is_alive()

    @property
    def is_working(self) -> bool:
        """Whether the background thread is alive; also true before ``start``."""
        return self._thread is None or self._thread.is_alive()

    def _work(self, every_secs: float) -> None:
        while not self._is_stopped:
            self._changed.clear()
            try:
                self.update()
            except Exception:
                # If the thread ended here, no answer would ever be updated again.
                log.exception("ANSWERS cannot be updated")
            self._changed.wait(every_secs)

    def _due(self, market: Market) -> tuple[Market, Bars, Basis] | None:
        """What the next answer is made of, if one is due."""
        if self._is_stopped:
            return None
        now = self._clock()
        all_held = self._keeper.held(market[0])
        own = all_held[market[1]]
        bars = own.bars
        if bars is None or self._awaits_references(market, int(own.close_times[-1])):
            return None
        look = partial(self._basis, market, bars, all_held, now)
        basis = self._looks.run(market, look, None)
        if basis is None:
            return None
        known = self._answers.get(market)
        if known is not None and known.basis == basis and not self._pauses.is_due(market):
            self._renewed[market] = now
            return None
        if self._tried.get(market) == basis and not self._steps.may_try(market):
            return None
        self._tried[market] = basis
        return market, bars, basis

    def _awaits_references(self, market: Market, close_ms: int) -> bool:
        """Whether the model compares with a market whose bar of this close is about to be loaded.

        Bars of each symbol come seconds apart; without one, the model would give no answer. The
        first try to load it ends the wait, even if it fails.
        """
        status = self._models.status(market)
        manifest = None if status is None else status.manifest
        names = () if manifest is None else manifest.references
        return any(self._keeper.awaits(name, market[1], close_ms) for name in names)

    def _prepare(self, markets: Sequence[Bars]) -> None:
        try:
            prepare(self._chain.sources, markets)
        except Exception:
            # Asked one by one, those without an error still have their answers.
            log.exception("ANSWERS are made one by one")

    def _make(self, market: Market, bars: Bars, basis: Basis) -> bool:
        """Make one answer, write it to the record, then publish it; always return True."""
        now = self._clock()
        sourced = SourcedBars(bars, self._keeper.source())
        prediction = ask(self._chain.sources, sourced, self._chain.max_age_bars, now)
        if self._recorder is not None:
            beside = self._recorder.beside(self._keeper, bars.timeframe)
            self._recorder.note(prediction, bars, now, beside)
        self._on_answer(prediction.source)
        content = self._discretion.content(to_json(prediction, bars, now))
        self._answers[market] = Answer(content, prediction.ts, basis, prediction.version_id)
        self._renewed[market] = now
        if any(passed.reason == "model_invalid" for passed in prediction.passed):
            self._pauses.begin(market)
        else:
            self._pauses.end(market)
        return True

    def _basis(
        self, market: Market, bars: Bars, all_held: Mapping[Timeframe, Held], now: datetime
    ) -> Basis:
        """All inputs of an answer: the model, the measured skill of the rules, and the bars.

        Bars of any timeframe count only if they closed no later than the market's newest bar.
        """
        status = self._models.status(market)
        closed_ms = all_held[market[1]].close_times[-1]
        seen = [
            (len(times), int(times[0]), int(times[-1]), _values(held, len(times)))
            for held in all_held.values()
            if len(times := held.close_times[: _n_closed(held, closed_ms)])
        ]
        manifest = None if status is None else status.manifest
        compared = (
            []
            if manifest is None
            else [
                (int(times[-1]), _values(held, len(times)))
                for symbol in manifest.references
                if self._keeper.keeps(symbol, market[1])
                and (held := self._keeper.held(symbol)[market[1]])
                and len(times := held.close_times[: _n_closed(held, closed_ms)])
            ]
        )
        is_old = bool(find_staleness(bars, self._chain.max_age_bars, now))
        model = None if status is None else (status.mark, status.problem)
        worth = None if self._worths is None else self._worths.mark(*market, bars.origin)
        return (model, worth, is_old, int(closed_ms), bars.origin, *seen, *compared)


def _values(held: Held, n_bars: int) -> bytes:
    """The values of the newest of so many bars, which a source may correct."""
    return b"" if held.bars is None else held.bars.values[n_bars - 1].tobytes()


def _n_closed(held: Held, moment: int) -> int:
    return int(np.searchsorted(held.close_times, moment, side="right"))

"""Measures the skill of the rules in the background, one market after another."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from threading import Event, Thread

from percoin.bars.sources.base import BarSource
from percoin.errors import BarsNotFoundError
from percoin.labels import LabelRule
from percoin.serving.answer_board import AnswerBoard
from percoin.serving.each_market import EachMarket
from percoin.serving.offer import Market, Offer
from percoin.signals.market import SourcedBars
from percoin.signals.worth import WorthFiles
from percoin.types import Timeframe

log = logging.getLogger(__name__)

# Measuring waits for the first answers, but not for ever: a market without bars gets none.
_LONGEST_WAIT_SECS = 120.0
_LOOK_SECS = 0.5


class SourceMeasuring:
    """Measures the rules on each market once, then ends.

    Args:
        offer: The served markets.
        source: Gives their bars.
        label_rules: Label rule per timeframe; a timeframe without one is not measured.
        worths: Stores the results.
        board: Updates its answers after a new result.
    """

    def __init__(
        self,
        offer: Offer,
        source: BarSource,
        label_rules: Mapping[Timeframe, LabelRule],
        worths: WorthFiles,
        board: AnswerBoard,
    ) -> None:
        self._offer = offer
        self._source = source
        self._label_rules = label_rules
        self._worths = worths
        self._board = board
        self._steps = EachMarket("WORTH", "its sources cannot be measured")
        self._stopped = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Start a thread that measures after the first answers exist."""
        self._thread = Thread(target=self._work, name="percoin-worth", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current market."""
        self._stopped.set()

    def measure_all(self) -> int:
        """Measure each market whose bars have changed since the last time; return how many."""
        n_measured = 0
        for market in self._offer.markets():
            if not self._stopped.is_set():
                n_measured += self._steps.run(market, partial(self._measure, market), False)
        return n_measured

    def _work(self) -> None:
        waited = 0.0
        while waited < _LONGEST_WAIT_SECS and not all(
            self._board.closed(*market) for market in self._offer.markets()
        ):
            waited += _LOOK_SECS
            if self._stopped.wait(_LOOK_SECS):
                return
        n_measured = self.measure_all()
        log.info("WORTH of the sources measured on %d markets", n_measured)

    def _measure(self, market: Market) -> bool:
        # Imported here because it loads scipy, which would delay the first answers.
        from percoin.signals.measure import measure_again

        symbol, timeframe = market
        label_rule = self._label_rules.get(timeframe)
        if label_rule is None:
            return False
        try:
            bars = self._source.load(symbol, timeframe)
        except BarsNotFoundError:
            # The rules stay unjudged here; the loader of bars reports that bars are missing.
            return False
        is_new = measure_again(SourcedBars(bars, self._source), label_rule, self._worths)
        if is_new:
            self._board.wake()
        return is_new

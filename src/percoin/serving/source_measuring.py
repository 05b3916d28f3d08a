"""Measures in the background what the rules of the chain are worth, one market after another."""

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

# The first answers come first; a market without bars never has one.
_LONGEST_WAIT_SECS = 120.0
_LOOK_SECS = 0.5


class SourceMeasuring:
    """Measures each market once; ends when all are done.

    Args:
        offer: The markets.
        source: Where their bars are.
        label_rules: Of each timeframe; one without a rule is not measured.
        worths: Where what is found is kept.
        board: Made again where something was found.
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
        """Begin once the first answers are there."""
        self._thread = Thread(target=self._work, name="percoin-worth", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Begin no further market."""
        self._stopped.set()

    def measure_all(self) -> int:
        """Measure every market whose bars have changed since; returns how many were."""
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
        # Needs scipy: not before the first answers.
        from percoin.signals.measure import measure_again

        symbol, timeframe = market
        label_rule = self._label_rules.get(timeframe)
        if label_rule is None:
            return False
        try:
            bars = self._source.load(symbol, timeframe)
        except BarsNotFoundError:
            # They stay unjudged; that there are none is said by whoever brings the bars.
            return False
        is_new = measure_again(SourcedBars(bars, self._source), label_rule, self._worths)
        if is_new:
            self._board.wake()
        return is_new

"""How a server is: which of its markets have fresh answers, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from percoin import __version__
from percoin.serving.answer_board import AnswerBoard
from percoin.serving.bar_keeper import BarKeeper, tell_missing
from percoin.serving.discretion import Discretion
from percoin.serving.offer import Clock, Offer, utc_now
from percoin.serving.recorder import Recorder
from percoin.signals.freshness import is_overdue
from percoin.types import Timeframe

_SHOWN = 10


class Health:
    """Looks at the parts of a server.

    Args:
        offer: The markets.
        keeper: Their bars.
        board: Their answers.
        discretion: Which folders are not spoken of.
        clock: The time.
        recorder: Writes the answers down; None if that is switched off.
    """

    def __init__(
        self,
        offer: Offer,
        keeper: BarKeeper,
        board: AnswerBoard,
        discretion: Discretion,
        clock: Clock = utc_now,
        recorder: Recorder | None = None,
    ) -> None:
        self._offer = offer
        self._keeper = keeper
        self._board = board
        self._discretion = discretion
        self._clock = clock
        self._began = clock()
        self._recorder = recorder

    def report(self, with_details: bool) -> dict[str, object]:
        """One JSON object: ``starting``, ``ok`` or ``degraded``, and how many markets are how.

        Args:
            with_details: Whether to name the markets that have a problem.
        """
        now = self._clock()
        ages = {(symbol, tf): closed for symbol, tf, closed in self._closed()}
        stale = [key for key, closed in ages.items() if is_overdue(closed, key[1], now)]
        problems = dict(self._problems())
        n_markets = len(list(self._offer.markets()))
        is_working = self._keeper.is_working and self._board.is_working
        record = self._record_state()
        is_working &= record != "failing"
        is_well = is_working and not stale and not problems and len(ages) == n_markets
        content: dict[str, object] = {
            "status": "starting" if self._is_starting() else "ok" if is_well else "degraded",
            "version": __version__,
            "uptime_secs": round((now - self._began).total_seconds(), 3),
            "now": now.isoformat(),
            "markets": {
                "configured": n_markets,
                "with_bars": len(ages),
                "stale": len(stale),
                "failing": len(problems),
            },
            "record": record,
        }
        if with_details:
            content["failing"] = [
                {"symbol": symbol, "tf": tf.value, "problem": self._discretion.text(problem)}
                for (symbol, tf), problem in list(problems.items())[:_SHOWN]
            ]
        return content

    def ages(self) -> Iterator[tuple[str, Timeframe, float]]:
        """Seconds since the newest bar of each market closed."""
        now = self._clock()
        return (
            (symbol, tf, (now - closed).total_seconds()) for symbol, tf, closed in self._closed()
        )

    def _closed(self) -> Iterator[tuple[str, Timeframe, datetime]]:
        for symbol, timeframe in self._offer.markets():
            closed = self._board.closed(symbol, timeframe)
            if closed is not None:
                yield symbol, timeframe, closed

    def _record_state(self) -> str:
        if self._recorder is None:
            return "off"
        return "failing" if self._recorder.failure else "ok"

    def _problems(self) -> Iterator[tuple[tuple[str, Timeframe], str]]:
        for symbol, timeframe in self._offer.markets():
            held = self._keeper.held(symbol)[timeframe]
            problem = self._board.failure((symbol, timeframe))
            problem = problem or tell_missing(symbol, timeframe, held)
            if problem:
                yield (symbol, timeframe), problem

    def _is_starting(self) -> bool:
        """Whether there are markets whose bars have come and not been answered for, or not come."""
        for symbol, timeframe in self._offer.markets():
            held = self._keeper.held(symbol)[timeframe]
            has_answer = self._board.closed(symbol, timeframe) is not None
            if not has_answer and not held.failure and not self._board.failure((symbol, timeframe)):
                return True
        return False

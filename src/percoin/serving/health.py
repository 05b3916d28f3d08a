"""The state of a server: which markets have fresh answers, and the problems of the others."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from percoin import __version__
from percoin.monitoring.record import kind_of_bars
from percoin.monitoring.scoreboard import Standing
from percoin.serving.answer_board import AnswerBoard
from percoin.serving.bar_keeper import BarKeeper, tell_missing
from percoin.serving.discretion import Discretion
from percoin.serving.offer import Clock, Offer, utc_now
from percoin.serving.recorder import Recorder
from percoin.serving.telemetry import WatchedMarket
from percoin.signals.freshness import is_overdue
from percoin.types import Timeframe

_SHOWN = 10
# An answer is frozen if it was not checked for this time plus two check intervals. This is
# long enough for the first answers of many models, and for a slow database.
_FROZEN_AFTER_SECS = 60.0


class Health:
    """Reports the state of a server from its parts.

    Args:
        offer: The served markets.
        keeper: Holds their bars.
        board: Holds their answers.
        discretion: Removes folder names from texts.
        clock: Gives the current time.
        recorder: Writes the track record; None if recording is off.
        check_secs: Seconds between two checks of the answers.
    """

    def __init__(
        self,
        offer: Offer,
        keeper: BarKeeper,
        board: AnswerBoard,
        discretion: Discretion,
        clock: Clock = utc_now,
        recorder: Recorder | None = None,
        check_secs: float = 1.0,
    ) -> None:
        self._offer = offer
        self._keeper = keeper
        self._board = board
        self._discretion = discretion
        self._clock = clock
        self._began = clock()
        self._recorder = recorder
        self._frozen_after = timedelta(seconds=_FROZEN_AFTER_SECS + 2 * check_secs)

    def report(self, with_details: bool) -> dict[str, object]:
        """The state as a JSON object: ``starting``, ``ok`` or ``degraded``, and market counts.

        Args:
            with_details: Whether to name the markets that have a problem.
        """
        return self.state(with_details)[0]

    def state(self, with_details: bool) -> tuple[dict[str, object], bool]:
        """The object of ``report``, and False while the server starts or if all is frozen.

        An answer is frozen if it was neither renewed nor found to be still right for one
        minute plus two check intervals. A frozen answer may miss newer bars or models.
        """
        now = self._clock()
        ages = {(symbol, tf): closed for symbol, tf, closed in self._closed()}
        stale = [key for key, closed in ages.items() if is_overdue(closed, key[1], now)]
        renewed = {market: self._board.renewed(market) for market in ages}
        frozen = {
            (symbol, tf): _tell_frozen(symbol, tf, moment)
            for (symbol, tf), moment in renewed.items()
            if moment is None or now - moment > self._frozen_after
        }
        problems = frozen | dict(self._problems())
        n_markets = len(list(self._offer.markets()))
        is_working = self._keeper.is_working and self._board.is_working
        record = self._record_state()
        is_working &= record != "failing"
        is_well = is_working and not stale and not problems and len(ages) == n_markets
        is_starting = self._is_starting()
        oldest = min((moment for moment in renewed.values() if moment), default=None)
        content: dict[str, object] = {
            "status": "starting" if is_starting else "ok" if is_well else "degraded",
            "version": __version__,
            "uptime_secs": round((now - self._began).total_seconds(), 3),
            "now": now.isoformat(),
            "markets": {
                "configured": n_markets,
                "with_bars": len(ages),
                "stale": len(stale),
                "failing": len(problems),
                "frozen": len(frozen),
            },
            "record": record,
            "oldest_renewal": _iso(oldest),
        }
        if with_details:
            content["failing"] = [
                {
                    "symbol": symbol,
                    "tf": tf.value,
                    "problem": self._discretion.text(problem),
                    "renewed": _iso(renewed.get((symbol, tf))),
                }
                for (symbol, tf), problem in list(problems.items())[:_SHOWN]
            ]
        is_frozen = bool(frozen) and len(frozen) == len(ages)
        return content, not is_starting and not is_frozen

    def states(self) -> Iterator[WatchedMarket]:
        """What the answer of every market says that has one."""
        now = self._clock()
        standings = {} if self._recorder is None else _by_forecaster(self._recorder)
        for symbol, timeframe, closed in self._closed():
            answer = self._board.answer(symbol, timeframe)
            version_id, bars = self._board.version_id(symbol, timeframe), str(answer["bars"])
            forecaster = symbol, timeframe, answer["source"], version_id, kind_of_bars(bars)
            age_secs = (now - closed).total_seconds()
            yield WatchedMarket(symbol, timeframe, age_secs, answer, standings.get(forecaster))

    def _closed(self) -> Iterator[tuple[str, Timeframe, datetime]]:
        for symbol, timeframe in self._offer.markets():
            closed = self._board.closed(symbol, timeframe)
            if closed is not None:
                yield symbol, timeframe, closed

    def _record_state(self) -> str:
        if self._recorder is None:
            return "off"
        is_failing = bool(self._recorder.failure) or self._recorder.scoreboard.is_failing
        return "failing" if is_failing else "ok"

    def _problems(self) -> Iterator[tuple[tuple[str, Timeframe], str]]:
        for symbol, timeframe in self._offer.markets():
            held = self._keeper.held(symbol)[timeframe]
            problem = self._board.failure((symbol, timeframe))
            problem = problem or tell_missing(symbol, timeframe, held)
            if problem:
                yield (symbol, timeframe), problem

    def _is_starting(self) -> bool:
        """Whether any market still waits for its first bars or answer without a failure."""
        for symbol, timeframe in self._offer.markets():
            held = self._keeper.held(symbol)[timeframe]
            has_answer = self._board.closed(symbol, timeframe) is not None
            if not has_answer and not held.failure and not self._board.failure((symbol, timeframe)):
                return True
        return False


def _by_forecaster(recorder: Recorder) -> dict[tuple[object, ...], Standing]:
    """The standings by market, source, version and bars; of several label rules the newest."""
    found = [standing for standing in recorder.scoreboard.found() if standing.until is not None]
    found.sort(key=lambda standing: standing.until.timestamp() if standing.until else 0.0)
    return {(one.symbol, one.tf, one.source, one.version_id, one.bars): one for one in found}


def _tell_frozen(symbol: str, timeframe: Timeframe, renewed: datetime | None) -> str:
    since = "it was made" if renewed is None else renewed.isoformat(timespec="seconds")
    return f"{symbol} {timeframe}: the answer has not been looked at since {since}"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()

"""Looks for what is worth an alert, and sends it, in threads that no answer waits for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from percoin.errors import InUseError
from percoin.file_lock import file_lock
from percoin.serving.alert_book import AlertBook
from percoin.serving.alerts import AlertKind, ObservedMarket, find_alerts
from percoin.serving.answer_board import AnswerBoard
from percoin.serving.offer import Clock, Offer, utc_now
from percoin.serving.receivers import Send, Sender
from percoin.serving.served_models import ServedModels

log = logging.getLogger(__name__)

ALERTS_FILE = "alerts.json"
_LOCK_FILE = ".alerts.lock"
# To the next try if another server has the alerts.
_TAKE_OVER_SECS = 5.0


@dataclass(frozen=True)
class AlertSettings:
    """What is alerted, and how.

    Attributes:
        receivers: How to send, by the name of the receiver.
        folder: Where ``ALERTS_FILE`` is kept.
        kinds: What is told.
        stale_bars: Bars are stale this many bar lengths after the newest closed.
        retry_secs: To the next try if a receiver takes nothing; doubled after each.
        max_retry_secs: Longest time between two tries.
    """

    receivers: Mapping[str, Send]
    folder: Path
    kinds: frozenset[AlertKind] = frozenset(AlertKind)
    stale_bars: float = 2.0
    retry_secs: float = 5.0
    max_retry_secs: float = 300.0


class Alerting:
    """Alerts of one server; work begins with ``start``.

    Of several servers on one folder the first alone looks and sends; another takes its place
    when it ends.

    Args:
        settings: What is alerted, and how.
        offer: The served markets.
        board: Holds their answers.
        models: Knows their models.
        clock: Gives the current time.
        on_event: Called with ``raised``, ``sent``, ``failed`` or ``dropped``, and a count.
    """

    def __init__(
        self,
        settings: AlertSettings,
        offer: Offer,
        board: AnswerBoard,
        models: ServedModels,
        clock: Clock = utc_now,
        on_event: Callable[[str, int], None] = lambda event, count: None,
    ) -> None:
        self._settings = settings
        self._offer = offer
        self._board = board
        self._models = models
        self._clock = clock
        self._began = clock()
        self._on_event = on_event
        self._stopped = Event()
        self._thread: Thread | None = None
        self._problem = ""

    def start(self, every_secs: float) -> None:
        """Look every ``every_secs`` seconds, and send, in background threads."""
        self._thread = Thread(
            target=self._work, args=(every_secs,), name="percoin-alerts", daemon=True
        )
        self._thread.start()

    def stop(self, timeout_secs: float) -> None:
        """Stop; wait so long for what is being sent, so that it is not sent again."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout_secs)

    def look(self, book: AlertBook) -> int:
        """Note what has changed since the last look; return how many alerts that makes.

        Raises:
            OSError: It cannot be written; the next look finds the same.
        """
        states = list(self._states())
        seen = {state.key: state.seen(book.seen(state.key)) for state in states}
        alerts = [
            alert
            for state in states
            for alert in find_alerts(book.seen(state.key), state)
            if alert.kind in self._settings.kinds
        ]
        if any(book.seen(key) != now for key, now in seen.items()):
            self._on_event("dropped", book.note(seen, alerts))
        self._on_event("raised", len(alerts))
        return len(alerts)

    def _states(self) -> Iterator[ObservedMarket]:
        now = self._clock()
        for symbol, timeframe in self._offer.markets():
            status = self._models.status((symbol, timeframe))
            closed = self._board.closed(symbol, timeframe)
            age_bars = (now - (closed or self._began)) / timeframe.timedelta
            if status is not None:
                yield ObservedMarket(
                    symbol,
                    timeframe,
                    now,
                    None if closed is None else self._board.answer(symbol, timeframe),
                    status.content,
                    closed,
                    age_bars > self._settings.stale_bars,
                )

    def _work(self, every_secs: float) -> None:
        folder = self._settings.folder
        while not self._stopped.is_set():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with file_lock(folder / _LOCK_FILE):
                    self._watch(
                        AlertBook(folder / ALERTS_FILE, self._settings.receivers), every_secs
                    )
            except (InUseError, OSError) as error:
                self._fail(str(error))
            self._stopped.wait(_TAKE_OVER_SECS)

    def _watch(self, book: AlertBook, every_secs: float) -> None:
        settings = self._settings
        pauses = settings.retry_secs, settings.max_retry_secs
        senders = [
            Sender(name, send, book, *pauses, self._on_event)
            for name, send in settings.receivers.items()
        ]
        try:
            while not self._stopped.is_set():
                if self._looked(book):
                    for sender in senders:
                        sender.wake()
                self._stopped.wait(every_secs)
        finally:
            for sender in senders:
                sender.stop()

    def _looked(self, book: AlertBook) -> int:
        try:
            n_found = self.look(book)
        except OSError as error:
            self._fail(str(error))
            return 0
        except Exception as error:
            # If the thread ended here, there would be no alert ever again.
            if self._fail(f"{type(error).__name__}: {error}"):
                log.exception("ALERTS cannot be looked for")
            return 0
        self._problem = ""
        return n_found

    def _fail(self, problem: str) -> bool:
        """Log a problem once, until it is another one; return whether it is new."""
        is_new = problem != self._problem
        self._problem = problem
        if is_new:
            log.warning("ALERTS failed: %s", problem)
        return is_new

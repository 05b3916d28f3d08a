"""Writes each prediction to the track record before it is served, and resolves it later."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Lock

from percoin.bars.schema import Bars
from percoin.bars.sources.base import BarSource
from percoin.errors import ConfigError, RecordError
from percoin.labels import LabelRule
from percoin.monitoring.record import RecordedPrediction, TrackRecord, written_at
from percoin.monitoring.resolution import (
    LoadBeside,
    is_before_outcome,
    make_entry,
    resolve,
)
from percoin.monitoring.scoreboard import Scoreboard
from percoin.serving.bar_keeper import BarKeeper
from percoin.serving.each_market import EachMarket
from percoin.serving.offer import Clock, Market, Offer, utc_now
from percoin.serving.served_models import ModelStatus, ServedModels
from percoin.types import Prediction, Timeframe

log = logging.getLogger(__name__)

# Enough for one day of 32 symbols in four timeframes while the database is away.
_MOST_WAITING = 8192
_FIRST_PAUSE_SECS = 1.0
_LONGEST_PAUSE_SECS = 60.0

Shares = tuple[float, ...]


class Recorder:
    """Writes each prediction before it is served, and resolves it when later bars come.

    If the database fails, answers are still served. Unwritten predictions wait in memory,
    and the write is tried again after a pause that doubles. A prediction counts as live only
    if its outcome is still unknown when it is written. Only the thread that makes answers
    may call ``note`` and ``catch_up``.

    Args:
        record: The track record.
        models: Give the label rule of each model.
        default_rules: Label rule per timeframe, for sources without a model.
        clock: Gives the current time.
        on_event: Called with ``written``, ``resolved``, ``failed`` or ``dropped``, and a count.
        stored: Bars of markets that are not served, for label rules that compare markets.
        scores: File for what the scoreboard has read of the record; None keeps nothing.
    """

    def __init__(
        self,
        record: TrackRecord,
        models: ServedModels,
        default_rules: Mapping[Timeframe, LabelRule],
        clock: Clock = utc_now,
        on_event: Callable[[str, int], None] = lambda event, count: None,
        stored: BarSource | None = None,
        scores: Path | None = None,
    ) -> None:
        self.record = record
        self._stored = stored
        self.scoreboard = Scoreboard(record, kept=scores)
        self._models = models
        self._default_rules = default_rules
        self._clock = clock
        self._on_event = on_event
        self._waiting: deque[tuple[RecordedPrediction, LabelRule | None]] = deque()
        self._seen: dict[Market, tuple[int, int]] = {}
        self._notes = EachMarket("RECORD", "its prediction cannot be resolved later", clock)
        self._writes = EachMarket("RECORD", "its prediction cannot be written", clock)
        self._outcomes = EachMarket("RECORD", "no outcome can be found", clock)
        self._failure = ""
        self._pause_secs = 0.0
        self._paused_until = 0.0
        self._state = Lock()

    @property
    def failure(self) -> str:
        """Why the database cannot be used; empty if it can."""
        with self._state:
            return self._failure

    def note(
        self,
        prediction: Prediction,
        bars: Bars,
        now: datetime,
        beside: LoadBeside | None = None,
    ) -> None:
        """Write a prediction that is about to be served; ``beside`` is as in ``resolve``."""
        rule, shares, known_until = self._measure(prediction)
        market = prediction.symbol, prediction.timeframe
        settled = partial(make_entry, prediction, bars, rule, now, shares, beside, known_until)
        entry = self._notes.run(market, settled, None)
        if entry is None:
            # The label rule failed: write the prediction without a rule; it stays open.
            rule, entry = None, make_entry(prediction, bars, None, now)
        self._waiting.append((entry, rule))
        while len(self._waiting) > _MOST_WAITING:
            self._waiting.popleft()
            self._on_event("dropped", 1)
        self._write_waiting()

    def catch_up(self, offer: Offer, keeper: BarKeeper) -> None:
        """Write waiting predictions, and resolve those of markets whose bars have changed."""
        self._write_waiting()
        if not self._is_paused():
            try:
                self.record.open()
            except (RecordError, ConfigError) as error:
                self._fail(error)
        for market in offer.markets():
            held = keeper.held(market[0])[market[1]]
            if held.bars is None:
                continue
            mark = (len(held.close_times), int(held.close_times[-1]))
            is_done = self._seen.get(market) == mark or not self._outcomes.may_try(market)
            if is_done or self._is_paused():
                continue
            beside = self.beside(keeper, market[1])
            n_resolved = self._outcomes.run(market, partial(self._resolve, held.bars, beside), None)
            if n_resolved is not None:
                self._seen[market] = mark
                self._on_event("resolved", n_resolved)

    def beside(self, keeper: BarKeeper, timeframe: Timeframe) -> LoadBeside:
        """Loads other markets' bars for label rules: those held, or else those stored."""
        held, stored = keeper.source(), self._stored

        def load(symbol: str) -> Bars:
            source = held if stored is None or keeper.keeps(symbol, timeframe) else stored
            return source.load(symbol, timeframe)

        return load

    def _resolve(self, bars: Bars, beside: LoadBeside) -> int | None:
        """Resolve predictions; return how many, or None if the database cannot be used."""
        try:
            n_resolved = resolve(self.record, bars, self._clock(), beside)
        except RecordError as error:
            self._fail(error)
            return None
        self._succeed()
        return n_resolved

    def _write_waiting(self) -> None:
        if not self._waiting or self._is_paused():
            return
        now_ms = round(self._clock().timestamp() * 1000)
        entries = [
            written_at(
                entry,
                now_ms,
                entry.is_live
                and rule is not None
                and is_before_outcome(rule, entry.ts, entry.tf, now_ms),
            )
            for entry, rule in self._waiting
        ]
        try:
            n_new = self._write(entries)
        except (RecordError, ConfigError) as error:
            self._fail(error)
            return
        self._waiting.clear()
        self._succeed()
        self._on_event("written", n_new)

    def _write(self, entries: Sequence[RecordedPrediction]) -> int:
        """Write all entries at once; if one is invalid, write each by itself. Count new rows."""
        try:
            return sum(self.record.write_all(entries))
        except ValueError:
            return sum(map(self._write_alone, entries))

    def _write_alone(self, entry: RecordedPrediction) -> bool:
        """Write one entry; an invalid one is logged and dropped, so the others can go on."""
        found = self._writes.run((entry.symbol, entry.tf), partial(self._tried, entry), None)
        if isinstance(found, RecordError):
            raise found
        if found is None:
            self._on_event("dropped", 1)
        return bool(found)

    def _tried(self, entry: RecordedPrediction) -> bool | RecordError:
        try:
            return self.record.write(entry)
        except RecordError as error:
            return error

    def _measure(
        self, prediction: Prediction
    ) -> tuple[LabelRule | None, Shares | None, datetime | None]:
        """What a prediction is measured by: label rule, class shares, and how far its model knows.

        The rule is the model's own, or the timeframe's default if no model answered. The
        shares are those of the model's train rows, None if it does not store them; the moment
        is the close of the newest bar that it was made from.
        """
        if prediction.version_id is None:
            return self._default_rules.get(prediction.timeframe), None, None
        status = self._status(prediction)
        if status is None or status.manifest is None:
            return None, None, None
        shares = None if status.train_rows is None else status.train_rows.class_shares
        return status.label_rule, shares, status.manifest.known_until

    def _status(self, prediction: Prediction) -> ModelStatus | None:
        """The status of the version that answered; None if it is no longer served."""
        for _ in range(2):
            status = self._models.status((prediction.symbol, prediction.timeframe))
            manifest = None if status is None else status.manifest
            if manifest is not None and manifest.version_id == prediction.version_id:
                return status
            # The served version has changed since the last look at the models.
            self._models.look()
        return None

    def _is_paused(self) -> bool:
        return time.monotonic() < self._paused_until

    def _fail(self, error: RecordError | ConfigError) -> None:
        with self._state:
            is_new, self._failure = not self._failure, str(error)
        # ERROR at the first failure, DEBUG at each repeated one.
        log.log(logging.ERROR if is_new else logging.DEBUG, "RECORD failed: %s", error)
        self._on_event("failed", 1)
        doubled = max(_FIRST_PAUSE_SECS, 2 * self._pause_secs)
        self._pause_secs = min(doubled, _LONGEST_PAUSE_SECS)
        self._paused_until = time.monotonic() + self._pause_secs

    def _succeed(self) -> None:
        with self._state:
            was_failing, self._failure = bool(self._failure), ""
        if was_failing:
            log.info("RECORD is written again: %s", self.record)
        self._pause_secs = self._paused_until = 0.0

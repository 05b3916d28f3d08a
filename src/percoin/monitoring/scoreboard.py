"""Scores of the served predictions, per market, model and source."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from percoin.errors import PercoinError, RecordError
from percoin.evaluation.baselines import ROLLING_PRIOR
from percoin.evaluation.block_length import MIN_BLOCKS
from percoin.evaluation.hit_rate import moves_after
from percoin.evaluation.metrics import share_log_loss
from percoin.evaluation.uncertainty import Bootstrap, Estimate, skill_rows
from percoin.expected_move.scores import qlike
from percoin.intervals import Interval, KnownInterval
from percoin.monitoring.kept_scores import NumberColumn, read_scores, write_scores
from percoin.monitoring.record import Kept, TrackRecord
from percoin.monitoring.resolution import PRIOR
from percoin.monitoring.scored_rows import ForecasterRows
from percoin.types import FloatArray, IntArray, Source, Timeframe

log = logging.getLogger(__name__)

_REPETITIONS = 1000
# How long a request waits for a record that is read for the first time.
_PATIENCE_SECS = 60.0
# Between two looks while models and sources are still joining.
_GROWING_SECS = 1.0
# So far back a row may appear among rows that are known.
_LATE_ROWS = 200
# So many new ones are read again by the next start; each costs about 0.1 ms.
_ROWS_UNKEPT = 20_000
# An interval is no better with more blocks of hits; in a long record it only takes longer.
_MOST_HIT_BLOCKS = 500
# Sources that are also baselines, on the bars that they always read. They give no probabilities,
# so their skill uses the class shares that followed the same signal before; a baseline of other
# bars had other signals.
_SAME_RULE = {
    (Source.RSI_MA.value, Timeframe.H1.value): "rsi_ma",
    (Source.MOMENTUM.value, Timeframe.M15.value): "momentum",
}


@dataclass(frozen=True)
class Score:
    """The score of one forecaster on some rows.

    Attributes:
        skill: Share of the reference baseline's log-loss that the forecaster removes; None
            without probabilities, or with too few rows for an interval.
        hit_rate: Share of right directions among the LONG and SHORT signals that a move
            followed; None with too few of them for an interval.
        n_moves: Number of LONG and SHORT signals that a move followed.
    """

    skill: KnownInterval | None
    hit_rate: KnownInterval | None
    n_moves: int


@dataclass(frozen=True)
class MoveScore:
    """The score of the expected moves of some rows.

    Attributes:
        n_rows: Number of expected moves that are known to have come true or not.
        qlike: Mean loss of the variances (Patton, 2011); 0 is the best.
        coverage: By level in percent, the share of prices within the band.
    """

    n_rows: int
    qlike: Interval
    coverage: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The track record of one model or source on one market.

    Only live predictions are scored: those written before their outcome could be known.
    Late predictions are only counted.

    Attributes:
        bars: Kind of bar source, see ``kind_of_bars``.
        model_version: None without a model, like ``version_id``.
        label_rule: Rule that decides the outcomes; None if there is none.
        n_written: Number of live predictions.
        n_late: Number of predictions written after their outcome could be known.
        n_resolved: Number of live predictions with a label.
        n_void: Number of live predictions that will never have a label.
        too_few: What an interval still needs, in one phrase; empty if nothing.
        skill: See ``Score``, like ``hit_rate`` and ``n_moves``.
        baselines: Scores of the baselines on the same rows, by name.
        ruler: Reference baseline of the skill. It is ``rolling_prior``, or ``prior`` if some
            rows were written before the record stored the rolling prior.
        move: Score of the expected moves; None if none is known yet.
        since: Close of the first scored bar; None without scored bars.
        until: Close of the last scored bar; None without scored bars.
    """

    symbol: str
    tf: Timeframe
    source: str
    bars: str
    model_version: str | None
    version_id: str | None
    label_rule: Mapping[str, object] | None
    n_written: int
    n_late: int
    n_resolved: int
    n_void: int
    too_few: str
    skill: KnownInterval | None
    hit_rate: KnownInterval | None
    n_moves: int
    baselines: Mapping[str, Score] = field(default_factory=dict)
    ruler: str = ROLLING_PRIOR
    move: MoveScore | None = None
    since: datetime | None = None
    until: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object; times are ISO 8601 in UTC."""
        return dict(self._content)

    @cached_property
    def _content(self) -> dict[str, Any]:
        # Made once for many requests.
        content = asdict(self)
        for name in ("since", "until"):
            moment = content[name]
            content[name] = None if moment is None else moment.isoformat()
        return content | {"tf": self.tf.value}


Key = tuple[str, str, str, str, str, str, str]


class Scoreboard:
    """The standings of a record, kept up to date from its new rows alone.

    Each row is read when it is written and when it has an outcome; what its scores need stays in
    memory, some 100 bytes. A standing is computed again only if its rows have changed. A row
    that somebody deletes stays counted until the process ends.

    Args:
        record: The track record.
        repetitions: Bootstrap draws behind each interval.
        kept: File in which what was read is kept for the next start; None keeps nothing.
    """

    def __init__(
        self, record: TrackRecord, repetitions: int = _REPETITIONS, kept: Path | None = None
    ) -> None:
        self._record = record
        self._repetitions = repetitions
        self._rows: dict[Key, ForecasterRows] = {}
        self._known: dict[Key, tuple[tuple[int, int], Standing]] = {}
        # Rows without an outcome, and the newest rows, by their numbers.
        self._open: dict[int, Key] = {}
        self._newest: set[int] = set()
        self._last_id = 0
        self._kept = kept
        self._n_kept = self._n_read = 0
        self._lock = Lock()
        self._thread: Thread | None = None
        self._latest: list[Standing] = []
        self._failure: PercoinError | None = None
        self._is_read, self._is_stopped = Event(), Event()

    def standings(
        self, symbols: Sequence[str] | None = None, timeframe: Timeframe | None = None
    ) -> list[Standing]:
        """See ``make_scoreboard``; several threads may call this."""
        with self._lock:
            self._catch_up()
            return self._now(symbols, timeframe)

    def latest(
        self, symbols: Sequence[str] | None = None, timeframe: Timeframe | None = None
    ) -> list[Standing]:
        """The same without waiting: as the background thread last found it, if there is one.

        Raises:
            RecordError: As ``standings``; or the thread has not read the whole record yet.
        """
        if self._thread is None:
            return self.standings(symbols, timeframe)
        if not self._is_read.wait(_PATIENCE_SECS):
            raise RecordError(str(self._record), "it is still being read; ask again in a moment")
        if self._failure is not None:
            raise self._failure
        return [
            standing
            for standing in self._latest
            if (symbols is None or standing.symbol in symbols)
            and (timeframe is None or standing.tf is timeframe)
        ]

    def found(self) -> list[Standing]:
        """What ``latest`` would give, or nothing yet; neither waits nor raises."""
        return self._latest

    @property
    def is_failing(self) -> bool:
        """Whether the background thread could not read the record the last time."""
        return self._failure is not None

    def start(self, every_secs: float = 30.0) -> None:
        """Keep the standings up to date in a background thread."""
        self._thread = Thread(
            target=self._work, args=(every_secs,), name="percoin-scores", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the background thread after what it is doing."""
        self._is_stopped.set()

    def _work(self, every_secs: float) -> None:
        while not self._is_stopped.is_set():
            n_before = len(self._latest)
            try:
                if not self._n_read:
                    self.recall()
                self._latest = self.standings()
                self._failure = None
                self._is_read.set()
                if self._n_read - self._n_kept >= _ROWS_UNKEPT:
                    self.keep()
            except PercoinError as error:
                self._failure = error
                self._is_read.set()
            except Exception:
                # If the thread ended here, the standings would stay as they are for ever.
                log.exception("SCOREBOARD cannot be updated")
            # A server that has just begun writes its first answers one after the other.
            is_growing = len(self._latest) != n_before or not self._latest
            self._is_stopped.wait(min(every_secs, _GROWING_SECS) if is_growing else every_secs)

    def keep(self) -> None:
        """Write what was read to its file, if there is one.

        Raises:
            RecordError: The database cannot be used now.
        """
        if self._kept is None:
            return
        with self._lock:
            settled = max(0, self._last_id - _LATE_ROWS)
            columns: list[NumberColumn] = []
            header = {
                "settled": settled,
                "place": self._record.place_of(settled),
                "rows": [[key, rows.state(columns)] for key, rows in self._rows.items()],
                "open": list(self._open.items()),
                "newest": sorted(self._newest),
                "last_id": self._last_id,
                "n_read": self._n_read,
            }
            if write_scores(self._kept, header, columns):
                self._n_kept = self._n_read

    def recall(self) -> bool:
        """Take over what an earlier process kept of this very record; return whether it was there.

        Raises:
            RecordError: The database cannot be used now.
        """
        found = None if self._kept is None else read_scores(self._kept)
        if found is None:
            return False
        header = found.header
        with self._lock:
            n_resolved = sum(state["n_resolved"] for _, state in header["rows"])
            is_same = list(self._record.place_of(header["settled"])) == header["place"]
            if not is_same or self._record.revision()[1] < n_resolved:
                log.info("SCOREBOARD: the record is another or was changed; all of it is read")
                return False
            columns = iter(found.columns)
            for key, state in header["rows"]:
                self._rows[_as_key(key)] = ForecasterRows.of_state(state, columns)
            self._open = {number: _as_key(key) for number, key in header["open"]}
            self._newest, self._last_id = set(header["newest"]), header["last_id"]
            self._n_kept = self._n_read = header["n_read"]
        return True

    def _now(self, symbols: Sequence[str] | None, timeframe: Timeframe | None) -> list[Standing]:
        wanted = {
            key: rows
            for key, rows in self._rows.items()
            if (symbols is None or rows.symbol in symbols)
            and (timeframe is None or rows.tf is timeframe)
        }
        order = {tf: position for position, tf in enumerate(Timeframe)}
        in_order = sorted(
            wanted, key=lambda key: (key[0], order[wanted[key].tf], wanted[key].first)
        )
        return [self._standing(key, wanted[key]) for key in in_order]

    def _add(self, kept: Kept) -> Key:
        key = _key(kept)
        self._rows.setdefault(key, ForecasterRows(kept)).add(kept)
        return key

    def _catch_up(self) -> None:
        for kept in self._record.resolved_among(sorted(self._open)):
            self._rows[self._open.pop(kept.id)].resolve(kept)
        # PostgreSQL may show a row after rows with larger numbers.
        for kept in self._record.after(max(0, self._last_id - _LATE_ROWS)):
            if kept.id in self._newest:
                continue
            key = self._add(kept)
            if kept.resolved_at is None and kept.label_rule:
                self._open[kept.id] = key
            self._newest.add(kept.id)
            self._last_id = max(self._last_id, kept.id)
            self._n_read += 1
            if len(self._newest) > 2 * _LATE_ROWS:
                oldest = self._last_id - _LATE_ROWS
                self._newest = {number for number in self._newest if number > oldest}

    def _standing(self, key: Key, rows: ForecasterRows) -> Standing:
        mark = (rows.n_rows, rows.n_resolved)
        known = self._known.get(key)
        if known is not None and known[0] == mark:
            return known[1]
        standing = _stand(rows, self._repetitions)
        self._known[key] = (mark, standing)
        return standing


def make_scoreboard(
    record: TrackRecord,
    symbols: Sequence[str] | None = None,
    timeframe: Timeframe | None = None,
    repetitions: int = _REPETITIONS,
) -> list[Standing]:
    """Score every model and source, ordered by market and then by first prediction.

    Args:
        record: The track record.
        symbols: None scores all symbols.
        timeframe: None scores all timeframes.
        repetitions: Bootstrap draws behind each interval.

    Raises:
        RecordError: The database cannot be used now.
    """
    board = Scoreboard(record, repetitions)
    for kept in record.predictions(symbols, timeframe):
        board._add(kept)
    return board._now(symbols, timeframe)


def _as_key(texts: Sequence[str]) -> Key:
    symbol, tf, bars, source, model_version, version_id, label_rule = texts
    return symbol, tf, bars, source, model_version, version_id, label_rule


def _key(kept: Kept) -> Key:
    return (
        *(kept.symbol, kept.tf.value, kept.bars, kept.source),
        *(kept.model_version, kept.version_id, kept.label_rule),
    )


def _stand(rows: ForecasterRows, repetitions: int) -> Standing:
    """The standing of one forecaster."""
    rule = json.loads(rows.label_rule) if rows.label_rule else None
    horizon, day = 1 if rule is None else int(rule["horizon"]), day_rows(rows.tf)
    # With eight days of rows, bootstrap blocks span a day; before that, only the label horizon.
    is_long = rows.n_scored >= MIN_BLOCKS * day
    bootstrap = Bootstrap(horizon, 0, repetitions, day=day if is_long else None)
    own, baselines = _scores(rows, bootstrap)
    times = rows.times() if rows.n_scored else None
    return Standing(
        symbol=rows.symbol,
        tf=rows.tf,
        source=rows.source,
        bars=rows.bars,
        model_version=rows.model_version or None,
        version_id=rows.version_id or None,
        label_rule=rule,
        n_written=rows.n_live,
        n_late=rows.n_rows - rows.n_live,
        n_resolved=rows.n_scored,
        n_void=rows.n_void,
        too_few=_tell_too_few(own, baselines, rows.n_scored, bootstrap.horizon),
        skill=own.skill,
        hit_rate=own.hit_rate,
        n_moves=own.n_moves,
        baselines=baselines,
        ruler=_ruler(baselines),
        move=_move_score(rows, bootstrap),
        since=None if times is None else _moment(int(times[0])),
        until=None if times is None else _moment(int(times[-1])),
    )


def _scores(rows: ForecasterRows, bootstrap: Bootstrap) -> tuple[Score, dict[str, Score]]:
    """The scores of the forecaster and of every baseline on the same rows."""
    names = rows.names
    if PRIOR not in names:
        # Without the prior there is nothing to compare with.
        return Score(None, None, 0), {}
    labels = rows.labels()
    reference = share_log_loss(rows.said(_ruler(names))[0])

    def score(shares: FloatArray | None, signals: IntArray) -> Score:
        skill = None
        if shares is not None:
            skill = _interval(bootstrap.estimate(skill_rows(share_log_loss(shares), reference)))
        _, hits = moves_after(signals, labels)
        # Hit rates use no day blocks, because a day holds few moves.
        shortest = max(bootstrap.horizon, len(hits) // _MOST_HIT_BLOCKS)
        of_moves = replace(bootstrap, day=None, horizon=shortest)
        rate = _interval(of_moves.estimate_share(hits, null=0.5)) if len(hits) else None
        return Score(skill, rate, len(hits))

    baselines = {name: score(*rows.said(name)) for name in names}
    shares, signals = rows.own()
    same = _SAME_RULE.get((rows.source, rows.tf))
    if shares is None and same in names:
        shares, _ = rows.said(same)
    return score(shares, signals), baselines


def _move_score(rows: ForecasterRows, bootstrap: Bootstrap) -> MoveScore | None:
    """How good the expected moves of these rows were; None without any."""
    found = rows.moves()
    if found is None:
        return None
    realized, forecast, within = found
    coverage = {level: bootstrap.estimate_share(held).plain for level, held in within.items()}
    losses = qlike(realized, forecast)
    return MoveScore(len(losses), bootstrap.estimate(losses).plain, coverage)


def day_rows(timeframe: Timeframe) -> int:
    """Number of predictions per day, one per bar."""
    return math.ceil(timeframe.bars_per_day)


def _ruler(names: Collection[str]) -> str:
    return ROLLING_PRIOR if ROLLING_PRIOR in names or not names else PRIOR


def _interval(estimate: Estimate) -> KnownInterval | None:
    """The value with its interval; None without an interval, or if all rows are equal."""
    return estimate.known if estimate.standard_error else None


def _tell_too_few(own: Score, baselines: Mapping[str, Score], n_resolved: int, horizon: int) -> str:
    if n_resolved and not baselines:
        return "recorded without the probabilities of the prior, so nothing to compare with"
    has_skill = own.skill is not None or any(score.skill for score in baselines.values())
    if has_skill and own.hit_rate is not None:
        return ""
    needed = _least_rows(horizon)
    if n_resolved < needed:
        return f"{n_resolved} resolved predictions are too few for an interval; {needed} are needed"
    if own.n_moves < needed:
        return (
            f"{own.n_moves} directions that a move followed are too few for the interval of a "
            f"hit rate; {needed} are needed"
        )
    return "the rows are all the same: there is no interval"


def _least_rows(horizon: int) -> int:
    return MIN_BLOCKS * max(1, horizon)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)

"""Scores of the served predictions, per market, model and source."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from threading import Lock
from typing import Any

import numpy as np

from percoin.evaluation.baselines import ROLLING_PRIOR
from percoin.evaluation.hit_rate import moves_after
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.uncertainty import MIN_BLOCKS, Bootstrap, Estimate, skill_rows
from percoin.expected_move.scores import qlike
from percoin.intervals import Interval, KnownInterval
from percoin.monitoring.record import Kept, TrackRecord
from percoin.monitoring.resolution import PRIOR
from percoin.types import FloatArray, IntArray, Source, Timeframe

_REPETITIONS = 1000
# Sources that are also baselines. They give no probabilities, so their skill uses the class
# shares that followed the same signal before.
_SAME_RULE = {Source.RSI_MA.value: "rsi_ma", Source.MOMENTUM.value: "momentum"}


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
        content = asdict(self)
        for name in ("since", "until"):
            moment = content[name]
            content[name] = None if moment is None else moment.isoformat()
        return content | {"tf": self.tf.value}


Key = tuple[str, str, str, str, str, str, str]


class Scoreboard:
    """The standings of a record; each is computed again only if its rows have changed.

    Args:
        record: The track record.
        repetitions: Bootstrap draws behind each interval.
    """

    def __init__(self, record: TrackRecord, repetitions: int = _REPETITIONS) -> None:
        self._record = record
        self._repetitions = repetitions
        self._known: dict[Key, tuple[tuple[int, int], Standing]] = {}
        self._lock = Lock()

    def standings(
        self, symbols: Sequence[str] | None = None, timeframe: Timeframe | None = None
    ) -> list[Standing]:
        """See ``make_scoreboard``; several threads may call this."""
        with self._lock:
            groups = _by_forecaster(self._record.predictions(symbols, timeframe))
            return [self._standing(key, rows) for key, rows in groups.items()]

    def _standing(self, key: Key, rows: Sequence[Kept]) -> Standing:
        mark = (len(rows), sum(kept.resolved_at is not None for kept in rows))
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
    return Scoreboard(record, repetitions).standings(symbols, timeframe)


def _by_forecaster(rows: Iterable[Kept]) -> dict[Key, list[Kept]]:
    groups: dict[Key, list[Kept]] = {}
    for kept in rows:
        key = (
            *(kept.symbol, kept.tf.value, kept.bars, kept.source),
            *(kept.model_version, kept.version_id, kept.label_rule),
        )
        groups.setdefault(key, []).append(kept)
    order = {tf.value: position for position, tf in enumerate(Timeframe)}
    return dict(sorted(groups.items(), key=lambda item: (item[0][0], order[item[0][1]])))


def _stand(rows: Sequence[Kept], repetitions: int) -> Standing:
    """The standing of one forecaster, from its rows in time order."""
    first = rows[0]
    live = [kept for kept in rows if kept.is_live]
    scored = [kept for kept in live if kept.label is not None]
    rule = json.loads(first.label_rule) if first.label_rule else None
    horizon, day = 1 if rule is None else int(rule["horizon"]), day_rows(first.tf)
    # With eight days of rows, bootstrap blocks span a day; before that, only the label horizon.
    is_long = len(scored) >= MIN_BLOCKS * day
    bootstrap = Bootstrap(horizon, 0, repetitions, day=day if is_long else 1)
    own, baselines = _scores(scored, first.source, bootstrap)
    return Standing(
        symbol=first.symbol,
        tf=first.tf,
        source=first.source,
        bars=first.bars,
        model_version=first.model_version or None,
        version_id=first.version_id or None,
        label_rule=rule,
        n_written=len(live),
        n_late=len(rows) - len(live),
        n_resolved=len(scored),
        n_void=sum(bool(kept.void) for kept in live),
        too_few=_tell_too_few(own, baselines, len(scored), bootstrap.horizon),
        skill=own.skill,
        hit_rate=own.hit_rate,
        n_moves=own.n_moves,
        baselines=baselines,
        ruler=_ruler(baselines),
        move=_move_score(scored, bootstrap),
        since=_moment(scored[0].ts) if scored else None,
        until=_moment(scored[-1].ts) if scored else None,
    )


def _scores(
    rows: Sequence[Kept], source: str, bootstrap: Bootstrap
) -> tuple[Score, dict[str, Score]]:
    """The scores of the forecaster and of every baseline on the same rows."""
    names = [name for name in (rows[0].baselines if rows else ()) if _is_said_in_all(rows, name)]
    if PRIOR not in names:
        # Without the prior there is nothing to compare with.
        return Score(None, None, 0), {}
    labels = np.array([kept.label for kept in rows], dtype=np.int64)
    ruler, _ = _said(rows, _ruler(names))
    reference = row_log_loss(ruler, labels)

    # Hit rates use no day blocks, because a day holds few moves.
    of_moves = replace(bootstrap, day=1)

    def score(probabilities: FloatArray | None, signals: IntArray) -> Score:
        skill = None
        if probabilities is not None:
            losses = row_log_loss(probabilities, labels)
            skill = _interval(bootstrap.estimate(skill_rows(losses, reference)))
        _, hits = moves_after(signals, labels)
        rate = _interval(of_moves.estimate_share(hits, null=0.5)) if len(hits) else None
        return Score(skill, rate, len(hits))

    baselines = {name: score(*_said(rows, name)) for name in names}
    own = None
    given = [kept.probabilities for kept in rows if kept.probabilities is not None]
    if len(given) == len(rows):
        own = np.array(given, dtype=np.float64)
    elif _SAME_RULE.get(source) in names:
        own, _ = _said(rows, _SAME_RULE[source])
    signals = np.array([kept.signal for kept in rows], dtype=np.int64)
    return score(own, signals), baselines


def _move_score(rows: Sequence[Kept], bootstrap: Bootstrap) -> MoveScore | None:
    """How good the expected moves of these rows were; None without any."""
    known = [
        (kept, kept.expected_move, kept.realized_variance)
        for kept in rows
        if kept.expected_move is not None and kept.realized_variance is not None
    ]
    if not known:
        return None
    losses = qlike(
        np.array([realized for _, _, realized in known]),
        np.array([(move.percent / 100) ** 2 for _, move, _ in known]),
    )
    within: dict[str, list[bool]] = {}
    for kept, move, _ in known:
        price = kept.close * (1 + (kept.forward_return or 0.0))
        for band in move.bands:
            is_within = band.lower <= price <= band.upper
            within.setdefault(str(band.level), []).append(is_within)

    coverage = {
        level: bootstrap.estimate_share(np.array(held, np.float64)).plain
        for level, held in within.items()
    }
    return MoveScore(len(known), bootstrap.estimate(losses).plain, coverage)


def day_rows(timeframe: Timeframe) -> int:
    """Number of predictions per day, one per bar."""
    return math.ceil(timeframe.bars_per_day)


def _ruler(names: Collection[str]) -> str:
    return ROLLING_PRIOR if ROLLING_PRIOR in names or not names else PRIOR


def _is_said_in_all(rows: Sequence[Kept], name: str) -> bool:
    return all(name in kept.baselines for kept in rows)


def _said(rows: Sequence[Kept], name: str) -> tuple[FloatArray, IntArray]:
    """A baseline's probabilities, shape (n_rows, C), and its signals, shape (n_rows,)."""
    said = [kept.baselines[name] for kept in rows]
    probabilities = np.array([line.probabilities for line in said], dtype=np.float64)
    return probabilities, np.array([line.signal for line in said], dtype=np.int64)


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

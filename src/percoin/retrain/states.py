"""State of each market, read from the registry, the source of its bars and the live record.

This module only reads and never writes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from percoin.bars.schema import Bars, is_simulated
from percoin.bars.store import BarStore
from percoin.config import BinanceConfig, EvaluationMode, RetrainConfig, SimulatedConfig
from percoin.errors import ConfigError, DataError, InvalidArtifactError, ModelNotFoundError
from percoin.evaluation.daily import DailyLosses
from percoin.registry.catalogue import Version, markets_in, read_versions
from percoin.registry.contents import read_metrics, read_section
from percoin.registry.field_checks import time_text
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Manifest, StoredVerdict
from percoin.registry.publish import version_folder
from percoin.registry.revision import was_promoted_since
from percoin.report.reading import SavedModel, read_model
from percoin.retrain.decisions import Absent, Condition, DueRules, MarketState
from percoin.retrain.sources import DEFAULT_SOURCE, bars_at_hand, source_config, source_of
from percoin.retrain.watching import Watched
from percoin.sweep.jobs import BROKEN, read_record
from percoin.training.version_settings import pool_of

# Folder below outputs_dir; no market can have this name.
RUNS_FOLDER = "retrain"

# More looks change nothing: the gate rejects every model long before.
_MOST_LOOKS = 1_000_000
_UNKNOWN = Absent("not counted without a source")
_NOTHING = Watched(Absent("there is no model"), Absent("there is no model"))


@dataclass(frozen=True)
class Task:
    """What a round does.

    Attributes:
        settings: Markets, limits and folders.
        source: Overrides that name one source for all markets; empty if each has its own.
        watch: Returns the drift and live skill of a served model.
    """

    settings: RetrainConfig
    source: tuple[str, ...]
    watch: Callable[[Manifest], Watched]

    @property
    def rules(self) -> DueRules:
        """When a model needs a training or a demotion."""
        wanted = self.settings
        return DueRules(
            max_age_days=wanted.max_age_days,
            max_new_bars_share=wanted.max_new_bars_share,
            max_drift=wanted.max_drift,
            min_resolved=wanted.min_resolved,
            demote_error=wanted.demote_error,
            pool_due_share=wanted.pool_due_share,
            retry_days=wanted.retry_days,
        )


@dataclass(frozen=True)
class Subject:
    """One market at the start of a round.

    Attributes:
        market: Its folder in the registry.
        state: Input of the decision.
        manifest: A training follows the recipe of this manifest; None means the defaults.
        source: Overrides that name the source of its bars.
        n_looks: How often the next training's test rows will have judged models of this
            market: failed models so far plus the next one, or more if a user said so.
        problem: Why the market could not be checked; empty if it could.
        served: The version that the state is about; empty without one.
    """

    market: MarketFolder
    state: MarketState
    manifest: Manifest | None
    source: tuple[str, ...]
    n_looks: int = 1
    problem: str = ""
    served: str = ""

    @classmethod
    def unknown(cls, market: MarketFolder, problem: str) -> Subject:
        """Return a market whose state could not be read."""
        state = MarketState(
            symbol=market.symbol,
            timeframe=market.timeframe,
            condition=Condition.INVALID,
            said=problem,
        )
        return cls(market, state, None, (), problem=problem)

    @property
    def pool(self) -> tuple[str, ...]:
        """Markets that share its network, as named in the training; empty if it has its own.

        Some of them may have had no bars and so took no part in the training.
        """
        return pool_or_none(self.manifest)


def find_markets(settings: RetrainConfig) -> list[MarketFolder]:
    """Return the requested markets of the registry, or a new one if symbol and tf name it.

    Raises:
        ConfigError: The registry has no such market, and symbol or tf is missing.
    """
    root = Path(settings.models_dir)
    timeframe = None if settings.tf is None else settings.tf.timeframe
    found = [
        market
        for market in markets_in(root)
        if settings.symbol in (None, market.symbol) and timeframe in (None, market.timeframe)
    ]
    if found or (settings.symbol is None and timeframe is None):
        return found
    if settings.symbol is not None and timeframe is not None:
        return [MarketFolder(root, settings.symbol, timeframe)]
    wanted = settings.symbol or (timeframe and timeframe.value)
    raise ConfigError(
        f"models_dir={settings.models_dir} holds no model of {wanted}; name symbol and tf to train "
        "a first one"
    )


def look_at(market: MarketFolder, task: Task, now: datetime) -> Subject:
    """Read the state of a market, without fetching or writing anything.

    For an exchange, the clock tells how many new bars must have closed. For other sources,
    the bars they have are counted.

    Args:
        market: The market.
        task: What the round does.
        now: Current time, with its time zone.
    """
    settings = task.settings
    versions = read_versions(market)
    shown = _shown(market)
    manifest = _recipe(shown.manifest or _newest_manifest(versions), versions)
    source, obstacle = _source_and_obstacle(manifest, task)
    data_end = _data_end(shown.manifest)
    # Live skill is measured over the rolling prior too.
    skill = shown.evaluation.model.recent_skill if shown.evaluation is not None else None
    condition, said = _condition(shown)
    watched = _NOTHING if shown.manifest is None else task.watch(shown.manifest)
    state = MarketState(
        symbol=market.symbol,
        timeframe=market.timeframe,
        condition=condition,
        said=said,
        is_forced=_is_forced(market, shown.manifest, versions),
        data_end=data_end,
        n_bars=0 if shown.manifest is None else shown.manifest.bars.n_bars,
        n_new_bars=_count_new(market, settings, source, data_end, now) if source else _UNKNOWN,
        drift=watched.drift,
        live=watched.live,
        gate_lower=None if skill is None else skill.lower,
        last_tried=_last_tried(market, settings, versions, pool_or_none(manifest)),
        obstacle=obstacle,
    )
    served = "" if shown.manifest is None else shown.manifest.version_id
    looks = n_looks(versions, market)
    return Subject(market, state, manifest, source, looks, served=served)


def store_of(settings: RetrainConfig) -> BarStore:
    """Return the store of bars."""
    return BarStore(Path(settings.data_dir) / "bars")


def _shown(market: MarketFolder) -> SavedModel:
    try:
        return read_model(market)
    except ModelNotFoundError as error:
        return SavedModel(market.symbol, market.timeframe, problem=error.found, exists=False)


def _newest_manifest(versions: Sequence[Version]) -> Manifest | None:
    found = (version.manifest for version in reversed(versions) if version.manifest is not None)
    return next(found, None)


def _recipe(manifest: Manifest | None, versions: Sequence[Version]) -> Manifest | None:
    """Return the manifest to train by; if the model started from a pooled one, the pooled one's."""
    if manifest is None or manifest.pool is None or manifest.pool.started_from is None:
        return manifest
    found = {version.version_id: version.manifest for version in versions}
    return found.get(manifest.pool.started_from) or manifest


def pool_or_none(manifest: Manifest | None) -> tuple[str, ...]:
    """Return the markets of a model's pool; empty without a pool or with an invalid manifest."""
    try:
        return () if manifest is None else pool_of(manifest)
    except ConfigError:
        return ()  # the obstacle of the market says what is wrong


def _condition(shown: SavedModel) -> tuple[Condition, str]:
    if shown.manifest is None:
        return (Condition.INVALID if shown.exists else Condition.MISSING), shown.problem
    gate = shown.manifest.gate
    if gate.verdict is StoredVerdict.ACCEPTED:
        return Condition.ACCEPTED, ""
    reason = gate.reasons[0] if gate.reasons else "no reason was recorded"
    return Condition.NOT_ACCEPTED, f"{gate.verdict.value.replace('_', ' ')}, {reason}"


def _is_forced(
    market: MarketFolder, manifest: Manifest | None, versions: Sequence[Version]
) -> bool:
    served = "" if manifest is None else manifest.version_id
    is_withdrawn = any(v.version_id == served and v.withdrawn_by for v in versions)
    # If nobody promoted it since, a demotion was interrupted.
    return is_withdrawn and was_promoted_since(market, served)


def _data_end(manifest: Manifest | None) -> datetime | None:
    if manifest is None:
        return None
    return datetime.fromisoformat(manifest.bars.last_open_time) + manifest.timeframe.timedelta


def _count_new(
    market: MarketFolder,
    settings: RetrainConfig,
    source: tuple[str, ...],
    data_end: datetime | None,
    now: datetime,
) -> int | Absent:
    if data_end is None:
        return Absent("there is no model to count from")
    config = source_config(source)
    if isinstance(config, BinanceConfig):
        return max(0, int((now - data_end) / market.timeframe.timedelta))
    try:
        bars = bars_at_hand(config, market, store_of(settings))
    except DataError as error:
        return Absent(error.without_market)
    return count_after(bars, data_end)


def count_after(bars: Bars, moment: datetime) -> int:
    """Count the bars that open at ``moment`` or later."""
    return len(bars) - int(bars.open_time.searchsorted(int(moment.timestamp() * 1000)))


def _last_tried(
    market: MarketFolder,
    settings: RetrainConfig,
    versions: Sequence[Version],
    pool: Sequence[str],
) -> datetime | None:
    """Return when the newest training ended, with a version or with an error."""
    ended = [v.created_at for v in versions if v.manifest is None or not v.manifest.revised_from]
    record = read_record(job_folder(market, settings, pool))
    if record is not None and record.state in BROKEN and record.ended_at is not None:
        # A file in outputs can hold any number.
        with suppress(TypeError, ValueError, ArithmeticError, OSError):
            ended.append(datetime.fromtimestamp(record.ended_at, UTC))
    return max(ended, default=None)


def job_folder(market: MarketFolder, settings: RetrainConfig, pool: Sequence[str] = ()) -> Path:
    """Return the folder of a market's trainings.

    The folder is always the same, so a killed training can go on there.

    Args:
        market: The market.
        settings: Gives ``outputs_dir``.
        pool: Markets of its pool; they share one folder, whose name no market can have.
    """
    name = market.symbol
    if pool:
        name = f"pool-{hashlib.sha256(','.join(sorted(pool)).encode()).hexdigest()[:8]}"
    folder = Path(settings.outputs_dir).absolute() / RUNS_FOLDER
    return folder / name / market.timeframe.value


def _source_and_obstacle(manifest: Manifest | None, task: Task) -> tuple[tuple[str, ...], str]:
    """Return the source of the bars (empty if unknown) and what prevents a training."""
    source = task.source or (DEFAULT_SOURCE if manifest is None else ())
    try:
        if not source and manifest is not None:
            source = source_of(manifest, store_of(task.settings))
        return source, _obstacle(manifest, source)
    except ConfigError as error:
        return source, str(error)


def _obstacle(manifest: Manifest | None, source: tuple[str, ...]) -> str:
    """Return why the model cannot be trained on bars of the source; empty if it can.

    Raises:
        ConfigError: The settings of the source or of the pool are invalid.
    """
    wants_simulated = isinstance(source_config(source), SimulatedConfig)
    if manifest is None:
        return ""
    if wants_simulated != is_simulated(manifest.bars.origin) and source[0] != "source=store":
        kinds = ("real", "simulated") if wants_simulated else ("simulated", "real")
        return f"it learnt from {kinds[0]} bars, and {source[0]} gives {kinds[1]} ones"
    if not pool_of(manifest) and manifest.pool is not None:
        return (
            "it started from the pooled model of another market or of a folder, whose cuts in "
            "time it uses: train that pool again, then this market with init=pooled"
        )
    return ""


def n_looks(versions: Sequence[Version], market: MarketFolder | None = None) -> int:
    """Count how often the rows of the next test part will have judged models, next one included.

    Failed models count, also those that lost their acceptance later, and so do the looks that a
    user gave on a command line.

    Args:
        versions: All versions of the market, oldest first.
        market: Where they lie. With it the days that judged a walk-forward are read; without it
            they are estimated.
    """
    known: list[_Tried] = []
    whole = {version.version_id for version in versions if version.manifest is not None}
    for version in versions:
        manifest = version.manifest
        if manifest is None or manifest.revised_from in whole:
            continue
        asked = manifest.config.get("looks")
        # A retraining derives its looks from the earlier models; a user gave any higher number.
        named = min(asked, _MOST_LOOKS) if type(asked) is int else 1
        by_hand = named if named > _looks_after(known) else 1
        known.append(_Tried(version, manifest, by_hand, _first_judged(manifest, market)))
    return _looks_after(known)


@dataclass(frozen=True)
class _Tried:
    """A model that was judged.

    Attributes:
        version: Its version.
        manifest: The manifest of it.
        by_hand: The looks that a user gave it.
        first_judged: Open time of the first row that judged it.
    """

    version: Version
    manifest: Manifest
    by_hand: int
    first_judged: str

    @property
    def has_failed(self) -> bool:
        is_accepted = self.manifest.gate.verdict is StoredVerdict.ACCEPTED
        return bool(self.version.withdrawn_by) or not is_accepted


def _looks_after(known: Sequence[_Tried]) -> int:
    """Return the looks of the next model."""
    if not known:
        return 1
    # The next test part is about as long as this one and ends later.
    since = known[-1].first_judged
    looks = 1
    for tried in known:
        if tried.manifest.bars.splits["test"].last >= since:
            looks = max(looks, tried.by_hand) + tried.has_failed
    return looks


def _first_judged(manifest: Manifest, market: MarketFolder | None) -> str:
    """Return the open time of the first test row; of a walk-forward, that of its oldest fold.

    The splits of a manifest are those of the newest fold.
    """
    bars = manifest.bars
    first = bars.splits["test"].first
    if manifest.config.get("evaluation") != EvaluationMode.WALK_FORWARD:
        return first
    days = () if market is None else _judged_days(manifest, market)
    if days:
        return min(first, f"{days[0]}T00:00:00Z")
    asked = manifest.config.get("folds")
    n_folds = asked if type(asked) is int and 0 < asked <= bars.n_bars else 1
    start, end = (datetime.fromisoformat(t) for t in (bars.first_open_time, bars.last_open_time))
    # The folds are of equal length, and so are the rows before the oldest one.
    return min(first, time_text(start + (end - start) / (n_folds + 1)))


def _judged_days(manifest: Manifest, market: MarketFolder) -> tuple[str, ...]:
    """Return the days of all test rows of a version; empty if they cannot be read."""
    try:
        folder = version_folder(market, manifest.version_id)
        sections = read_metrics(market, folder, manifest)
    except InvalidArtifactError:
        return ()
    losses = read_section(DailyLosses, sections, "daily_losses")
    return () if losses is None else losses.days

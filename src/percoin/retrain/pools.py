"""Pools: markets that share one network and are trained together or not at all.

The markets named in the training identify a pool, even if some of them had no bars then. The
markets with a model of the pool decide together whether it is trained. A market that now has its
own model, or has no bars any more, takes no part; the others go on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from percoin.config import BinanceConfig, RetrainConfig
from percoin.errors import ConfigError, DataError
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Manifest
from percoin.retrain.decisions import Decision, DueRules, Verb, decide_for_pool, held_up
from percoin.retrain.sources import bars_at_hand, source_config
from percoin.retrain.states import Subject, job_folder, store_of
from percoin.sweep.jobs import JobState, read_record
from percoin.types import Timeframe

_UNFINISHED = frozenset({JobState.RUNNING, JobState.INTERRUPTED})
_OWN_MODEL = "now has a model of its own"


@dataclass(frozen=True)
class SharedNetwork:
    """One pool at the start of a round.

    Attributes:
        symbols: All its markets, as named in its training.
        timeframe: Bar length of all its markets.
        manifest: Manifest of its newest model; a training follows these settings.
        source: Overrides that name the source of all bars.
        members: Its markets that have a model of the pool, or no model at all.
        without: Markets that take no part in a training, with the reason; may include members.
        began: Whether a training of the pool was interrupted.
        obstacle: Why the pool cannot be trained; empty if it can.
    """

    symbols: tuple[str, ...]
    timeframe: Timeframe
    manifest: Manifest
    source: tuple[str, ...]
    members: tuple[Subject, ...]
    without: Mapping[str, str]
    began: bool
    obstacle: str = ""

    @property
    def name(self) -> str:
        """Name for people."""
        return f"pool of {len(self.symbols)} markets {self.timeframe.value}"

    @property
    def taking_part(self) -> tuple[str, ...]:
        """The markets that a training uses."""
        return tuple(symbol for symbol in self.symbols if symbol not in self.without)

    @property
    def note(self) -> str:
        """One line about the markets that take no part; empty if all do."""
        if not self.without:
            return ""
        listed = "; ".join(f"{symbol} {why}" for symbol, why in self.without.items())
        return f"{self.name} leaves out {len(self.without)}: {listed}"

    def decide(self, alone: Mapping[str, Decision], rules: DueRules) -> dict[str, Decision]:
        """Decide what to do with each member.

        Args:
            alone: The decision for each member on its own, by symbol; none is to demote.
                A member that is missing here keeps its decision.
            rules: The limits.
        """
        held = {
            symbol: held_up(decision, f"it takes no part in its pool: it {self.without[symbol]}")
            for symbol, decision in alone.items()
            if symbol in self.without
        }
        others = {symbol: decision for symbol, decision in alone.items() if symbol not in held}
        why = self.obstacle
        if len(self.taking_part) < 2:
            why = "a pool needs at least two markets, and no other market of its pool takes part"
        if why:
            return held | {
                symbol: held_up(decision, why) if decision.verb is Verb.TRAIN else decision
                for symbol, decision in others.items()
            }
        # A market without a model does not vote: it would ask for a training in every round.
        voting = [s.market.symbol for s in self.members if s.pool and s.market.symbol in others]
        n_due = sum(others[symbol].verb is Verb.TRAIN for symbol in voting)
        decisions = decide_for_pool(list(others.values()), n_due, len(voting), rules, self.began)
        return held | dict(zip(others, decisions, strict=True))


def find_pools(
    subjects: Iterable[Subject],
    look: Callable[[MarketFolder], Subject],
    settings: RetrainConfig,
    source: tuple[str, ...],
) -> list[SharedNetwork]:
    """Find the pools of the given markets, each with all of its markets.

    Args:
        subjects: The markets of a round.
        look: Reads the state of a pool's market that is not among ``subjects``.
        settings: Gives the folders.
        source: Overrides that name one source for all markets; empty if each has its own.
    """
    found = {(subject.market.symbol, subject.market.timeframe): subject for subject in subjects}
    pools: dict[tuple[Timeframe, frozenset[str]], tuple[Subject, Manifest]] = {}
    for subject in found.values():
        if subject.pool and subject.manifest is not None:
            key, own = (subject.market.timeframe, frozenset(subject.pool)), subject.manifest
            others = [pools[key]] if key in pools else []
            pools[key] = max([(subject, own), *others], key=lambda pair: pair[1].version_id)
    shared = []
    for (timeframe, _), (newest, manifest) in pools.items():
        everyone = []
        for symbol in newest.pool:
            market = MarketFolder(newest.market.root, symbol, timeframe)
            everyone.append(found.get((symbol, timeframe)) or look(market))
        shared.append(_share(newest, manifest, everyone, settings, source or newest.source))
    return shared


def _share(
    newest: Subject,
    manifest: Manifest,
    everyone: Sequence[Subject],
    settings: RetrainConfig,
    source: tuple[str, ...],
) -> SharedNetwork:
    wanted, without, members = frozenset(newest.pool), dict[str, str](), []
    for subject in everyone:
        symbol = subject.market.symbol
        if subject.problem:
            without[symbol] = "could not be checked"
            continue
        if subject.manifest is not None and frozenset(subject.pool) != wanted:
            without[symbol] = _OWN_MODEL
            continue
        members.append(subject)
        if problem := _no_bars(subject.market, settings, source):
            without[symbol] = problem
    record = read_record(job_folder(newest.market, settings, newest.pool))
    return SharedNetwork(
        newest.pool,
        newest.market.timeframe,
        manifest,
        source,
        tuple(members),
        without,
        began=record is not None and record.state in _UNFINISHED,
        obstacle=newest.state.obstacle,
    )


def _no_bars(market: MarketFolder, settings: RetrainConfig, source: tuple[str, ...]) -> str:
    """Return why a market has no bars, without asking an exchange; empty if nothing is known."""
    try:
        config = source_config(source)
    except ConfigError:
        return ""  # an obstacle for every market; the market's own decision names it
    if isinstance(config, BinanceConfig):
        return ""
    try:
        bars_at_hand(config, market, store_of(settings))
    except DataError as error:
        return no_bars(error)
    return ""


def no_bars(error: DataError) -> str:
    """Return the message for a market without bars."""
    return f"has no bars that can be used ({error.found})"

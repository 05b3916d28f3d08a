"""Settings of searches that take seconds, and studies that no network is needed for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from builders import make_bars

from percoin.bars.schema import Bars
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.tuning.search import Searcher
from percoin.tuning.space import SearchSpace
from percoin.tuning.studies import open_studies
from percoin.tuning.trial import Measured, Report
from percoin.types import Timeframe

MARKET = ("BTCUSDT", "1h")
TINY = (
    "symbol=BTCUSDT",
    "tf=1h",
    "workers=1",
    "epochs=2",
    "lookback=8",
    "model.channels=[4,4,4]",
    "model.hidden_size=4",
    "model.n_heads=2",
    "model.head_sizes=[4,4]",
)
SEARCH = (
    "experiment=tune",
    "experiment.epochs=1",
    "experiment.space.lookback=[6,20]",
    "experiment.startup_trials=2",
)


@cache
def tuning(*overrides: str) -> TrainConfig:
    """The settings of a search, as the command would have them; not to be written to."""
    words = [*TINY, *SEARCH, *overrides]
    return typed(compose_config("train", words), TrainConfig)


def make_space(*overrides: str) -> SearchSpace:
    settings = tuning(*overrides)
    return SearchSpace(settings, settings.experiment.space)


def hourly_bars(n_bars: int = 700, seed: int = 0) -> Bars:
    return make_bars(n_bars, timeframe=Timeframe.H1, seed=seed)


def spoil(bars: Bars, from_time: int) -> Bars:
    """The same until a moment, then prices of another world and no volume."""
    frame = bars.frame.copy()
    later = bars.open_time >= from_time
    frame.loc[later, ["open", "high", "low", "close"]] *= 7.0
    frame.loc[later, "volume"] = 1.0
    return replace(bars, frame=frame)


@contextmanager
def searcher(folder: Path, *overrides: str, key: str = "key") -> Iterator[Searcher]:
    """A search in a file of ``folder``: the newest study of the key, or its first."""
    settings = tuning(*overrides)
    with open_studies(folder, MARKET) as studies:
        study = studies.newest(key) or studies.begin(key, {"bars": {}})
        space = SearchSpace(settings, settings.experiment.space)
        yield Searcher(studies, study, space, settings.experiment)


def worth(settings: TrainConfig) -> float:
    """A skill that depends on the settings alone: best at lr=0.003 and dropout=0.1."""
    return 0.02 - abs(settings.lr - 0.003) - 0.01 * abs(settings.model.dropout - 0.1)


def measure_worth(settings: TrainConfig, report: Report) -> Measured:
    """Stands in for a fit of one epoch."""
    report(1, worth(settings))
    return Measured(worth(settings), 1, ended_early=False)


def silent(tried: Sequence[object]) -> None:
    """Announces nothing."""

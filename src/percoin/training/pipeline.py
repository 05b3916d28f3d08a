"""One training from start to end: check, prepare, fit, judge, publish, control false discoveries.

The train command, the jobs of a sweep, the last step of a search, retraining and ``reproduce``
all call ``train``. A recipe (``percoin.training.recipes``) prepares the markets and fits the
weights. A single market is treated as a set of one.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from percoin import json_codec
from percoin.config import RecipeName, TrainConfig
from percoin.training.folds import LoadBars, load_bars, load_until
from percoin.training.interruption import RunInterruption
from percoin.training.machine import check_machine
from percoin.training.manifest_draft import hash_references
from percoin.training.markets import TrainedMarkets, judging_rules
from percoin.training.outcome import TrainingOutcome
from percoin.training.recipes.recipe import Fitting, Recipe
from percoin.training.run_files import (
    LAST_BARS,
    RunContext,
    check_resumable,
    divergence_marked,
    forget_earlier_run,
    last_bars,
    plain_settings,
    write_errors,
)

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from percoin.training.precision import PrecisionChoice

log = logging.getLogger(__name__)


def train_from_config(settings: TrainConfig) -> None:
    """Train what the settings describe, and print the summary.

    Raises:
        MarketsError: Some of several markets have no new model; the message names all of them.
        PercoinError: Any other error that the user can fix; nothing is published.
    """
    check_machine(settings)
    run = RunContext.of_hydra()
    # Bars that have come since would make a resumed run a different one.
    load = load_until(last_bars(run.folder)) if settings.resume else load_bars
    outcome = train(settings, prepare(settings, load), run)
    print(outcome.render())
    outcome.check()


def prepare(settings: TrainConfig, load: LoadBars = load_bars) -> Recipe:
    """Choose the recipe, and build the datasets of its markets.

    Args:
        settings: Settings of the run.
        load: Loads the bars of one market, given the settings of that market.

    Raises:
        DataError: A single market has no bars, or too few.
        PoolError: Markets of a pool have no bars, or too few; the message names all of them.
    """
    # Lightning takes seconds to import, so import it after the settings are checked.
    if not settings.model.has_network and settings.recipe == RecipeName.POOLED:
        from percoin.training.recipes.pooled_average import PooledAverage

        return PooledAverage.prepare(settings, load)
    if not settings.model.has_network:
        from percoin.training.recipes.last_row import LastRow

        return LastRow.prepare(settings, load)
    if settings.fleet:
        from percoin.training.recipes.fleet import Fleet

        return Fleet.prepare(settings, load)
    if settings.recipe == RecipeName.POOLED:
        from percoin.training.recipes.pooled import Pooled

        return Pooled.prepare(settings, load)
    if settings.init is not None:
        from percoin.training.recipes.from_pool import FromPool

        return FromPool.prepare(settings, load)
    from percoin.training.recipes.per_market import PerMarket

    return PerMarket.prepare(settings, load)


def train(
    settings: TrainConfig,
    recipe: Recipe,
    run: RunContext,
    callbacks: Sequence[pl.Callback] = (),
    only: Collection[str] | None = None,
) -> TrainingOutcome:
    """Fit the recipe, judge and publish every market, and control false discoveries.

    Args:
        settings: The settings that the recipe was prepared with; ``resume`` may differ.
        recipe: The prepared markets.
        run: The run's folder and options.
        callbacks: Extra Lightning callbacks for every network.
        only: Markets to judge; None means all.

    Raises:
        InterruptedRunError: Ctrl-C or SIGTERM. The markets judged so far are published. They
            stay accepted only if no result of the other markets could change that.
        PercoinError: Any other error that the user can fix.
    """
    interruption = RunInterruption((settings.title, settings.tf.name), run.folder)
    choice = _choose_precision(settings, run)
    if choice is not None:
        run = replace(run, choices={**run.choices, "precision": choice.precision})
    with (
        nullcontext() if choice is None else choice.threads_set(),
        divergence_marked(run.folder),
        write_errors(settings, run.folder),
        interruption.expected(),
    ):
        config = plain_settings(settings, run.choices)
        if not settings.resume:
            forget_earlier_run(run.folder)
        if recipe.can_resume:
            facts = {"config": config, **_origin(recipe), **_own_code(settings), **_noted(choice)}
            check_resumable(settings, run.folder, facts)
        log.info("training %s %s in %s", settings.title, settings.tf.name, run.folder)
        rules = judging_rules(settings)
        if settings.targets:
            from percoin.training.own_checks import check_own_parts

            check_own_parts(settings, recipe.markets[-1], settings.export.onnx)
        resolved = settings if choice is None else choice.applied(settings)
        trained = recipe.fit(
            Fitting(resolved, run.folder, rules, interruption, callbacks, run.fitter)
        )
        trained = replace(trained, sections={**trained.sections, **_noted(choice)})
        wanted = [each for each in trained.markets if only is None or each.symbol in only]
        markets = TrainedMarkets(settings, recipe, run, trained)
        with markets.unheard_taken_back(wanted):
            for fitted in wanted:
                interruption.end_if_received()
                markets.judge_and_publish(fitted)
        markets.control_false_discoveries()
        return markets.outcome()


def _choose_precision(settings: TrainConfig, run: RunContext) -> PrecisionChoice | None:
    """The precision of this run; None if the settings name it, or train no network."""
    if not settings.leaves_precision_open:
        return None
    from percoin.training.precision import precision_of_run

    return precision_of_run(settings, run.folder)


def _noted(choice: PrecisionChoice | None) -> dict[str, object]:
    """The choice of the precision, for a run's settings and for ``metrics.json``."""
    # As it is read again.
    return {} if choice is None else {"precision": json_codec.loads(json_codec.dumps(choice))}


def _own_code(settings: TrainConfig) -> dict[str, object]:
    """The code of the user's own, which must be the same when a run resumes."""
    if not settings.targets:
        return {}
    from percoin.training.own_parts import sources_of

    return {"code": {group: asdict(source) for group, source in sources_of(settings).items()}}


def _origin(recipe: Recipe) -> dict[str, object]:
    """Facts that must be the same when a run resumes, apart from its settings."""
    hashes = {data.bars.symbol: data.bars.sha256() for data in recipe.markets}
    start = recipe.begins_with
    code = next((data.spec.code for data in recipe.markets), {})
    beside = {data.bars.symbol: hash_references(data) for data in recipe.markets}
    return {
        "bars": hashes if recipe.is_set else next(iter(hashes.values())),
        LAST_BARS: {data.bars.symbol: int(data.bars.open_time[-1]) for data in recipe.markets},
        **({"references": beside} if any(beside.values()) else {}),
        **({} if start is None else {"pooled model": start}),
        **({"code of your own": code} if code else {}),
    }

"""One training, whatever the recipe: check, prepare, fit, judge, publish, control, outcome.

The command, the jobs of a sweep, the last step of a search, retraining and ``reproduce`` all call
``train``. A recipe (``percoin.training.recipes``) says how markets are prepared and how weights
come about; a market alone is a set of one.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from percoin.config import LogisticConfig, RecipeName, TrainConfig
from percoin.training.folds import load_bars
from percoin.training.interruption import RunInterruption
from percoin.training.machine import check_machine
from percoin.training.markets import TrainedMarkets, judging_rules
from percoin.training.outcome import TrainingOutcome
from percoin.training.recipes.recipe import Fitting, LoadBars, Recipe
from percoin.training.run_files import (
    RunContext,
    check_resumable,
    divergence_marked,
    plain_settings,
    write_errors,
)

if TYPE_CHECKING:
    import lightning.pytorch as pl

log = logging.getLogger(__name__)


def train_from_config(settings: TrainConfig) -> None:
    """Train what the settings describe, and print its screen.

    Raises:
        MarketsError: Some of several markets have no new model; names all of them.
        PercoinError: Anything else that a user can mend; nothing is published.
    """
    check_machine(settings)
    outcome = train(settings, prepare(settings), RunContext.of_hydra())
    print(outcome.render())
    outcome.check()


def prepare(settings: TrainConfig, load: LoadBars = load_bars) -> Recipe:
    """Make the markets of the settings ready to train on.

    Args:
        settings: Of the run.
        load: Brings the bars of one market, by the settings of that market.

    Raises:
        DataError: A market alone has no bars, or too few.
        PoolError: The same of markets that need each other; names all of them.
    """
    # Lightning takes seconds to import: only once the settings are known to be good.
    if isinstance(settings.model, LogisticConfig):
        from percoin.training.recipes.logistic import Logistic

        return Logistic.prepare(settings, load)
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
    """Fit what is ready, judge every market, publish it, and control false discoveries.

    Args:
        settings: What the recipe was prepared by; ``resume`` may differ.
        recipe: The markets.
        run: Where the run leaves what it writes.
        callbacks: Further ones of Lightning, for every network that is trained.
        only: Markets to judge; None is all of them.

    Raises:
        InterruptedRunError: Ctrl-C or SIGTERM. Of several markets those judged by then are
            published, and accepted only if that stands whatever the others turn out to be.
        PercoinError: Anything else that a user can mend.
    """
    interruption = RunInterruption((settings.title, settings.tf.name), run.folder)
    with (
        divergence_marked(run.folder),
        write_errors(settings, run.folder),
        interruption.expected(),
    ):
        config = plain_settings(settings, run.choices)
        if recipe.can_resume:
            check_resumable(settings, run.folder, {"config": config, **_origin(recipe)})
        log.info("training %s %s in %s", settings.title, settings.tf.name, run.folder)
        rules = judging_rules(settings)
        trained = recipe.fit(Fitting(settings, run.folder, rules, interruption, callbacks))
        wanted = [each for each in trained.markets if only is None or each.symbol in only]
        markets = TrainedMarkets(settings, recipe, run, trained)
        with markets.unheard_taken_back(wanted):
            for fitted in wanted:
                interruption.end_if_received()
                markets.judge_and_publish(fitted)
        markets.control_false_discoveries()
        return markets.outcome()


def _origin(recipe: Recipe) -> dict[str, object]:
    """What a run that goes on must find again, beside its settings."""
    hashes = {data.bars.symbol: data.bars.sha256() for data in recipe.markets}
    start = recipe.begins_with
    return {
        "bars": hashes if recipe.is_set else next(iter(hashes.values())),
        **({} if start is None else {"pooled model": start}),
    }

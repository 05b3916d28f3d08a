"""The work of ``python -m percoin.signals symbol=BTCUSDT``: measure the quality of each source."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from percoin.assembly import bar_source, dataset_spec, default_label_rules, trading_costs
from percoin.bars.store import BarStore
from percoin.cli import compose_config, run_command
from percoin.cli.overrides import source_words
from percoin.config import OutputFormat, SignalsConfig, typed
from percoin.dataset import build_dataset
from percoin.evaluation.uncertainty import Bootstrap
from percoin.json_codec import one_line
from percoin.labels import LabelRule
from percoin.signals.market import SourcedBars
from percoin.signals.worth import MarketWorth, WorthFiles, measure_command
from percoin.types import Source

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Score the sources, print the table and return the exit code."""

    def command() -> None:
        settings = typed(compose_config("signals", arguments), SignalsConfig)
        print(score_sources(settings))

    return run_command(command, "signals")


def score_sources(settings: SignalsConfig) -> str:
    """Score every source in the settings and return the text or JSON they ask for.

    The quality of the rules on all bars is also stored, if the label rule is the default one; the
    chain reads it when it answers on bars of that kind.

    Raises:
        PercoinError: The bars cannot be loaded or make no dataset.
    """
    # Import late, after the settings are checked: scoring needs scipy and scikit-learn.
    from percoin.signals.market_scores import score_market
    from percoin.signals.measure import measure_worth
    from percoin.signals.score_table import format_table, to_json
    from percoin.signals.scores import Scorer

    timeframe, spec = settings.tf.timeframe, dataset_spec(settings)
    n_bars = spec.bars_to_load(timeframe)
    store = BarStore(Path(settings.data_dir) / "bars")
    source = bar_source(settings.source, store, n_bars)
    bars = source.load(settings.symbol, timeframe)
    dataset = build_dataset(bars, spec)
    chain = [Source.of_option(name) for name in settings.chain]
    scorer = Scorer(
        dataset,
        trading_costs(settings.costs),
        Bootstrap(
            dataset.label_rule.horizon,
            settings.seed,
            settings.repetitions,
            day=math.ceil(timeframe.bars_per_day),
        ),
        n_trials=len(chain),
    )
    market = SourcedBars(bars, source)
    table = score_market(scorer, market, chain, Path(settings.models_dir))
    worth = measure_worth(market, spec.label_rule, settings.repetitions, settings.seed)
    _keep(worth, spec.label_rule, settings)
    is_json = settings.output == OutputFormat.JSON
    return one_line(to_json(table, worth)) if is_json else format_table(table, worth)


def _keep(worth: MarketWorth, rule: LabelRule, settings: SignalsConfig) -> None:
    """Store the measurement for the chain; if that fails, only log it and still show the scores."""
    data_dir = Path(settings.data_dir)
    if rule != default_label_rules().get(worth.tf):
        words = source_words(settings.source)
        log.warning(
            "%s %s: this is shown and not kept, so answers use the last measurement: the labels "
            "are not the default ones of the timeframe; kept is what %s measures",
            *(worth.symbol, worth.tf.value),
            measure_command(worth.symbol, worth.tf, *words, data_dir=data_dir),
        )
        return
    try:
        WorthFiles(data_dir).write(worth)
    except OSError as error:
        log.warning(
            "%s %s: the worth of its sources cannot be stored in data_dir=%s (%s), so answers use "
            "the last measurement; give a folder that can be written",
            *(worth.symbol, worth.tf.value, data_dir, error.strerror),
        )

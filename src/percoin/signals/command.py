"""The work of ``python -m percoin.signals symbol=BTCUSDT``: measure the quality of each source."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from percoin.assembly import bar_source, dataset_spec, default_label_rules, trading_costs
from percoin.bars.schema import is_simulated, kind_of_origin
from percoin.bars.store import BarStore
from percoin.cli import compose_config, run_command
from percoin.config import OutputFormat, SignalsConfig, typed
from percoin.dataset import build_dataset
from percoin.evaluation.uncertainty import Bootstrap
from percoin.json_codec import one_line
from percoin.labels import LabelRule
from percoin.printable import printable
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

    The quality of the rules on all bars is also stored, if they are of the kind that lies in the
    store and the label rule is the default one; the chain reads it when it answers.

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
    _keep(worth, spec.label_rule, store, Path(settings.data_dir))
    is_json = settings.output == OutputFormat.JSON
    return one_line(to_json(table, worth)) if is_json else format_table(table, worth)


def _keep(worth: MarketWorth, rule: LabelRule, store: BarStore, data_dir: Path) -> None:
    """Store the measurement for the chain; if that fails, only log it and still show the scores."""
    other = _what_differs(worth, rule, store)
    if other:
        log.warning(
            "%s %s: this is shown and not kept, so answers use the last measurement: %s; "
            "kept is what %s measures",
            *(worth.symbol, worth.tf.value, other),
            measure_command(worth.symbol, worth.tf, data_dir=data_dir),
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


def _what_differs(worth: MarketWorth, rule: LabelRule, store: BarStore) -> str:
    """How the measurement differs from the one that answers go by; empty if it does not."""
    if rule != default_label_rules().get(worth.tf):
        return "the labels are not the default ones of the timeframe"
    origin = worth.bars.origin
    other = store.other_kind(worth.symbol, worth.tf, origin)
    # Those of simulated bars are kept in a file of their own.
    if other is None or is_simulated(origin):
        return ""
    kind = printable(kind_of_origin(origin))
    return f"the bars are of {kind}, those in the store of {printable(other)}"

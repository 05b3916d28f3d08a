"""Whether a model that is trained again on all rows (refit=true) beats its judged twin afterwards.

    python benchmarks/refit.py FOLDER ANSWERS [--groups later-fixed ...] [--symbols BTCUSDT ...]

The bars of FOLDER are cut at a day, and the 47 days from then on are the future. What precedes is
split 70/15/15 as always. The twin is fitted on its train rows, calibrated and blended on its
validation rows. The refit is fitted on the rows of all three parts and keeps the twin's
calibration and blend weights, as ``refit=true`` does. Both forecast the future; the table has the
twin's log-loss minus the refit's, in nats a row, with intervals that draw days, the same for all
markets. A *group* is one future (``later``, ``earlier``) and one label rule (``fixed``,
``scaled``). ``--models pool`` has what learns from all markets instead, ``--models network`` a
half-width network beside each market's own models.

Each market's losses are kept in ANSWERS; what is there is not computed again.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
from rivals import HORIZON, THRESHOLDS, load, rule_of

from percoin.bars.schema import Bars
from percoin.dataset import DatasetSpec, MarketDataset, PreparedMarket, SplitSpec, build_dataset
from percoin.evaluation.baselines import BESIDE, POOLED, Baseline, class_shares
from percoin.evaluation.blend import blend_probabilities, choose_weights
from percoin.evaluation.calibration import apply_calibration, fit_calibration
from percoin.evaluation.daily import DailyLosses, sum_by_day
from percoin.evaluation.fold_forecasts import baseline_inputs, fit_parts, fit_pooled_baselines
from percoin.evaluation.joint import JointMean, joint_lead, joint_skill
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.uncertainty import Bootstrap
from percoin.features.feature_set import FeatureSet
from percoin.splits import Split
from percoin.training.recipes.pool import Pool, build_pool
from percoin.types import FloatArray, Timeframe

log = logging.getLogger("refit")

FUTURE_DAYS = 47
# As model=cnn_lstm_half.
HALF = {"channels": (32, 64, 128), "hidden_size": 50, "head_sizes": (64, 32)}
GROUPS = tuple(
    f"{window}-{label}" for label in ("fixed", "scaled") for window in ("later", "earlier")
)
BLEND = "blended"
BESIDE_A_POOL = ("volatility", "volatility_clock")


@dataclass(frozen=True, eq=False)
class Market:
    """One market before and after the cut; the future is the test part of both.

    Attributes:
        twin: Train and validation rows as judged.
        refit: Every row before the cut in train.
    """

    twin: MarketDataset
    refit: MarketDataset

    @classmethod
    def of(cls, twin: MarketDataset, refit: MarketDataset, whole: Bars, cut: int) -> Market:
        """Put the future in the place of the test rows."""
        start = int(whole.open_time.searchsorted(twin.bars.open_time[0]))
        prepared = PreparedMarket.again(replace(twin, bars=whole.slice(start)))
        future = prepared.rows[prepared.bars.open_time[prepared.rows] >= cut]
        made = [
            prepared.with_split(Split(d.split.train, d.split.validation, future), d.scaling)
            for d in (twin, refit)
        ]
        return cls(made[0], made[1])


class Group:
    """The markets of one future and label rule; a pool of them is built if it is needed."""

    def __init__(self, name: str, folder: Path, timeframe: Timeframe) -> None:
        window, label = name.split("-")
        step = pd.Timedelta(days=FUTURE_DAYS)
        everything = load(folder, timeframe, None)
        until = max(bars.close_time() for bars in everything) - step * int(window == "earlier")
        self.bars = {
            bars.symbol: bars.slice(0, int((bars.frame.index < until).sum())) for bars in everything
        }
        self.cut = until - step
        rule = rule_of(label, timeframe)
        split = SplitSpec(purge_bars=HORIZON, embargo_bars=HORIZON)
        self.spec = DatasetSpec(rule, FeatureSet(), 60, split, 365.0)

    def known(self, symbol: str) -> Bars:
        """The bars of a market before the cut."""
        bars = self.bars[symbol]
        return bars.slice(0, int((bars.frame.index < self.cut).sum()))

    @cached_property
    def pools(self) -> tuple[Pool, Pool]:
        """All markets, for the twin and for the refit."""
        twin = build_pool([self.known(symbol) for symbol in self.bars], [], self.spec)
        return twin, twin.without_holdout()

    @cached_property
    def pooled(self) -> tuple[list[Baseline], list[Baseline]]:
        """What learns from all markets, for the twin and for the refit."""
        began = time.monotonic()
        twin, refit = (fit_pooled_baselines(pool.seen, has_moves=True) for pool in self.pools)
        log.info("pooled models: %.0f s", time.monotonic() - began)
        return twin, refit

    def market(self, symbol: str, in_pool: bool) -> Market:
        """One market with its future, scaled alone or as in the pool."""
        if in_pool:
            twin, refit = (
                next(d for d in pool.seen if d.bars.symbol == symbol) for pool in self.pools
            )
        else:
            twin = build_dataset(self.known(symbol), self.spec)
            refit = PreparedMarket.again(twin).without_holdout()
        return Market.of(twin, refit, self.bars[symbol], int(self.cut.timestamp() * 1000))


@dataclass(frozen=True, eq=False)
class Said:
    """Calibrated probabilities of a part: the twin's on validation rows, both on the future."""

    validation: FloatArray
    twin: FloatArray
    refit: FloatArray

    @classmethod
    def of(cls, known: FloatArray, labels: np.ndarray, twin: FloatArray, refit: FloatArray) -> Said:
        """Calibrate logits as the twin's validation rows have it."""
        calibration = fit_calibration(known, labels)
        return cls(*(apply_calibration(each, calibration) for each in (known, twin, refit)))

    @classmethod
    def blended(cls, parts: Sequence[Said], labels: np.ndarray) -> Said:
        """Average parts with the weights of the twin's validation rows."""
        weights = choose_weights([part.validation for part in parts], labels)
        return cls(
            *(
                blend_probabilities([getattr(part, name) for part in parts], weights)
                for name in ("validation", "twin", "refit")
            )
        )


def ask_parts(
    market: Market,
    names: Sequence[str],
    pooled: tuple[Sequence[Baseline], Sequence[Baseline]] = ((), ()),
) -> dict[str, Said]:
    """Fit models without a network to the twin's and to the refit's train rows, and ask both."""
    twin, datasets = market.twin, (market.twin, market.refit)
    then, now = (fit_parts(d, names, 0, p) for d, p in zip(datasets, pooled, strict=True))
    old, new = (baseline_inputs(dataset) for dataset in datasets)
    validation, future = twin.rows("validation"), twin.rows("test")
    said = {}
    for name in names:
        columns = then[name].columns
        known = old.columns(columns)
        said[name] = Said.of(
            then[name].logits(known[validation]),
            twin.label[validation],
            then[name].logits(known[future]),
            now[name].logits(new.columns(columns)[future]),
        )
    return said


def ask_network(market: Market, epochs: int) -> Said:
    """A half-width network as ``refit=true`` trains it again."""
    import torch

    from percoin.network import CnnLstm
    from percoin.training.fitted_network import logits_of
    from percoin.training.lit_module import OptimizerSpec
    from percoin.training.run import TrainingPlan, data_of, make_module, train, train_again

    twin, refit = market.twin, market.refit
    labels = twin.label[twin.rows("validation")]
    plan = TrainingPlan(epochs, 64, 0.001, 0, OptimizerSpec())

    def fresh() -> CnnLstm:
        torch.manual_seed(plan.seed)
        return CnnLstm(len(twin.feature_names), **HALF)

    with tempfile.TemporaryDirectory() as name:
        judged = train(twin, fresh(), plan, Path(name))
        module = make_module(fresh(), plan)
        train_again(judged, module, data_of(refit, plan), plan, Path(name))
    known, asked = (logits_of(judged.module, twin, part) for part in ("validation", "test"))
    return Said.of(known, labels, asked, logits_of(module, refit, "test"))


def losses_by_day(market: Market, said: Said) -> DailyLosses:
    """Losses on the future: the refit as the model, the twin as its rival."""
    twin, rows = market.twin, market.twin.rows("test")
    label = twin.label[rows]
    prior = np.tile(class_shares(twin.label[twin.rows("train")]), (len(rows), 1))
    losses = [row_log_loss(each, label) for each in (said.refit, prior, said.twin)]
    return sum_by_day(twin.bars.open_time[rows], losses)


def shown(mean: JointMean) -> str:
    """With its interval."""
    return f"{mean.value:+.4f} [{mean.lower:+.4f}, {mean.upper:+.4f}]"


def table(answers: Sequence[Mapping[str, DailyLosses]]) -> str:
    """Markdown: a line for each part and blend."""
    bootstrap = Bootstrap(1)
    lines = [
        "| model | twin's skill over the train prior | refit's lead, nats a row | ahead |",
        "|---|---:|---:|---:|",
    ]
    for name in answers[0]:
        daily = [own[name] for own in answers if name in own]
        twins = [replace(each, model=each.best_baseline) for each in daily]
        leads = [sum(each.best_baseline) - sum(each.model) for each in daily]
        lines.append(
            f"| {name} | {joint_skill(twins, bootstrap).value:+.4f} | "
            f"{shown(joint_lead(daily, bootstrap))} | "
            f"{sum(lead > 0 for lead in leads)} of {len(leads)} |"
        )
    return "\n".join(lines)


def kept(path: Path, make: Callable[[], dict[str, DailyLosses]]) -> dict[str, DailyLosses]:
    """A market's losses, computed before or now; a file is whole or not there."""
    if not path.is_file():
        content = {name: asdict(daily) for name, daily in make().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(content))
        aside.replace(path)
    read = json.loads(path.read_text())
    return {
        name: DailyLosses(**{k: None if v is None else tuple(v) for k, v in entry.items()})
        for name, entry in read.items()
    }


def main() -> None:
    """Print a table for each group."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--tf", default="15m", choices=THRESHOLDS)
    parser.add_argument("--groups", nargs="+", default=GROUPS, choices=GROUPS)
    parser.add_argument("--symbols", nargs="+", help="to judge; the pool has all markets")
    parser.add_argument("--models", default="alone", choices=("alone", "pool", "network"))
    parser.add_argument("--epochs", type=int, default=8, help="of a network, at most")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    for name in options.groups:
        group = Group(name, options.folder, Timeframe(options.tf))
        place = options.answers / f"{options.tf}-{name}-{options.models}"
        answers = [
            kept(place / f"{symbol}.json", partial(losses_of, group, symbol, options))
            for symbol in options.symbols or group.bars
        ]
        n_markets = f"{len(answers)} markets of {options.tf}"
        print(f"\n{name}: {n_markets}, future from {group.cut:%Y-%m-%d}\n")
        print(table(answers), flush=True)


def losses_of(group: Group, symbol: str, options: argparse.Namespace) -> dict[str, DailyLosses]:
    """Fit and ask everything of one market."""
    began, market = time.monotonic(), group.market(symbol, options.models == "pool")
    if options.models == "pool":
        said = ask_parts(market, BESIDE_A_POOL) | ask_parts(market, POOLED, group.pooled)
    else:
        said = ask_parts(market, BESIDE)
    if options.models == "network":
        said = {"network": ask_network(market, options.epochs), **said}
    labels = market.twin.label[market.twin.rows("validation")]
    said[BLEND] = Said.blended(list(said.values()), labels)
    log.info("%s: %.0f s", symbol, time.monotonic() - began)
    return {part: losses_by_day(market, each) for part, each in said.items()}


if __name__ == "__main__":
    main()

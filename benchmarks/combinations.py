"""What combinations of the judge's baselines are worth, with weights chosen on validation rows.

    python benchmarks/combinations.py FOLDER [--symbols A,B] [--tf 15m] [--until 2025-07-15]
        [--labels fixed scaled relative]

No network. Each part is fitted on the train rows of a market (the pooled ones on those of all of
them) and calibrated on its validation rows, as a training does it. For each label rule a Markdown
table: mean log-loss skill over the train prior on test rows, the lead in nats a row over the one
that validation rows prefer among so many parts (each market its own), or over the same combination
without ``moves`` or with weights of each market, all with joint intervals that draw days, on how
many markets it is ahead of that, and the mean weights. The last row has one vector of weights for
all markets, chosen on the validation rows of all.
``--until`` leaves out the bars from then on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rivals import HORIZON, RULES, THRESHOLDS, load, rule_of, shown

from percoin.dataset import DatasetSpec, MarketDataset, SplitSpec
from percoin.evaluation.baselines import (
    BESIDE,
    MOVES,
    POOLED,
    POOLED_MOVES,
    VOLATILITY,
    VOLATILITY_CLOCK,
    class_shares,
    default_baselines,
)
from percoin.evaluation.blend import blend_probabilities, choose_weights
from percoin.evaluation.calibration import apply_calibration, fit_calibration
from percoin.evaluation.daily import DailyLosses, sum_by_day
from percoin.evaluation.fold_forecasts import (
    PooledBaseline,
    baseline_inputs,
    fit_pooled_baselines,
)
from percoin.evaluation.joint import joint_lead, joint_skill
from percoin.evaluation.metrics import PROBABILITY_FLOOR, row_log_loss
from percoin.evaluation.moves_fitting import RangeBoosting, RangeRows, fit_moves
from percoin.evaluation.uncertainty import Bootstrap
from percoin.features.feature_set import FeatureDefinition, FeatureSet
from percoin.training.recipes.pool import build_pool
from percoin.types import FloatArray, IntArray, Timeframe

FOUR = tuple(name for name in BESIDE if name != MOVES)
FIVE = (VOLATILITY, VOLATILITY_CLOCK, *(name for name in POOLED if name != POOLED_MOVES))
SEVEN = tuple(dict.fromkeys((*FOUR, *FIVE)))
SINGLE = (*FOUR, MOVES, *FIVE[2:], POOLED_MOVES)
# Each with the parts of which validation rows choose the one that it is held against.
COMBINATIONS = (
    ((VOLATILITY, VOLATILITY_CLOCK), FOUR),
    (FOUR[:3], FOUR),
    (FOUR[1:], FOUR),
    (FOUR, FOUR),
    (FIVE, SEVEN),
    (SEVEN, SEVEN),
    # The defaults of a market alone and of a pool, but for their network.
    ((*FOUR, MOVES), (*FOUR, MOVES)),
    ((*FOUR, MOVES), SEVEN),
    ((*FOUR, MOVES), SINGLE),
    ((*FIVE, POOLED_MOVES), SEVEN),
    ((*FIVE, POOLED_MOVES), SINGLE),
)
# Each with the combination that it is held against.
WITH_MOVES = (((*FOUR, MOVES), FOUR), ((*FIVE, POOLED_MOVES), FIVE), ((*FIVE, MOVES), FIVE))


def main() -> None:
    """Print a table for each label rule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--symbols", type=lambda text: text.split(","), help="all without")
    parser.add_argument("--tf", default="15m", choices=THRESHOLDS)
    parser.add_argument("--days", type=float, default=365, help="of history")
    parser.add_argument("--until", type=lambda text: pd.Timestamp(text, tz="UTC"))
    parser.add_argument("--labels", nargs="+", default=("fixed", "scaled"), choices=RULES)
    options = parser.parse_args()
    markets = load(options.folder, Timeframe(options.tf), options.until)
    if options.symbols is not None:
        markets = [bars for bars in markets if bars.symbol in options.symbols]
    split = SplitSpec(purge_bars=HORIZON, embargo_bars=HORIZON)
    for name in options.labels:
        rule = rule_of(name, Timeframe(options.tf))
        features = FeatureSet(FeatureDefinition.RELATIVE)
        pool = build_pool(markets, [], DatasetSpec(rule, features, 60, split, options.days))
        pooled = fit_pooled_baselines(pool.seen, has_moves=True)
        judged = [Judged(dataset, pooled) for dataset in pool.seen]
        first, last = pool.seen[0].dates("test")
        print(f"\n{name} label, {len(judged)} markets, test {first:%Y-%m-%d} to {last:%Y-%m-%d}")
        for part in (MOVES, POOLED_MOVES):
            secs = np.mean([market.secs[part] for market in judged])
            print(f"fitting {part}: {secs:.1f} s of processor time a market")
        print()
        print(table(judged), flush=True)


class Judged:
    """The calibrated forecasts of every part on one market's validation and test rows."""

    def __init__(self, dataset: MarketDataset, pooled: list[PooledBaseline]) -> None:
        train, inputs = dataset.rows("train"), baseline_inputs(dataset)
        own = [baseline for baseline in default_baselines() if baseline.name in BESIDE]
        for baseline in own:
            baseline.fit(inputs.take(train), dataset.label[train])
        began = time.process_time()
        moves = fit_moves(dataset, inputs, 0)
        then = time.process_time()
        rows = RangeRows.of(dataset, inputs)
        pooled = [
            each.moves_of(rows) if isinstance(each, RangeBoosting) else each for each in pooled
        ]
        self.secs = {MOVES: then - began, POOLED_MOVES: time.process_time() - then}
        rows = [dataset.rows("validation"), dataset.rows("test")]
        self.labels = [dataset.label[part] for part in rows]
        self.opened: IntArray = dataset.bars.open_time[rows[1]]
        self.shares = class_shares(dataset.label[train])
        self.parts: dict[str, list[FloatArray]] = {}
        for baseline in [*own, moves, *pooled]:
            said = [baseline.predict_proba(inputs.take(part)) for part in rows]
            logits = [np.log(np.maximum(one, PROBABILITY_FLOOR)) for one in said]
            fitted = fit_calibration(logits[0], self.labels[0])
            self.parts[baseline.name] = [apply_calibration(one, fitted) for one in logits]

    def best_of(self, names: tuple[str, ...]) -> str:
        """The part with the smallest log-loss on validation rows."""
        return min(names, key=lambda n: row_log_loss(self.parts[n][0], self.labels[0]).mean())

    def combined(self, names: tuple[str, ...]) -> tuple[FloatArray, tuple[float, ...]]:
        """Losses of the average on test rows, and the weights."""
        weights = choose_weights([self.parts[name][0] for name in names], self.labels[0])
        return self.averaged(names, weights), weights

    def averaged(self, names: tuple[str, ...], weights: tuple[float, ...]) -> FloatArray:
        """Losses of the average with such weights on test rows."""
        test = [self.parts[name][1] for name in names]
        return row_log_loss(blend_probabilities(test, weights), self.labels[1])

    def daily(self, losses: FloatArray, beside: FloatArray) -> DailyLosses:
        """With the train prior, and another forecast in the place of the best baseline."""
        prior = np.tile(self.shares, (len(losses), 1))
        return sum_by_day(self.opened, [losses, row_log_loss(prior, self.labels[1]), beside])


def shared_weights(judged: list[Judged], names: tuple[str, ...]) -> tuple[float, ...]:
    """One vector of weights for all markets, chosen on all their validation rows."""
    said = [np.concatenate([market.parts[name][0] for market in judged]) for name in names]
    return choose_weights(said, np.concatenate([market.labels[0] for market in judged]))


def table(judged: list[Judged]) -> str:
    """Markdown."""
    lines = [
        "| parts | skill over the train prior | over | lead, nats a row | ahead | weights |",
        "|---|---:|---|---:|---:|---|",
    ]
    bootstrap = Bootstrap(1)
    alone = [((name,), (name,)) for name in SINGLE]
    for names, rivals in [*alone, *COMBINATIONS, *WITH_MOVES]:
        daily, weights, n_ahead = [], [], 0
        for market in judged:
            losses, chosen = market.combined(names)
            is_beside = (names, rivals) in WITH_MOVES
            beside, _ = market.combined(rivals if is_beside else (market.best_of(rivals),))
            daily.append(market.daily(losses, beside))
            weights.append(chosen)
            n_ahead += bool(losses.mean() < beside.mean())
        mean = " ".join(f"{weight:.2f}" for weight in np.mean(weights, axis=0))
        over = "the same without moves" if is_beside else f"the best of {len(rivals)}"
        lead = f"{over} | {shown(joint_lead(daily, bootstrap))} | {n_ahead} of {len(judged)}"
        is_one = len(names) == 1
        lines.append(
            f"| {', '.join(names)} | {shown(joint_skill(daily, bootstrap))} | "
            f"{' | | ' if is_one else lead} | {'' if is_one else mean} |"
        )
    names = (*FIVE, POOLED_MOVES)
    shared = shared_weights(judged, names)
    pairs = [(market.averaged(names, shared), market.combined(names)[0]) for market in judged]
    daily = [market.daily(*pair) for market, pair in zip(judged, pairs, strict=True)]
    n_ahead = sum(bool(losses.mean() < beside.mean()) for losses, beside in pairs)
    lines.append(
        f"| {', '.join(names)}, one vector for all | {shown(joint_skill(daily, bootstrap))} | the "
        f"same with weights of each | {shown(joint_lead(daily, bootstrap))} | {n_ahead} of "
        f"{len(judged)} | {' '.join(f'{weight:.2f}' for weight in shared)} |"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

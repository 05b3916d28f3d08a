"""Whether a market's direction beside the mean of all markets can be told, and what that is worth.

    python benchmarks/relative.py FOLDER ANSWERS [--tf 15m] [--test-days 40] [--days 190]

For each of four test windows that follow one another, the markets of FOLDER (several folders are
joined by ``:``; the first that has a market is taken) make a pool with ``labels=relative``, and
four models learn the labels from its train rows: boosting pooled over the markets and a logit of
each market, from the 15 features with volatility and clock, and with the state of the reference
markets too. Each is calibrated on the validation rows of each market.

What was fitted is kept in ANSWERS and not fitted again. The table has for each window and model the
AUC of LONG against SHORT, the skill over the train prior, and what a trade of the surest tenth
earns: by the probability of its direction, with the limit taken from validation rows, in at the
next open and out at the close of the horizon, the market against an equal part of every market of
the pool. Costs are those of both legs on both sides. Intervals draw days, the same for all markets.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rivals import load, shown

from percoin.bars.schema import Bars
from percoin.dataset import DatasetSpec, MarketDataset, SplitSpec
from percoin.evaluation.backtest import Costs, ExitRule, find_trades
from percoin.evaluation.baselines import class_shares, make_boosting
from percoin.evaluation.calibration import apply_calibration, fit_calibration
from percoin.evaluation.daily import sum_by_day
from percoin.evaluation.joint import JointMean, joint_skill
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.trading import prices_of
from percoin.evaluation.uncertainty import Bootstrap
from percoin.features.feature_set import FeatureSet
from percoin.features.market import MARKET_NAMES
from percoin.labels import Relative
from percoin.training.recipes.pool import Pool, build_pool
from percoin.types import Signal, Timeframe

log = logging.getLogger("relative")

HORIZON, N_WINDOWS, SUREST = 3, 4, 0.1
# Share of the first window's history that a market may lack.
LATE = 0.2
REFERENCES = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT")
FEATURES = FeatureSet(extra=("volatility", "clock", "market"), references=REFERENCES)
MODELS = ("boosting", "boosting, market state", "logit", "logit, market state")
COSTS = Costs()
DAY = 86_400_000

Answers = dict[str, list[np.ndarray]]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("answers", type=Path)
    parser.add_argument("--tf", default="15m", choices=("15m", "1h", "4h"))
    parser.add_argument("--test-days", type=int, default=40)
    parser.add_argument("--days", type=int, default=190, help="of history, the test days included")
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        help="train row that boosting takes; with 3 the labels do not overlap, and it is quicker",
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    timeframe = Timeframe(options.tf)
    markets = markets_of(options.folder.split(":"), timeframe)
    newest = max(int(bars.open_time[-1]) for bars in markets) + timeframe.milliseconds
    # With markets that are not there for most of the train rows, the mean is of few.
    begins = newest - ((N_WINDOWS - 1) * options.test_days + (1 - LATE) * options.days) * DAY
    markets = [bars for bars in markets if bars.open_time[0] <= begins]
    print(
        f"\n{len(markets)} markets of {options.tf}\n\n"
        "| test from | model | AUC | skill | gross bps a trade | net | trades |\n"
        "|---|---|---:|---:|---:|---:|---:|",
        flush=True,
    )
    for window in reversed(range(N_WINDOWS)):
        until = pd.Timestamp(newest - window * options.test_days * DAY, unit="ms", tz="UTC")
        pool = pool_until(markets, until, options.days, options.test_days)
        for name in MODELS:
            place = options.answers / f"{options.tf}-{window}-{name.replace(', ', '-')}.npz"
            said = kept(place, pool, name, options.every)
            print(row(pool, name, said), flush=True)


def markets_of(folders: Sequence[str], timeframe: Timeframe) -> list[Bars]:
    """Each market from the first folder that has it."""
    found: dict[str, Bars] = {}
    for folder in folders:
        for bars in load(Path(folder), timeframe, None):
            found.setdefault(bars.symbol, bars)
    return list(found.values())


def pool_until(markets: Sequence[Bars], until: pd.Timestamp, days: int, test_days: int) -> Pool:
    """The pool whose test part is the days before a moment."""
    rule = Relative(HORIZON, 0.4, 50)
    test = test_days / days
    split = SplitSpec(fractions=(0.85 - test, 0.15, test), purge_bars=HORIZON, embargo_bars=HORIZON)
    cut = [bars.slice(0, int((bars.frame.index < until).sum())) for bars in markets]
    kept_bars = [bars for bars in cut if len(bars)]
    return build_pool(kept_bars, [], DatasetSpec(rule, FEATURES, 1, split, days))


def kept(place: Path, pool: Pool, name: str, every: int) -> Answers:
    """The calibrated answers of a model by part and market, fitted now if they are not there."""
    parts = ("validation", "test")
    if not place.is_file():
        began = time.monotonic()
        said = fitted(pool, name, every)
        place.parent.mkdir(parents=True, exist_ok=True)
        whole = place.with_suffix(".new.npz")
        np.savez_compressed(whole, **{part: np.concatenate(said[part]) for part in parts})
        whole.rename(place)
        log.info("%s: %.0f s", place.stem, time.monotonic() - began)
    found = np.load(place)
    ends = {part: np.cumsum([len(d.rows(part)) for d in pool.seen])[:-1] for part in parts}
    return {part: np.split(found[part].astype(np.float64), ends[part]) for part in parts}


def fitted(pool: Pool, name: str, every: int) -> Answers:
    """What a model says of the validation and test rows of each market."""
    is_pooled, n_out = name.startswith("boosting"), 0 if "state" in name else len(MARKET_NAMES)

    def inputs(dataset: MarketDataset, part: str) -> np.ndarray:
        rows = dataset.features[dataset.rows(part)]  # type: ignore[arg-type]
        return rows[:, : rows.shape[1] - n_out]

    shared = None
    if is_pooled:
        shared = make_boosting(0).fit(
            np.concatenate([inputs(dataset, "train")[::every] for dataset in pool.seen]),
            np.concatenate(
                [dataset.label[dataset.rows("train")][::every] for dataset in pool.seen]
            ),
        )
    found: Answers = {"validation": [], "test": []}
    for dataset in pool.seen:
        model = shared
        if model is None:
            model = regression().fit(inputs(dataset, "train"), dataset.label[dataset.rows("train")])
        logits = {part: np.log(model.predict_proba(inputs(dataset, part))) for part in found}
        came = dataset.label[dataset.rows("validation")]
        calibration = fit_calibration(logits["validation"], came)
        for part, answers in found.items():
            answers.append(apply_calibration(logits[part], calibration))
    return found


def regression() -> Any:
    """The logistic regression of the judge's baselines."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000))


def row(pool: Pool, name: str, said: Answers) -> str:
    """One line of the table."""
    bootstrap, losses = Bootstrap(1), []
    for dataset, probabilities in zip(pool.seen, said["test"], strict=True):
        rows = dataset.rows("test")
        prior = np.tile(class_shares(dataset.label[dataset.rows("train")]), (len(rows), 1))
        each = [row_log_loss(forecast, dataset.label[rows]) for forecast in (probabilities, prior)]
        losses.append(sum_by_day(dataset.bars.open_time[rows], [*each, each[1]]))
    gross, n_trades = worth(pool, said, 0.0, bootstrap)
    net, _ = worth(pool, said, 1.0, bootstrap)
    first = pool.seen[0].dates("test")[0]
    cells = [
        f"{first:%Y-%m-%d}",
        name,
        auc(pool, said["test"], bootstrap),
        shown(joint_skill(losses, bootstrap)),
        gross,
        net,
        f"{n_trades:,}",
    ]
    return f"| {' | '.join(cells)} |"


def auc(pool: Pool, said: Sequence[np.ndarray], bootstrap: Bootstrap) -> str:
    """Mean over the markets of the AUC of LONG against SHORT (DeLong et al., 1988)."""
    values, days, influences = [], [], []
    for dataset, probabilities in zip(pool.seen, said, strict=True):
        rows = dataset.rows("test")
        label, score = dataset.label[rows], np.log(probabilities[:, 2] / probabilities[:, 0])
        is_long, is_short = label == Signal.LONG, label == Signal.SHORT
        longs, shorts = score[is_long], score[is_short]
        below = placements(longs, shorts)
        above = 1 - placements(shorts, longs)
        value = float(below.mean())
        values.append(value)
        opened = dataset.bars.open_time[rows] // DAY
        days.append(np.concatenate([opened[is_long], opened[is_short]]))
        parts = [(below - value) / len(longs), (above - value) / len(shorts)]
        influences.append(np.concatenate(parts) / len(pool.seen))
    mean = float(np.mean(values))
    return f"{over_days(mean, np.concatenate(days), np.concatenate(influences), bootstrap):.3f}"


def placements(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each of the ones the share of the others below it; a tie counts half."""
    ordered = np.sort(others)
    counts = np.searchsorted(ordered, ones) + np.searchsorted(ordered, ones, side="right")
    return counts / (2 * len(others))


def worth(pool: Pool, said: Answers, n_costs: float, bootstrap: Bootstrap) -> tuple[str, int]:
    """Mean return of a trade of the surest tenth in basis points, and how many there are."""
    costs, days, returns = Costs(COSTS.fee_bps * n_costs, COSTS.slippage_bps * n_costs), [], []
    for dataset, known, asked in zip(pool.seen, said["validation"], said["test"], strict=True):
        rows = dataset.rows("test")
        limit = np.quantile(known[:, [0, 2]].max(axis=1), 1 - SUREST)
        first, last = int(rows[0]), int(rows[-1]) + HORIZON + 1
        prices = prices_of(dataset, first, last)
        for at in np.flatnonzero(asked[:, [0, 2]].max(axis=1) >= limit).tolist():
            signals = np.full(len(prices), Signal.NO_TRADE, dtype=np.int64)
            place = int(rows[at]) - first
            signals[place] = Signal.LONG if asked[at, 2] > asked[at, 0] else Signal.SHORT
            [trade] = find_trades(prices, signals, ExitRule(HORIZON))
            returns.append(trade.gross_return - trade.cost(costs))
            days.append(int(dataset.bars.open_time[rows[at]]) // DAY)
    earned = np.array(returns) * 10_000
    mean = float(earned.mean())
    influence = (earned - mean) / len(earned)
    return f"{over_days(mean, np.array(days), influence, bootstrap):.1f}", len(earned)


class Shown(JointMean):
    """A mean that a format shows with its interval."""

    def __format__(self, spec: str) -> str:
        if self.lower is None or self.upper is None:
            return format(self.value, spec)
        return f"{self.value:{spec}} [{self.lower:{spec}}, {self.upper:{spec}}]"


def over_days(
    mean: float, days: np.ndarray, influence: np.ndarray, bootstrap: Bootstrap
) -> JointMean:
    """A mean with an interval that draws days, from the influence of each row on it."""
    known, place = np.unique(days, return_inverse=True)
    summed = np.bincount(place, weights=influence)
    estimate = bootstrap.estimate(mean + len(known) * summed)
    return Shown(mean, estimate.lower, estimate.upper, 1, len(known))


if __name__ == "__main__":
    main()

"""What simple models know about which labels, inputs and bar lengths: the floor of any recipe.

    python benchmarks/simple_models.py FOLDER [--tf 15m] [--days 313] [--markets 32] [--boosting]

FOLDER holds real bars as ``source=files`` reads them. For every variant each market gets a
multinomial logistic regression, fitted on train rows with cuts that all markets share, and
is judged on the two last test windows of 15 % of the days each, with 15 % of validation
before it. Prints one line of Markdown a variant and window: log-loss skill over the train
prior on validation and test rows (mean over markets, 95 % interval from a bootstrap of days
drawn for all markets together), activity and direction apart, and what the most confident
tenth of the test rows by direction is worth. Everything is fitted on train rows.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from percoin.bars.resample import resample
from percoin.bars.schema import Bars
from percoin.bars.sources.files import FilesSource
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.dataset import DatasetSpec, PreparedMarket, SplitSpec
from percoin.errors import PercoinError
from percoin.evaluation.baselines import class_shares, make_boosting
from percoin.evaluation.daily import DailyLosses, sum_by_day
from percoin.evaluation.joint import JointMean, days_of, joint_skill
from percoin.evaluation.skills import BinaryView, activity, direction
from percoin.evaluation.uncertainty import Bootstrap
from percoin.features.feature_set import FeatureDefinition, FeatureSet, compute_features
from percoin.labels import FixedHorizon, LabelRule, TripleBarrier, VolatilityScaled
from percoin.signals.market import close_times, newest_closed
from percoin.splits import Split
from percoin.training.recipes.pool import CalendarCuts
from percoin.types import FloatArray, IntArray, Signal, Timeframe

ROOT = Path(__file__).parents[1]
DAY_MILLISECONDS = 86_400_000
LOOKBACK = 60
# Shares of the time: train, validation and test of the earlier window and of the later one.
WINDOWS = {"earlier": (0.55, 0.70, 0.85), "later": (0.70, 0.85, 1.0)}
TENTH = 0.1
LONGER = {Timeframe.M15: (Timeframe.H1, Timeframe.H4), Timeframe.H1: (Timeframe.H4,)}

Inputs = Callable[[PreparedMarket, dict[str, Bars]], FloatArray]


@dataclass(frozen=True)
class Variant:
    """What is tried: a label rule, what the model sees of each bar, and the model."""

    name: str
    rule: LabelRule
    inputs: Inputs
    features: FeatureSet = field(default_factory=FeatureSet)
    is_boosted: bool = False


@dataclass(frozen=True)
class Judged:
    """One market in one window.

    Attributes:
        validation_skill: Log-loss skill over the train prior.
        test: Open times of the test rows; losses of the model and of the prior over three
            classes; the same two for the direction alone.
        auc: Of activity and of direction.
        tenth: See ``tenth_of``.
    """

    validation_skill: float
    test: tuple[np.ndarray, ...]
    auc: tuple[float, float]
    tenth: tuple[int, int, int]


def last_row(market: PreparedMarket, _: dict[str, Bars]) -> FloatArray:
    return market.features


def summary(market: PreparedMarket, _: dict[str, Bars]) -> FloatArray:
    """The last bar, its size, the mean of the last 5 and the spread of the last 20."""
    own = market.features
    return np.hstack([own, np.abs(own), rolling(own, 5, np.mean), rolling(own, 20, np.std)])


def with_leaders(market: PreparedMarket, bars: dict[str, Bars]) -> FloatArray:
    """The 15 of BTCUSDT and of ETHUSDT at the same close beside the market's own."""
    leaders = [
        at_close(market.bars, bars[symbol], market.spec.feature_set)
        for symbol in ("BTCUSDT", "ETHUSDT")
    ]
    return np.hstack([market.features, *leaders])


def with_longer(market: PreparedMarket, _: dict[str, Bars]) -> FloatArray:
    """The 15 of the newest closed bar of longer timeframes beside the market's own."""
    longer = [resample(market.bars, timeframe) for timeframe in LONGER[market.bars.timeframe]]
    return np.hstack(
        [
            market.features,
            *(at_close(market.bars, bars, market.spec.feature_set) for bars in longer),
        ]
    )


def at_close(asked: Bars, other: Bars, features: FeatureSet) -> FloatArray:
    """Features of the other bars that had closed last at each close; NaN where missing."""
    positions = newest_closed(other, close_times(asked))
    features = compute_features(other, features)[positions]
    features[positions < 0] = np.nan
    return features


def rolling(values: FloatArray, n_bars: int, reduce: Callable[..., FloatArray]) -> FloatArray:
    views = np.lib.stride_tricks.sliding_window_view(values, n_bars, axis=0)
    return np.vstack([np.full((n_bars - 1, values.shape[1]), np.nan), reduce(views, axis=-1)])


def variants(timeframe: Timeframe, with_boosting: bool) -> Iterator[Variant]:
    settings = typed(compose_config("train", ["symbol=BTCUSDT", f"tf={timeframe}"]), TrainConfig)
    fixed = FixedHorizon(3, settings.tf.threshold)
    scaled = VolatilityScaled(3, 0.4, 50)
    raw = FeatureSet(FeatureDefinition.RAW)
    yield Variant("fixed, 3 bars; last row", fixed, last_row)
    yield Variant("the same; raw features", fixed, last_row, raw)
    yield Variant("the same; last row and summaries", fixed, summary)
    for n_bars in (3, 12, 24, 48):
        rule = VolatilityScaled(n_bars, 0.4, 50)
        yield Variant(f"scaled, {n_bars} bars; last row", rule, last_row)
    yield Variant("scaled, 3 bars; raw features", scaled, last_row, raw)
    yield Variant("scaled, 3 bars; last row and summaries", scaled, summary)
    yield Variant("scaled, 3 bars; with BTC and ETH", scaled, with_leaders)
    if timeframe in LONGER:
        yield Variant("scaled, 3 bars; with longer timeframes", scaled, with_longer)
    yield Variant("triple barrier, 12 bars; last row", TripleBarrier(12, 1.0, 50), last_row)
    if with_boosting:
        yield Variant("fixed, 3 bars; boosting", fixed, last_row, is_boosted=True)
        yield Variant("scaled, 3 bars; boosting", scaled, last_row, is_boosted=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tf", type=Timeframe, default=Timeframe.M15)
    parser.add_argument("--days", type=float, default=313)
    parser.add_argument("--markets", type=int, default=32)
    parser.add_argument("--boosting", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("error", ConvergenceWarning)
    bars = load(arguments.folder, arguments.tf, arguments.days, arguments.markets)
    print(
        "| variant | window | markets | validation skill | test skill | activity AUC "
        "| direction AUC | direction skill | tenth: right of moves | secs |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for variant in variants(arguments.tf, arguments.boosting):
        for window, shares in WINDOWS.items():
            began = time.perf_counter()
            judged = [
                each
                for own in bars.values()
                if (each := judge(variant, own, bars, shares, arguments.days)) is not None
            ]
            secs = time.perf_counter() - began
            if judged:
                print(describe(variant, window, judged, arguments.tf, secs), flush=True)


def load(folder: Path, timeframe: Timeframe, days: float, n_markets: int) -> dict[str, Bars]:
    """Markets whose bars fill the days up to the newest bar of all."""
    source, found = FilesSource(folder), {}
    for symbol in (ROOT / "symbols").read_text(encoding="ascii").strip().split(","):
        try:
            found[symbol] = source.load(symbol, timeframe)
        except PercoinError as error:
            print(f"left out: {error}")
    newest = max(int(bars.open_time[-1]) for bars in found.values())
    first = newest - days * DAY_MILLISECONDS
    whole = {
        symbol: bars
        for symbol, bars in found.items()
        if bars.open_time[0] <= first + 7 * DAY_MILLISECONDS and bars.open_time[-1] == newest
    }
    for symbol in sorted(found.keys() - whole.keys()):
        print(f"left out: {symbol} {timeframe} has no bars of all the {days:g} days")
    return dict(list(whole.items())[:n_markets])


def judge(
    variant: Variant, own: Bars, bars: dict[str, Bars], shares: tuple[float, ...], days: float
) -> Judged | None:
    """Fit on train rows; None without all classes among them."""
    reach = variant.rule.horizon
    spec = SplitSpec(purge_bars=reach, embargo_bars=reach)
    market = PreparedMarket.prepare(
        own, DatasetSpec(variant.rule, variant.features, LOOKBACK, spec, days)
    )
    inputs = variant.inputs(market, bars)
    end = int(own.open_time[-1]) + own.timeframe.milliseconds
    first = int(end - days * DAY_MILLISECONDS)
    moments = [first + round((end - first) * share) for share in shares]
    known = np.isfinite(inputs[market.rows]).all(axis=1)
    rows = market.rows[known & (market.bars.open_time[market.rows] < moments[2])]
    split = CalendarCuts(first, moments[0], moments[1]).split(replace(market, rows=rows))
    rule = variant.rule.fitted(market.bars, split.train)
    label = rule.label(market.bars).label
    if len(np.unique(label[split.train])) < len(Signal):
        return None
    predict = fit(inputs[split.train], label[split.train], variant.is_boosted)
    return Judged(
        skill(predict(inputs[split.validation]), label, split.validation, split.train),
        *judge_test(predict(inputs[split.test]), label, split, market),
    )


def fit(
    inputs: FloatArray, label: IntArray, is_boosted: bool
) -> Callable[[FloatArray], FloatArray]:
    if is_boosted:
        model = make_boosting(seed=0).fit(inputs, label)
        return model.predict_proba
    scaler = StandardScaler().fit(inputs)
    regression = LogisticRegression(C=1.0, solver="newton-cholesky").fit(
        scaler.transform(inputs), label
    )
    return lambda rows: regression.predict_proba(scaler.transform(rows))


def losses(probabilities: FloatArray, label: IntArray) -> FloatArray:
    return -np.log(np.maximum(probabilities[np.arange(len(label)), label], 1e-15))


def skill(probabilities: FloatArray, label: IntArray, rows: IntArray, train: IntArray) -> float:
    prior = np.tile(class_shares(label[train]), (len(rows), 1))
    return float(1 - losses(probabilities, label[rows]).sum() / losses(prior, label[rows]).sum())


def judge_test(
    probabilities: FloatArray, label: IntArray, split: Split, market: PreparedMarket
) -> tuple[tuple[np.ndarray, ...], tuple[float, float], tuple[int, int, int]]:
    asked, prior_shares = label[split.test], class_shares(label[split.train])
    prior = np.tile(prior_shares, (len(asked), 1))
    way, prior_way = direction(probabilities, asked), direction(prior, asked)
    test = (
        market.bars.open_time[split.test],
        losses(probabilities, asked),
        losses(prior, asked),
        way.row_losses(),
        prior_way.row_losses(),
    )
    aucs = (auc(activity(probabilities, asked)), auc(way))
    return test, aucs, tenth_of(probabilities, asked)


def auc(view: BinaryView) -> float:
    value = view.auc()
    return math.nan if value is None else value


def tenth_of(probabilities: FloatArray, label: IntArray) -> tuple[int, int, int]:
    """Of the tenth most sure of its direction: rows, moves among them, right ones."""
    lead = probabilities[:, Signal.LONG] - probabilities[:, Signal.SHORT]
    sure = np.argsort(-np.abs(lead))[: max(1, round(TENTH * len(lead)))]
    moved = label[sure] != Signal.NO_TRADE
    right = np.where(lead[sure] > 0, Signal.LONG, Signal.SHORT) == label[sure]
    return len(sure), int(moved.sum()), int(right.sum())


def describe(
    variant: Variant, window: str, judged: list[Judged], timeframe: Timeframe, secs: float
) -> str:
    bars_per_day = DAY_MILLISECONDS / timeframe.milliseconds
    bootstrap = Bootstrap(horizon=days_of(variant.rule.horizon, bars_per_day))
    whole = joint_skill([daily(each, 1) for each in judged], bootstrap)
    way = joint_skill([daily(each, 3) for each in judged], bootstrap)
    active, long = np.mean([each.auc for each in judged], axis=0)
    _, moved, right = np.sum([each.tenth for each in judged], axis=0)
    validation = np.mean([each.validation_skill for each in judged])
    cells = (
        *(variant.name, window, len(judged), f"{validation:+.4f}", interval(whole)),
        *(f"{active:.3f}", f"{long:.3f}", interval(way)),
        f"{right / moved:.3f} of {moved:,}",
        f"{secs:.0f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def daily(judged: Judged, column: int) -> DailyLosses:
    opened, model, prior = judged.test[0], judged.test[column], judged.test[column + 1]
    return sum_by_day(opened, (model, prior, prior))


def interval(mean: JointMean) -> str:
    if mean.lower is None or mean.upper is None:
        return f"{mean.value:+.4f}"
    return f"{mean.value:+.4f} [{mean.lower:+.4f}, {mean.upper:+.4f}]"


if __name__ == "__main__":
    main()

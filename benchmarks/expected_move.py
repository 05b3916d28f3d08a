"""What a forecast of the expected move is worth, and which one: QLIKE, rivals, coverage.

    python benchmarks/expected_move.py FOLDER [--tf 15m] [--until 2025-07-15] [--horizon 3]
        [--more]

FOLDER holds real bars as ``source=files`` reads them. For every market of the folder the forecast
is fitted on train rows, chosen and calibrated on validation rows, and held on test rows against
the cascade of Corsi (2009), GARCH(1,1) of ``arch`` and the variance of the last 50 returns.
Prints a table of what the inputs are worth, one of the rivals with joint intervals that draw
days, and one of the bands. ``--until`` leaves out the bars from then on, so that the test
window is an earlier one.

``--more`` adds what an average with the trees of ``moves`` is worth, of each market and of all
markets together, which takes minutes; and what percoin does not do: bands by the returns of the
last 500 bars whose horizon is over, in place of the validation rows.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from rivals import THRESHOLDS, load, shown

from percoin.bars.schema import Bars
from percoin.dataset import DatasetSpec, MarketDataset, SplitSpec
from percoin.evaluation.baselines import MOVES, BaselineInputs
from percoin.evaluation.daily import DailyLosses, sum_by_day
from percoin.evaluation.fold_forecasts import baseline_inputs
from percoin.evaluation.joint import days_of, joint_lead
from percoin.evaluation.moves_fitting import RangeBoosting, RangeRows
from percoin.evaluation.uncertainty import Bootstrap
from percoin.expected_move.fitting import (
    CANDIDATES,
    TREES_WEIGHT,
    MoveRows,
    average_with_trees,
    choose_move,
)
from percoin.expected_move.judging import MoveLosses, move_losses
from percoin.expected_move.model import LEVELS, MoveModel, MoveRegression, RangeForecast
from percoin.expected_move.scores import qlike
from percoin.features.feature_set import FeatureSet
from percoin.labels import FixedHorizon
from percoin.training.recipes.pool import build_pool
from percoin.types import FloatArray, Timeframe

N_RECENT = 500
BAND_TITLE = (
    "| band | mean | lowest | highest | markets within 2 points |",
    "|---|---:|---:|---:|---:|",
)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tf", default="15m", choices=THRESHOLDS)
    parser.add_argument("--days", type=float, default=365, help="of history")
    parser.add_argument("--horizon", type=int, default=3, help="in bars")
    parser.add_argument("--until", type=lambda text: pd.Timestamp(text, tz="UTC"))
    parser.add_argument("--more", action="store_true", help="trees, and other bands")
    options = parser.parse_args()
    markets = datasets(load(options.folder, Timeframe(options.tf), options.until), options)
    started = time.monotonic()
    fitted = [(dataset, rows_of(dataset), fit(dataset)) for dataset in markets]
    secs = (time.monotonic() - started) / len(markets)
    known = [(dataset, rows, model) for dataset, rows, model in fitted if model is not None]
    first, last = known[0][0].dates("test")
    print(
        f"\n{len(known)} markets of {options.tf}, {options.horizon} bars ahead, test "
        f"{first:%Y-%m-%d} to {last:%Y-%m-%d}; {secs:.2f} s a market\n"
    )
    bootstrap = Bootstrap(days_of(options.horizon, Timeframe(options.tf).bars_per_day))
    judged = [(d, rows, move_losses(model, rows, d.rows("test"))) for d, rows, model in known]
    print(of_inputs(known, bootstrap), of_rivals(judged, bootstrap), of_bands(judged), sep="\n\n")
    if options.more:
        print("", of_recent_bands(known), "", of_trees(known, bootstrap), sep="\n")


def datasets(markets: list[Bars], options: argparse.Namespace) -> list[MarketDataset]:
    """Cut at the same times, as a pool is."""
    rule = FixedHorizon(options.horizon, THRESHOLDS[options.tf])
    split = SplitSpec(purge_bars=options.horizon, embargo_bars=options.horizon)
    spec = DatasetSpec(rule, FeatureSet(), 60, split, options.days)
    return list(build_pool(markets, [], spec).seen)


def rows_of(dataset: MarketDataset) -> MoveRows:
    train, validation = dataset.rows("train"), dataset.rows("validation")
    return MoveRows.of(dataset.bars, dataset.label_rule.horizon, train, validation)


def fit(dataset: MarketDataset, candidates: tuple = CANDIDATES) -> MoveModel | None:
    return choose_move(rows_of(dataset), candidates)


def of_inputs(known: list[tuple[MarketDataset, MoveRows, MoveModel]], bootstrap: Bootstrap) -> str:
    """What each candidate gains on the cascade alone, on validation and on test rows."""
    chosen = Counter(MoveRegression(model.inputs, model.shape) for _, _, model in known)
    fitted = {c: [(d, rows, fit(d, (c,))) for d, rows, _ in known] for c in CANDIDATES}
    lines = [
        "| inputs | gain on validation rows | on test rows | on squared returns of test rows "
        "| chosen |",
        "|---|---:|---:|---:|---:|",
    ]
    for candidate, own in fitted.items():
        cells = [
            gain(own, fitted[CANDIDATES[0]], part, is_squared, bootstrap)
            for part, is_squared in (("validation", False), ("test", False), ("test", True))
        ]
        named = f"{', '.join(candidate.inputs)} ({candidate.form})"
        lines.append(f"| {named} | {' | '.join(cells)} | {chosen[candidate] or ''} |")
    return "\n".join(lines)


def gain(own: list, alone: list, part: str, is_squared: bool, bootstrap: Bootstrap) -> str:
    """Mean QLIKE of the others less the own, and on how many markets it is above 0."""
    daily = []
    for (dataset, rows, model), (_, _, other) in zip(own, alone, strict=True):
        at = dataset.rows(part)
        realized = rows.targets.log_return**2 if is_squared else rows.realized
        at = at[np.isfinite(realized[at]) & (rows.realized[at] > 0)]
        losses = [loss(realized[at], each, dataset, at) for each in (model, other)]
        daily.append(by_day(dataset, at, *losses))
    return lead_text(daily, bootstrap)


def loss(realized: FloatArray, model: MoveModel, dataset: MarketDataset, at: np.ndarray):
    """Up to a number that is the same for every forecast: a squared return may be 0."""
    variance = model.deviations(dataset.bars)[at] ** 2
    return realized / variance + np.log(variance)


def by_day(dataset: MarketDataset, at: np.ndarray, own: FloatArray, rival: FloatArray):
    """The judge's sums by day, of QLIKE in place of log-loss."""
    ones = np.ones(len(at))
    return sum_by_day(dataset.bars.open_time[at], [own, ones, rival, ones, rival])


def lead_text(daily: list[DailyLosses], bootstrap: Bootstrap) -> str:
    ahead = sum(sum(each.rival or ()) > sum(each.model) for each in daily)
    return f"{shown(joint_lead(daily, bootstrap))}, {ahead} of {len(daily)}"


def of_rivals(
    judged: list[tuple[MarketDataset, MoveRows, MoveLosses]], bootstrap: Bootstrap
) -> str:
    """Mean QLIKE of each rival, and the forecast's lead."""
    lines = ["| rival | QLIKE | lead of the forecast |", "|---|---:|---:|"]
    own = np.mean([losses.model.mean() for *_, losses in judged])
    lines.append(f"| the forecast | {own:.4f} | |")
    for name in judged[0][2].rivals:
        daily = [by_day(d, each.rows, each.model, each.rivals[name]) for d, _, each in judged]
        mean = np.mean([each.rivals[name].mean() for *_, each in judged])
        lines.append(f"| {name} | {mean:.4f} | {lead_text(daily, bootstrap)} |")
    return "\n".join(lines)


def of_recent_bands(known: list[tuple[MarketDataset, MoveRows, MoveModel]]) -> str:
    """``of_bands``, by the last ``N_RECENT`` returns whose horizon was over at each bar.

    The interval score (Gneiting and Raftery, 2007) is that of these bands over that of the bands
    by validation rows, the mean over markets: below 1 where they are better.
    """
    shares: dict[int, list[float]] = {level: [] for level in LEVELS}
    scores: dict[int, list[float]] = {level: [] for level in LEVELS}
    for dataset, rows, model in known:
        deviations, returns = model.deviations(dataset.bars), np.abs(rows.targets.log_return)
        settled = pd.Series(returns / deviations).shift(rows.horizon).rolling(N_RECENT)
        at = dataset.rows("test")
        at = at[np.isfinite(returns[at] / deviations[at]) & (rows.realized[at] > 0)]
        for level in LEVELS:
            usual = model.quantiles[str(level)] * deviations[at]
            recent = settled.quantile(level / 100).to_numpy()[at] * deviations[at]
            recent = np.where(np.isfinite(recent), recent, usual)
            shares[level].append(100 * float((returns[at] <= recent).mean()))
            own, other = (
                (reach + np.maximum(returns[at] - reach, 0) / (1 - level / 100)).mean()
                for reach in (recent, usual)
            )
            scores[level].append(float(own / other))
    title = (f"{BAND_TITLE[0]} interval score |", f"{BAND_TITLE[1]}---:|")
    lines = [f"by the last {N_RECENT} bars:", "", *title]
    lines += [
        f"{band_line(level, np.array(shares[level]))} {np.mean(scores[level]):.4f} |"
        for level in LEVELS
    ]
    return "\n".join(lines)


def of_trees(known: list[tuple[MarketDataset, MoveRows, MoveModel]], bootstrap: Bootstrap) -> str:
    """What an average with trees of ``moves`` is worth, of each market's own and of all markets'.

    *Chosen* is what percoin does: validation rows say whether the trees take part. Its rivals and
    bands follow.
    """
    inputs = [baseline_inputs(dataset) for dataset, *_ in known]
    of_range = [
        RangeRows.of(dataset, own) for (dataset, *_), own in zip(known, inputs, strict=True)
    ]
    pooled = RangeBoosting.fit(of_range, 0)
    losses: dict[str, list[DailyLosses]] = {}
    judged: dict[str, list[tuple[MarketDataset, MoveRows, MoveLosses]]] = {}
    n_chosen: Counter[str] = Counter()
    for (dataset, rows, alone), own, learnt in zip(known, inputs, of_range, strict=True):
        for trees in (RangeBoosting.fit([learnt], 0, MOVES), pooled):
            name = trees.name
            beside = replace(rows, log_ranges=log_ranges_of(trees, learnt, own, dataset))
            always = average(beside, alone, name) if beside.log_ranges else alone
            chosen = average_with_trees(beside, alone)
            n_chosen[name] += chosen is not alone
            at = dataset.rows("test")
            at = at[rows.realized[at] > 0]
            for kind, model in (("always", always), ("chosen", chosen)):
                both = (beside.deviations(each)[at] ** 2 for each in (model, alone))
                daily = by_day(dataset, at, *(qlike(rows.realized[at], each) for each in both))
                losses.setdefault(f"{name}, {kind}", []).append(daily)
            held = move_losses(chosen, beside, dataset.rows("test"))
            judged.setdefault(name, []).append((dataset, beside, held))
    lines = ["| trees of | lead over the forecast without them |", "|---|---:|"]
    lines += [f"| {name} | {lead_text(daily, bootstrap)} |" for name, daily in losses.items()]
    for name, each in judged.items():
        title = f"trees of {name}, chosen on {n_chosen[name]} of {len(known)} markets:"
        lines += ["", title, "", of_rivals(each, bootstrap), "", of_bands(each)]
    return "\n".join(lines)


def log_ranges_of(
    trees: RangeBoosting, learnt: RangeRows, inputs: BaselineInputs, dataset: MarketDataset
) -> dict[str, FloatArray]:
    """What the trees forecast at each bar; empty, and said so, with too few train rows.

    The regression then stands alone, as in a training.
    """
    try:
        numbers = trees.moves_of(learnt).plain()
    except ValueError as error:
        print(f"{dataset.bars.symbol} goes without trees: {error}", file=sys.stderr)
        return {}
    return {trees.name: numbers.log_range(inputs.columns(numbers.columns))}


def average(rows: MoveRows, alone: MoveModel, part: str) -> MoveModel:
    """With trees, whatever validation rows say."""
    model = replace(alone, range_forecast=RangeForecast(part, TREES_WEIGHT, 0.0))
    return model.scaled(rows.scale(rows.deviations(model) ** 2))


def of_bands(judged: list[tuple[MarketDataset, MoveRows, MoveLosses]]) -> str:
    """How often the price came to lie within each band."""
    lines = list(BAND_TITLE)
    for level in LEVELS:
        shares = 100 * np.array([losses.is_within[str(level)].mean() for *_, losses in judged])
        lines.append(band_line(level, shares))
    return "\n".join(lines)


def band_line(level: int, shares: np.ndarray) -> str:
    near = int((np.abs(shares - level) <= 2).sum())
    return (
        f"| {level} % | {shares.mean():.1f} | {shares.min():.1f} | {shares.max():.1f} "
        f"| {near} of {len(shares)} |"
    )


if __name__ == "__main__":
    main()

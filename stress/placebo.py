"""What intervals and demotions are worth on real rows of forecasts that know nothing.

A placebo is a good forecast moved round by whole days: it keeps its shape, its runs and the time of
day, the labels keep theirs, and what is left of its skill has nothing to do with the bars. Every
shift is one draw. Forecasts are those of the volatility regression, fitted on the first part of
each market's bars, calibrated on the next one; the draws lie in the rest.

Coverage: how often a nominal 95 % interval of a window's skill holds the mean over all draws of
that window. Demotions: how many placebos are demoted within a year, if their live skill is looked
at every day as ``percoin.retrain`` does; over the train prior and over the rolling prior, which
is what it uses.

    python stress/placebo.py FOLDER_OF_15M_AND_1H_BARS [--draws 40] > stress/placebo.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from percoin.bars.sources.files import FilesSource
from percoin.dataset import DatasetSpec, MarketDataset, PreparedMarket, SplitSpec
from percoin.errors import PercoinError
from percoin.evaluation.baselines import (
    ROLLING_PRIOR,
    TRAIN_PRIOR,
    VOLATILITY,
    default_baselines,
)
from percoin.evaluation.calibration import apply_calibration, fit_calibration
from percoin.evaluation.judgement import baseline_inputs
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.uncertainty import Bootstrap, Estimate, skill_rows
from percoin.features.feature_set import FeatureSet
from percoin.labels import FixedHorizon, LabelRule, VolatilityScaled
from percoin.retrain.__main__ import read_task
from percoin.retrain.decisions import LiveSkill, lasting_upper
from percoin.splits import chronological_split
from percoin.types import FloatArray, Timeframe

MARKETS = {
    Timeframe.M15: ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT"),
    Timeframe.H1: ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT"),
}
THRESHOLD = {Timeframe.M15: 0.0025, Timeframe.H1: 0.005}
HORIZON = 3
WINDOW_DAYS = 47
YEAR_DAYS = 365
RULERS = (TRAIN_PRIOR, ROLLING_PRIOR)


@dataclass(frozen=True)
class Rows:
    """Forecast rows of one market: losses of a placebo are taken from these.

    Attributes:
        name: Market and label.
        label: Shape (n,).
        said: The forecast, shape (n, C).
        rulers: Log-loss of each ruler, by name, shape (n,).
        day: Rows in a day.
    """

    name: str
    label: np.ndarray
    said: FloatArray
    rulers: dict[str, FloatArray]
    day: int

    def placebo(self, days: int, rows: slice) -> FloatArray:
        """Log-loss of the forecast moved round within some rows by whole days."""
        return row_log_loss(np.roll(self.said[rows], days * self.day, axis=0), self.label[rows])


def rules(timeframe: Timeframe) -> dict[str, LabelRule]:
    """Both labels."""
    return {
        "fixed": FixedHorizon(HORIZON, THRESHOLD[timeframe]),
        "scaled": VolatilityScaled(HORIZON, 0.4, 50, None),
    }


def markets(folder: Path) -> Iterator[Rows]:
    """The rows of every market and label that the folder holds."""
    source = FilesSource(folder)
    spec = SplitSpec(fractions=(0.35, 0.15, 0.5), purge_bars=HORIZON, embargo_bars=HORIZON)
    for timeframe, symbols in MARKETS.items():
        for symbol in symbols:
            try:
                bars = source.load(symbol, timeframe)
            except PercoinError as error:
                print(error, file=sys.stderr)
                continue
            for name, rule in rules(timeframe).items():
                market = PreparedMarket.prepare(
                    bars, DatasetSpec(rule, FeatureSet(), 60, spec, 10_000)
                )
                dataset = market.dataset(
                    lambda rows: chronological_split(rows, spec.fractions, HORIZON, HORIZON)
                )
                yield forecast(dataset, f"{symbol} {timeframe.value} {name}")


def forecast(dataset: MarketDataset, name: str) -> Rows:
    """The calibrated volatility regression and the rulers on the test rows."""
    train, validation, test = (dataset.rows(p) for p in ("train", "validation", "test"))
    inputs, said = baseline_inputs(dataset), {}
    for baseline in default_baselines():
        if baseline.name in (*RULERS, VOLATILITY):
            baseline.fit(inputs.take(train), dataset.label[train])
            said[baseline.name] = [
                baseline.predict_proba(inputs.take(r)) for r in (validation, test)
            ]
    known, asked = (np.log(p) for p in said[VOLATILITY])
    calibration = fit_calibration(known, dataset.label[validation])
    label = dataset.label[test]
    rulers = {name: row_log_loss(said[name][1], label) for name in RULERS}
    day = round(dataset.bars.timeframe.bars_per_day)
    return Rows(name, label, apply_calibration(asked, calibration), rulers, day)


def coverage(rows: Rows, ruler: str, day: int, draws: int) -> tuple[int, int]:
    """How many intervals hold the mean over all draws of their window, and how many there are."""
    held = total = 0
    length = WINDOW_DAYS * rows.day
    for start in range(0, len(rows.label) - length + 1, length):
        window = slice(start, start + length)
        reference = rows.rulers[ruler][window]
        shifts = range(2, WINDOW_DAYS - 1)
        gains = [skill_rows(rows.placebo(shift, window), reference) for shift in shifts]
        truth = float(np.mean([gain.mean() for gain in gains]))
        chosen = np.random.default_rng(start).permutation(len(gains))[:draws]
        for k in chosen:
            estimate = Bootstrap(HORIZON, int(k), 500, day=day).estimate(gains[k])
            assert estimate.lower is not None
            assert estimate.upper is not None
            held += estimate.lower <= truth <= estimate.upper
            total += 1
    return held, total


def demotions(rows: Rows, ruler: str, n_years: int) -> list[bool]:
    """Whether each placebo is demoted within its year; empty with less than a year of rows.

    What all placebos of the year have in common is taken off, so that their skill is none on
    average over them and the year.
    """
    year = slice(0, YEAR_DAYS * rows.day)
    if len(rows.label) < year.stop:
        return []
    shifts = np.linspace(15, YEAR_DAYS - 15, n_years).round().astype(int).tolist()
    losses, reference = [rows.placebo(shift, year) for shift in shifts], rows.rulers[ruler][year]
    common = float(np.mean([skill_rows(own, reference).mean() for own in losses]))
    return [is_demoted(own, reference, common, rows.day) for own in losses]


def is_demoted(losses: FloatArray, reference: FloatArray, common: float, day: int) -> bool:
    """Whether one record of a year is demoted by daily looks."""
    wanted = read_task([]).rules
    for last in range(8, YEAR_DAYS + 1):
        seen = slice(0, last * day)
        gains = skill_rows(losses[seen], reference[seen]) - common
        n_independent = len(gains) / HORIZON
        # Far above zero nothing is demoted; the interval is drawn where it may decide.
        if n_independent < wanted.min_resolved or gains.mean() > 0:
            continue
        estimate = Bootstrap(HORIZON, 0, 300, day=day).estimate(gains)
        if lasting_upper(live(estimate, n_independent), wanted) < 0:
            return True
    return False


def live(estimate: Estimate, n_independent: float) -> LiveSkill:
    """What the scoreboard would say."""
    assert estimate.lower is not None
    assert estimate.upper is not None
    return LiveSkill(estimate.n_rows, n_independent, estimate.value, estimate.lower, estimate.upper)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=40, help="of each window and market")
    parser.add_argument("--years", type=int, default=20, help="placebo years of each market")
    options = parser.parse_args()
    covered: dict[tuple[str, str, str], list[int]] = {}
    demoted: dict[tuple[str, str, str], list[int]] = {}
    for rows in markets(options.folder):
        print(rows.name, file=sys.stderr, flush=True)
        _, timeframe, label = rows.name.split()
        for ruler in RULERS:
            for blocks, day in (("the label's reach", 1), ("a day", rows.day)):
                key = (timeframe, label, f"{ruler} | {blocks}")
                held, total = coverage(rows, ruler, day, options.draws)
                counts = covered.setdefault(key, [0, 0])
                counts[0] += held
                counts[1] += total
            outcomes = demotions(rows, ruler, options.years)
            counts = demoted.setdefault((timeframe, label, ruler), [0, 0])
            counts[0] += sum(outcomes)
            counts[1] += len(outcomes)
    print("# Placebos on real bars\n")
    print("`python stress/placebo.py FOLDER`\n")
    print(f"Skill of forecasts moved round by whole days, windows of {WINDOW_DAYS} days:\n")
    print("| bars | label | over | blocks of at least | intervals | hold the mean |")
    print("|---|---|---|---|---:|---:|")
    for (timeframe, label, rest), (held, total) in covered.items():
        print(f"| {timeframe} | {label} | {rest} | {total:,} | {held / max(1, total):.1%} |")
    print(
        "\nPlacebo years whose skill is none on average, looked at every day, blocks of at least "
        "a day:\n"
    )
    print("| bars | label | live skill over | years | demoted |")
    print("|---|---|---|---:|---:|")
    for (timeframe, label, ruler), (count, total) in demoted.items():
        if total:
            print(f"| {timeframe} | {label} | {ruler} | {total} | {count / total:.1%} |")


if __name__ == "__main__":
    main()

"""What intervals and demotions are worth on real rows of forecasts that know nothing.

Forecasts are those of the volatility regression, fitted on the first part of each market's bars and
calibrated on the next one; all draws lie in the rest. A placebo is such a forecast moved round by
whole days: it keeps its shape, its runs and the time of day, the labels keep theirs, and what is
left of its skill has nothing to do with the bars. Every shift is one draw.

A draw's true skill: markets have a weekly rhythm, so a shift by whole weeks has another
skill than one by a week and three days, in every window. The true skill of a draw is therefore the
mean over all shifts of its window, plus what shifts of the same weekday differ from the others over
all windows of the market.

Coverage: how often a nominal 95 % interval holds that.

Demotions: how many records of a year are demoted, if ``percoin.retrain`` looks at them every day.
A record is demoted falsely if its true skill over the rolling prior is none (not: if it is below
that of the model's test rows; a model that is behind the rolling prior is demoted rightly). A
placebo as it is loses against the rolling prior, so what it loses in truth is taken off.
The records, all over the rolling prior:

- *moved forecasts*, less their true skill of the year: no skill. A shifted level makes them
  much worse than the rolling prior in one season and better in another.
- *moved departures*: the rolling prior, multiplied by what the moved forecast departs from the
  rolling prior of its own day; less their true skill. No skill, and a level as good as the prior's.
- *the model*, less its own mean of the year: no skill over the year, but real skill comes and goes,
  so that it is truly behind for months. Less .01 and .02 more: harmful. The year begins on any of
  thirteen days and goes round.
- *moved forecasts* and *the model with drifted inputs* (each logarithm of volatility too low by
  .3, too low or too high by .5), as they are.

For the records, losses are summed over four hours, and the interval of a look is Student's over
sixteen groups of neighbouring sums: the bootstrap that the scoreboard draws would take hours.

    python stress/placebo.py FOLDER_OF_BARS > stress/placebo.md
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from percoin.bars.sources.files import FilesSource
from percoin.dataset import DatasetSpec, MarketDataset, PreparedMarket, SplitSpec
from percoin.evaluation.baselines import ROLLING_PRIOR, TRAIN_PRIOR, VOLATILITY, default_baselines
from percoin.evaluation.block_length import MIN_BLOCKS
from percoin.evaluation.calibration import apply_calibration, fit_calibration
from percoin.evaluation.fold_forecasts import baseline_inputs
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.uncertainty import MOST_BLOCKS, Bootstrap, skill_rows
from percoin.features.feature_set import FeatureSet
from percoin.labels import FixedHorizon, LabelRule, VolatilityScaled
from percoin.retrain.__main__ import read_task
from percoin.retrain.decisions import DueRules, LiveSkill, lasting_upper
from percoin.splits import chronological_split
from percoin.types import FloatArray, IntArray, Timeframe

MARKETS = {
    Timeframe.M15: "BTCUSDT ETHUSDT SOLUSDT DOGEUSDT",
    Timeframe.M30: "ADAUSDT AVAXUSDT DOGEUSDT DOTUSDT LINKUSDT LTCUSDT TRXUSDT XLMUSDT XRPUSDT",
    Timeframe.H1: "BTCUSDT ETHUSDT BNBUSDT SOLUSDT",
}
THRESHOLD = {Timeframe.M15: 0.0025, Timeframe.M30: 0.0035, Timeframe.H1: 0.005}
HORIZON = 3
SLOTS = 6  # of four hours, in a day
YEAR = 365
WINDOWS = {49: 2, 91: 2, 154: 2}  # days, and draws of each window
NO_SKILL = ("moved forecasts, no skill", "moved departures, no skill")
DRIFTS = (-0.5, -0.3, 0.5)

# By days, bars and label; by kind and label.
Covered = dict[tuple[int, str, str], list[tuple[list[bool], list[bool]]]]
Demoted = dict[tuple[str, str], list[float]]


@dataclass(frozen=True)
class Rows:
    """Forecasts and outcomes of one market, whole days.

    Attributes:
        timeframe: Bar length.
        rule: Name of the label.
        label: Shape (n,).
        said: Forecasts by name, shape (n, C) each: the model's, the priors', and the model's with
            drifted inputs by the size of the drift.
        day: Rows in a day.
    """

    timeframe: str
    rule: str
    label: IntArray
    said: dict[str | float, FloatArray]
    day: int

    def days(self, start: int, n_days: int) -> Rows:
        """The same of some days."""
        rows = slice(start * self.day, (start + n_days) * self.day)
        said = {name: forecast[rows] for name, forecast in self.said.items()}
        return replace(self, label=self.label[rows], said=said)

    @property
    def n_days(self) -> int:
        """Number of days."""
        return len(self.label) // self.day

    def losses(self, name: str | float) -> FloatArray:
        """Sums of the log-loss over four hours."""
        return self.summed(row_log_loss(self.said[name], self.label))

    def summed(self, losses: FloatArray) -> FloatArray:
        """Sums over four hours."""
        return losses.reshape(-1, self.day // SLOTS).sum(axis=1)

    def moved(self, shifts: IntArray) -> FloatArray:
        """Losses of the model's forecast moved round by whole days, shape (len(shifts), n)."""
        shape = (self.n_days, SLOTS, -1)
        said = -np.log(self.said["model"]).reshape(shape)
        came = np.eye(said.shape[2] * SLOTS // self.day)[self.label].reshape(shape)
        pairs = np.stack([said[:, k] @ came[:, k].T for k in range(SLOTS)], axis=2)
        days = np.arange(self.n_days)
        return pairs[(days - shifts[:, None]) % self.n_days, days].reshape(len(shifts), -1)

    def moved_departures(self, shifts: IntArray) -> FloatArray:
        """Losses of the rolling prior times the model's departures from it, moved round."""
        prior = np.log(self.said[ROLLING_PRIOR])
        departures = np.log(self.said["model"]) - prior
        found = []
        for shift in shifts:
            said = np.exp(prior + np.roll(departures, shift * self.day, axis=0))
            said /= said.sum(axis=1, keepdims=True)
            found.append(self.summed(row_log_loss(said, self.label)))
        return np.array(found)


def rules(timeframe: Timeframe) -> dict[str, LabelRule]:
    """Both labels."""
    return {
        "fixed": FixedHorizon(HORIZON, THRESHOLD[timeframe]),
        "scaled": VolatilityScaled(HORIZON, 0.4, 50, None),
    }


def markets(folder: Path) -> Iterator[Rows]:
    """The rows of every market and label."""
    source = FilesSource(folder)
    spec = SplitSpec(fractions=(0.19, 0.1, 0.71), purge_bars=HORIZON, embargo_bars=HORIZON)
    for timeframe, symbols in MARKETS.items():
        for symbol in symbols.split():
            bars = source.load(symbol, timeframe)
            for name, rule in rules(timeframe).items():
                market = PreparedMarket.prepare(
                    bars, DatasetSpec(rule, FeatureSet(), 60, spec, 10_000)
                )
                dataset = market.dataset(
                    lambda rows: chronological_split(rows, spec.fractions, HORIZON, HORIZON)
                )
                yield forecast(dataset, name)


def forecast(dataset: MarketDataset, rule: str) -> Rows:
    """The calibrated volatility regression and the priors on the test rows."""
    train, validation, test = (dataset.rows(p) for p in ("train", "validation", "test"))
    inputs, label = baseline_inputs(dataset), dataset.label
    found = {b.name: b for b in default_baselines()}
    for name in (VOLATILITY, TRAIN_PRIOR, ROLLING_PRIOR):
        found[name].fit(inputs.take(train), label[train])
    said: dict[str | float, FloatArray] = {
        name: found[name].predict_proba(inputs.take(test)) for name in (TRAIN_PRIOR, ROLLING_PRIOR)
    }
    model = found[VOLATILITY]
    known = np.log(model.predict_proba(inputs.take(validation)))
    calibration = fit_calibration(known, label[validation])
    for name, drift in (("model", 0.0), *((drift, drift) for drift in DRIFTS)):
        asked = inputs.take(test)
        asked = replace(asked, volatility=asked.volatility + drift)
        said[name] = apply_calibration(np.log(model.predict_proba(asked)), calibration)
    day = round(dataset.bars.timeframe.bars_per_day)
    rows = Rows(dataset.bars.timeframe.value, rule, label[test], said, day)
    return rows.days(0, rows.n_days)


def of_the_weekday(skills: FloatArray, shifts: IntArray) -> FloatArray:
    """What shifts of the same weekday differ from the mean of all, shape (len(shifts),)."""
    same = [skills[shifts % 7 == shift % 7].mean() for shift in shifts]
    return np.array(same) - skills.mean()


def coverage(rows: Rows, ruler: str, n_days: int, draws: int) -> tuple[list[bool], list[bool]]:
    """Whether each interval holds the true skill: with blocks of a day, and as they are."""
    shifts = np.arange(2, n_days - 1)
    windows = [rows.days(k, n_days) for k in range(0, rows.n_days - n_days + 1, n_days)]
    skills = np.array([1 - w.moved(shifts).mean(axis=1) / w.losses(ruler).mean() for w in windows])
    weekday = of_the_weekday(skills.mean(axis=0), shifts)
    held: tuple[list[bool], list[bool]] = ([], [])
    # A reach of a day and no day asks for blocks of a day, however many.
    settings = (Bootstrap(rows.day, 0, 300), Bootstrap(HORIZON, 0, 300, day=rows.day))
    for k, window in enumerate(windows):
        ruled = row_log_loss(window.said[ruler], window.label)
        for draw in np.random.default_rng(k).permutation(len(shifts))[:draws]:
            said = np.roll(window.said["model"], shifts[draw] * rows.day, axis=0)
            values = skill_rows(row_log_loss(said, window.label), ruled)
            truth = skills[k].mean() + weekday[draw]
            for found, bootstrap in zip(held, settings, strict=True):
                ends = bootstrap.estimate(values).ends or (-np.inf, np.inf)
                found.append(bool(ends[0] <= truth <= ends[1]))
    return held


@dataclass(frozen=True)
class Records:
    """Records of a year of one kind, over the rolling prior.

    Attributes:
        kind: What they are.
        losses: Summed losses, shape (n, YEAR * SLOTS).
        ruled: Those of the rolling prior, same shape.
        off: What is taken off the skill of each, shape (n,).
    """

    kind: str
    losses: FloatArray
    ruled: FloatArray
    off: FloatArray


def harmless(
    kind: str, losses: FloatArray, ruled: FloatArray, shifts: IntArray, step: int
) -> Records:
    """Some records of moved forecasts, without their true skill."""
    skills = 1 - losses.mean(axis=1) / ruled.mean()
    off = skills.mean() + of_the_weekday(skills, shifts)
    some = losses[::step]
    return Records(kind, some, np.tile(ruled, (len(some), 1)), off[::step])


def records(rows: Rows) -> Iterator[Records]:
    """The kinds of records of a year."""
    ruled = rows.losses(ROLLING_PRIOR)
    shifts = np.arange(15, YEAR - 15, 2)
    moved = rows.moved(shifts)
    yield harmless(NO_SKILL[0], moved, ruled, shifts, 3)
    shifts = np.arange(15, YEAR - 15, 10)
    yield harmless(NO_SKILL[1], rows.moved_departures(shifts), ruled, shifts, 1)

    def turned(losses: FloatArray) -> FloatArray:
        return np.array([np.roll(losses, -turn) for turn in range(0, SLOTS * YEAR, SLOTS * 30)])

    own, prior = turned(rows.losses("model")), turned(ruled)
    skill, nothing = 1 - own.mean() / prior.mean(), np.zeros(len(own))
    for less in (0.0, 0.01, 0.02):
        yield Records(f"the model, skill {0.0 - less:.2f}", own, prior, nothing + skill + less)
    for drift in DRIFTS:
        yield Records(f"the model, inputs {drift:+.1f}", turned(rows.losses(drift)), prior, nothing)
    yield Records("the model as it is", own, prior, nothing)
    some = moved[::6]
    prior = np.tile(ruled, (len(some), 1))
    yield Records("moved forecasts as they are", some, prior, np.zeros(len(some)))


def first_demotions(found: Records, rules: DueRules, day: int) -> FloatArray:
    """The day on which each record is demoted by daily looks; infinite if it never is.

    The interval of a look is Student's, over sixteen groups of neighbouring rows.
    """
    gains = found.ruled - found.losses - found.off[:, None] * found.ruled
    sums = np.pad(np.cumsum(gains, axis=1), ((0, 0), (1, 0)))
    demoted = np.full(len(gains), np.inf)
    first = max(MIN_BLOCKS, math.ceil(rules.min_resolved * HORIZON / day))
    for last in range(first, YEAR + 1):
        ends = np.linspace(0, last * SLOTS, MOST_BLOCKS + 1).round().astype(int)
        means = np.diff(sums[:, ends], axis=1) / np.diff(ends)
        half = student.ppf(0.975, MOST_BLOCKS - 1) * means.std(axis=1, ddof=1) / MOST_BLOCKS**0.5
        # What the upper end of an interval of half-width 1 becomes.
        one = LiveSkill(0.0, -1.0, 1.0, last * day, last * day / HORIZON, float(last))
        is_gone = means.mean(axis=1) + half * lasting_upper(one, rules) < 0
        demoted[is_gone & np.isinf(demoted)] = last
    return demoted


def print_coverage(
    covered: dict[tuple[int, str, str], list[tuple[list[bool], list[bool]]]],
) -> None:
    """Print the first table; each cell is blocks of a day, and blocks as they are."""
    print("| days | bars | label | intervals | over the train prior | over the rolling prior |")
    print("|---:|---|---|---:|---:|---:|")
    for (n_days, timeframe, rule), both in sorted(covered.items()):
        cells = [
            " / ".join(
                f"{np.mean(found):.1%}" for found in map(np.concatenate, zip(*held, strict=True))
            )
            for held in (both[::2], both[1::2])
        ]
        total = sum(len(held[1]) for held in both)
        print(f"| {n_days} | {timeframe} | {rule} | {total:,} | {' | '.join(cells)} |")


def print_demotions(demoted: Demoted) -> None:
    """Print the second table."""
    print("| record | label | records | in a year | in half a year | median day |")
    print("|---|---|---:|---:|---:|---:|")
    for (kind, rule), outcomes in demoted.items():
        day = np.array(outcomes)
        median = np.median(day)
        print(
            f"| {kind} | {rule} | {len(day):,} | {np.mean(day <= YEAR):.1%} "
            f"| {np.mean(day <= YEAR / 2):.1%} | {f'{median:.0f}' if median <= YEAR else '-'} |"
        )


def measure(folder: Path) -> tuple[Covered, Demoted]:
    """What both tables are made of."""
    wanted = read_task([]).rules
    covered: Covered = {}
    demoted: Demoted = {}
    for rows in markets(folder):
        print(rows.timeframe, rows.rule, rows.n_days, "days", file=sys.stderr, flush=True)
        for n_days, draws in WINDOWS.items():
            for ruler in (TRAIN_PRIOR, ROLLING_PRIOR):
                key = (n_days, rows.timeframe, rows.rule)
                covered.setdefault(key, []).append(coverage(rows, ruler, n_days, draws))
        for start in (0, rows.n_days - YEAR) if rows.n_days >= YEAR else ():
            for found in records(rows.days(start, YEAR)):
                days = first_demotions(found, wanted, rows.day)
                demoted.setdefault((found.kind, rows.rule), []).extend(days.tolist())
    return covered, demoted


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    covered, demoted = measure(options.folder)
    print("# Placebos on real bars\n\n`python stress/placebo.py FOLDER`\n")
    print(__doc__.split("\n\n    python")[0] + "\n")
    print(
        "How often a nominal 95 % interval of a moved forecast's skill holds its true skill; with "
        f"blocks of a day / with at most {MOST_BLOCKS} blocks, as they are:\n"
    )
    print_coverage(covered)
    print("\nRecords of a year that are demoted, if looked at every day:\n")
    print_demotions(demoted)


if __name__ == "__main__":
    main()

"""What the parts of a combination are worth together, without a network: pools of real markets.

    python benchmarks/added_value.py FOLDER ANSWERS [--groups later-scaled ...]

For each of two test windows and two label rules (a *group*) all markets of FOLDER are cut at the
same times, and the parts are fitted on train rows:

- ``volatility`` and ``volatility_clock``: regressions of each market, as the judge fits them.
- ``boosting_vc``, ``boosting_vcm``: boosting pooled over the markets on volatility and clock; the
  second with the state of all markets too.
- ``moves``, ``moves_m``: fitted in two stages. Boosting pooled over the markets, and a ridge
  regression of each, forecast the log of the range of the horizon's bars by squared error, a
  richer teacher than three classes. Then a logit of each market learns the classes from its
  volatility and these forecasts, which for train rows come from fits on other days (five blocks of
  time, a day apart). ``moves`` has volatility, clock and the 15 features of its own market;
  ``moves_m`` the state of all markets too.

What was fitted is kept in ANSWERS and not fitted again. The table has each part's skill over the
train prior on test rows, and for combinations the lead in nats a row over the part that each
market's validation rows prefer and, with ``moves``, over the same combination without. Weights of
a combination are convex, one vector for all markets, solved on their validation rows; every part
is calibrated on them. Intervals draw days, the same for all markets.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rivals import HORIZON, THRESHOLDS, load, rule_of

from percoin.bars.schema import COLUMNS, Bars
from percoin.dataset import DatasetSpec, SplitSpec
from percoin.evaluation.baselines import BaselineInputs, class_shares, make_boosting
from percoin.evaluation.calibration import apply_calibration, fit_calibration
from percoin.evaluation.daily import DailyLosses, sum_by_day
from percoin.evaluation.fold_forecasts import baseline_inputs
from percoin.evaluation.joint import JointMean, joint_lead, joint_skill
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.uncertainty import Bootstrap
from percoin.features.feature_set import FeatureSet
from percoin.training.recipes.pool import Pool, build_pool
from percoin.types import Timeframe

log = logging.getLogger("added_value")

# Where bars end, by window and bar length. With 365 days of 15m the last 8 days of the earlier
# test rows are the first ones of the later test rows; 1d has a few such days, 1h and 4h none.
UNTIL: dict[str, dict[str, str]] = {
    "later": {},
    "earlier": {"15m": "2025-07-16", "1h": "2025-03-20", "4h": "2025-06-10", "1d": "2024-08-01"},
}
LABELS = ("scaled", "fixed")
GROUPS = tuple(f"{window}-{label}" for label in LABELS for window in UNTIL)
LOOKBACK = 60
N_BLOCKS = 5
DAY_MILLISECONDS = 86_400_000

# By name: the inputs (volatility, clock, state of all markets, the 15 features).
REGRESSIONS = {"volatility": "v", "volatility_clock": "vc"}
BOOSTINGS = {"boosting_vc": "vc", "boosting_vcm": "vcm"}
RIDGES = {"ridge vc": "vc", "ridge vcm": "vcm"}
RANGE_BOOSTINGS = {
    "range vc": "vc",
    "range vcf": "vcf",
    "range vcm": "vcm",
    "range vcmf": "vcmf",
}
MOVES = {
    "moves": ("range vc", "range vcf", "ridge vc"),
    "moves_m": ("range vc", "range vcm", "range vcmf", "ridge vc", "ridge vcm"),
}
PARTS = (*REGRESSIONS, "boosting_vc")
COMBINATIONS = {
    "without moves": PARTS,
    "with moves": (*PARTS, "moves"),
    "with the state of all markets, without moves": (*PARTS, "boosting_vcm"),
    "with the state of all markets, with moves": (*PARTS, "boosting_vcm", "moves_m"),
}
BESIDE = {
    "with moves": "without moves",
    "with the state of all markets, with moves": "with the state of all markets, without moves",
}


@dataclass(eq=False)
class Group:
    """Everything of one window and label rule, rows of all markets stacked.

    Attributes:
        pool: The markets.
        columns: By kind of input (``v``, ``c``, ``m``, ``f``), shape (n_bars of all, n).
        label: Shape (n_bars of all,).
        log_range: Log of the range of the horizon's bars, shape (n_bars of all,).
        market: Which market each bar is of, shape (n_bars of all,).
        rows: Positions of the rows by part, in order of the markets.
        counts: Rows of each market by part.
    """

    pool: Pool
    columns: dict[str, np.ndarray]
    label: np.ndarray
    log_range: np.ndarray
    market: np.ndarray
    rows: dict[str, np.ndarray]
    counts: dict[str, list[int]]

    @property
    def opened(self) -> np.ndarray:
        """Open time of each bar in milliseconds."""
        return np.concatenate([dataset.bars.open_time for dataset in self.pool.seen])

    @property
    def later(self) -> np.ndarray:
        """Positions of the validation and the test rows."""
        return np.concatenate([self.rows["validation"], self.rows["test"]])

    def inputs(self, kinds: str) -> np.ndarray:
        """The columns of some kinds side by side."""
        return np.hstack([self.columns[kind] for kind in kinds])


def market_state(markets: list[Bars], volatility: list[np.ndarray]) -> list[np.ndarray]:
    """State of all markets at each bar's close, by market, shape (n_bars, 12).

    Mean over markets of the log volatility of 4, 16 and 96 bars; mean and spread over markets of
    the log returns over 1, 4 and 16 bars, each return divided by its market's volatility of 96
    bars and the root of its bars; and the market's own such returns less the mean.
    """
    times = np.unique(np.concatenate([bars.open_time for bars in markets]))
    known, returns = [], []
    for bars, spans in zip(markets, volatility, strict=True):
        at = np.searchsorted(times, bars.open_time)
        close = np.full(len(times), np.nan)
        close[at] = np.log(bars.values[:, COLUMNS.index("close")])
        own = np.full((len(times), 3), np.nan)
        own[at] = spans[:, 1:4]
        moved = [np.full(len(times), np.nan) for _ in range(3)]
        for column, n_bars in zip(moved, (1, 4, 16), strict=True):
            column[n_bars:] = (close[n_bars:] - close[:-n_bars]) / math.sqrt(n_bars)
        known.append(own)
        returns.append(np.clip(np.stack(moved, axis=1) / np.exp(own[:, 2:3]), -10, 10))
    with warnings.catch_warnings():
        # Bars before any market has 96 of them: mean of nothing.
        warnings.simplefilter("ignore", RuntimeWarning)
        mean_volatility = np.nanmean(known, axis=0)
        mean, spread = np.nanmean(returns, axis=0), np.nanstd(returns, axis=0)
    found = []
    for bars, own in zip(markets, returns, strict=True):
        at = np.searchsorted(times, bars.open_time)
        found.append(np.hstack([mean_volatility, mean, spread, own - mean])[at])
    return found


def future_log_range(bars: Bars) -> np.ndarray:
    """Log of the range of the next ``HORIZON`` bars, shape (n_bars,); NaN at the end."""
    high, low = (bars.values[:, COLUMNS.index(name)] for name in ("high", "low"))
    found = np.full(len(high), np.nan)
    windows = np.lib.stride_tricks.sliding_window_view
    highest = windows(high[1:], HORIZON).max(axis=1)
    lowest = windows(low[1:], HORIZON).min(axis=1)
    found[: len(highest)] = np.log(np.maximum(np.log(highest / lowest), 1e-5))
    return found


def make_group(folder: Path, name: str, timeframe: Timeframe, days: float) -> Group:
    """Build the markets of a group."""
    window, label = name.split("-")
    until = UNTIL[window].get(timeframe.value)
    markets = load(folder, timeframe, until and pd.Timestamp(until, tz="UTC"))
    rule = rule_of(label, timeframe)
    spec = SplitSpec(purge_bars=HORIZON, embargo_bars=HORIZON)
    pool = build_pool(markets, [], DatasetSpec(rule, FeatureSet(), LOOKBACK, spec, days))
    inputs = [baseline_inputs(dataset) for dataset in pool.seen]
    state = market_state([dataset.bars for dataset in pool.seen], [i.volatility for i in inputs])
    starts = np.cumsum([0, *(len(dataset.features) for dataset in pool.seen)])
    rows, counts = {}, {}
    for part in ("train", "validation", "test"):
        own = [
            dataset.rows(part) + first for dataset, first in zip(pool.seen, starts, strict=False)
        ]
        rows[part], counts[part] = np.concatenate(own), [len(each) for each in own]
    everything = BaselineInputs.joined(inputs)
    return Group(
        pool,
        {
            "v": everything.volatility,
            "c": everything.clock,
            "m": np.concatenate(state),
            "f": pool.features,
        },
        np.concatenate([dataset.label for dataset in pool.seen]),
        np.concatenate([future_log_range(dataset.bars) for dataset in pool.seen]),
        np.repeat(np.arange(len(pool.seen)), np.diff(starts)),
        rows,
        counts,
    )


def regression() -> Any:
    """The logistic regression of the judge's volatility baselines."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000))


def ridge() -> Any:
    """A linear regression with a small penalty."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), Ridge(10.0))


def range_boosting() -> Any:
    """Boosting for the log range, of the size of the judge's boosting."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        learning_rate=0.05,
        max_iter=150,
        max_leaf_nodes=8,
        min_samples_leaf=50,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,
    )


def splits(group: Group) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to fit on and rows to ask: all train rows for what comes later, and five blocks."""
    train, opened = group.rows["train"], group.opened[group.rows["train"]]
    edges = np.quantile(opened, np.linspace(0, 1, N_BLOCKS + 1))
    found = [(train, group.later)]
    for first, last in itertools.pairwise(edges):
        is_asked = (opened >= first) & (opened <= last)
        is_near = (opened >= first - DAY_MILLISECONDS) & (opened <= last + DAY_MILLISECONDS)
        found.append((train[~is_near], train[is_asked]))
    return found


def answers_of(
    group: Group,
    inputs: np.ndarray,
    make: Callable[[], Any],
    parts: list[tuple[np.ndarray, np.ndarray]],
    is_pooled: bool,
    of_range: bool = False,
) -> np.ndarray:
    """What an estimator says of rows it was not fitted on.

    Args:
        group: The markets.
        inputs: Shape (n_bars of all, n).
        make: Makes an estimator.
        parts: Rows to fit on and rows to ask.
        is_pooled: One estimator for all markets instead of one for each.
        of_range: Whether it forecasts the log range instead of the classes.

    Returns:
        Probabilities, shape (n_bars of all, C), or log ranges, shape (n_bars of all,); NaN where
        nothing is said.
    """
    came = group.log_range if of_range else group.label
    said = np.full(len(came) if of_range else (len(came), 3), np.nan)
    complete = np.isfinite(inputs).all(axis=1)
    known = complete & np.isfinite(came)
    for fitted, asked in parts:
        for one in (None,) if is_pooled else range(len(group.pool.seen)):
            mine = fitted[known[fitted] & (is_pooled | (group.market[fitted] == one))]
            hers = asked[is_pooled | (group.market[asked] == one)]
            if not of_range:
                said[hers] = class_shares(group.label[mine])
            hers = hers[complete[hers]]
            if len(mine) and len(hers):
                estimator = make().fit(inputs[mine], came[mine])
                ask = estimator.predict if of_range else estimator.predict_proba
                said[hers] = ask(inputs[hers])
    return said


def fit_ranges(group: Group) -> dict[str, np.ndarray]:
    """Forecasts of the log range by name, of rows that they were not fitted on."""
    parts, found = splits(group), {}
    for name, kinds in (RANGE_BOOSTINGS | RIDGES).items():
        began = time.monotonic()
        is_pooled = name in RANGE_BOOSTINGS
        make = range_boosting if is_pooled else ridge
        found[name] = answers_of(group, group.inputs(kinds), make, parts, is_pooled, True)
        log.info("%s: %.0f s", name, time.monotonic() - began)
    return found


def fit_parts(group: Group, ranges: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Probabilities of each part on validation and test rows."""
    whole = [(group.rows["train"], group.later)]
    found = {
        name: answers_of(group, group.inputs(kinds), regression, whole, is_pooled=False)
        for name, kinds in REGRESSIONS.items()
    }
    for name, kinds in BOOSTINGS.items():
        found[name] = answers_of(
            group, group.inputs(kinds), lambda: make_boosting(0), whole, is_pooled=True
        )
    for name, forecasts in MOVES.items():
        inputs = np.column_stack([group.inputs("v"), *(ranges[each] for each in forecasts)])
        found[name] = answers_of(group, inputs, regression, whole, is_pooled=False)
    return found


def convex_weights(parts: list[np.ndarray]) -> np.ndarray:
    """Weights of a mixture with the highest likelihood; ``parts`` are its factors at each row.

    Expectation maximization (Dempster et al., 1977): the likelihood is concave in the weights.
    """
    said = np.stack(parts, axis=1)
    weights = np.full(said.shape[1], 1 / said.shape[1])
    for _ in range(500):
        shares = said * weights
        new = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(new - weights).max() < 1e-6:
            break
        weights = new
    return weights


def by_market(values: np.ndarray, counts: list[int]) -> list[np.ndarray]:
    """The stacked rows of all markets, one array a market."""
    return np.split(values, np.cumsum(counts)[:-1])


def calibrated(group: Group, validation: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Each market's probabilities, calibrated on its validation rows, stacked again."""
    said: dict[str, list[np.ndarray]] = {"validation": [], "test": []}
    label = by_market(group.label[group.rows["validation"]], group.counts["validation"])
    for known, asked, came in zip(
        by_market(validation, group.counts["validation"]),
        by_market(test, group.counts["test"]),
        label,
        strict=True,
    ):
        calibration = fit_calibration(known.astype(np.float64), came)
        said["validation"].append(apply_calibration(known.astype(np.float64), calibration))
        said["test"].append(apply_calibration(asked.astype(np.float64), calibration))
    return {part: np.concatenate(all_of) for part, all_of in said.items()}


def losses_by_day(group: Group, model: np.ndarray, rival: np.ndarray) -> list[DailyLosses]:
    """Of each market, on test rows: of a model and of what it is compared with."""
    counts = group.counts["test"]
    opened = np.concatenate([d.bars.open_time[d.rows("test")] for d in group.pool.seen])
    label = group.label[group.rows["test"]]
    prior = np.concatenate(
        [
            np.tile(class_shares(d.label[d.rows("train")]), (len(d.rows("test")), 1))
            for d in group.pool.seen
        ]
    )
    losses = [row_log_loss(said, label) for said in (model, prior, rival)]
    split = [by_market(column, counts) for column in (opened, *losses)]
    return [sum_by_day(times, own) for times, *own in zip(*split, strict=True)]


def show(group: Group, name: str, parts: dict[str, np.ndarray]) -> None:
    """Print the table of a group."""
    bootstrap, rows = Bootstrap(1), group.rows
    label = group.label[rows["validation"]]
    said = {
        part: calibrated(group, np.log(given[rows["validation"]]), np.log(given[rows["test"]]))
        for part, given in parts.items()
    }

    def combined(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        came = [said[part]["validation"][np.arange(len(label)), label] for part in names]
        weights = convex_weights(came)
        mixed = sum(w * said[p]["test"] for w, p in zip(weights, names, strict=True))
        return weights, np.asarray(mixed)

    print(f"\n### {name}: {len(group.pool.seen)} markets\n")
    print(
        "| forecast | skill over the train prior | lead over it without moves | ahead "
        "| lead over the strongest of the first three | ahead | weights |"
    )
    print("|---|---:|---:|---:|---:|---:|---|")
    for part, probabilities in said.items():
        daily = losses_by_day(group, probabilities["test"], probabilities["test"])
        print(f"| {part} | {shown(joint_skill(daily, bootstrap))} | | | | | |")
    strongest = strongest_part(group, said)
    mixed = {title: combined(names) for title, names in COMBINATIONS.items()}
    for title, (weights, probabilities) in mixed.items():
        other = mixed[BESIDE.get(title, title)][1]
        daily = losses_by_day(group, probabilities, other)
        cells = [f"combination {title}", shown(joint_skill(daily, bootstrap))]
        cells += lead_cells(daily, bootstrap) if title in BESIDE else ["", ""]
        cells += lead_cells(losses_by_day(group, probabilities, strongest), bootstrap)
        cells.append(" ".join(f"{weight:.2f}" for weight in weights))
        print(f"| {' | '.join(cells)} |", flush=True)


def strongest_part(group: Group, said: dict[str, dict[str, np.ndarray]]) -> np.ndarray:
    """Test forecasts of the part that each market's validation rows prefer, of ``PARTS``."""
    label = by_market(group.label[group.rows["validation"]], group.counts["validation"])
    of_part = {
        part: [by_market(said[part][rows], group.counts[rows]) for rows in ("validation", "test")]
        for part in PARTS
    }
    found = []
    for market, came in enumerate(label):
        losses = {part: row_log_loss(of_part[part][0][market], came).mean() for part in PARTS}
        found.append(of_part[min(losses, key=losses.__getitem__)][1][market])
    return np.concatenate(found)


def lead_cells(daily: list[DailyLosses], bootstrap: Bootstrap) -> list[str]:
    """The mean lead with its interval, and on how many markets it is above zero."""
    leads = [sum(day.best_baseline) - sum(day.model) for day in daily]
    return [
        shown(joint_lead(daily, bootstrap)),
        f"{sum(lead > 0 for lead in leads)} of {len(leads)}",
    ]


def shown(mean: JointMean) -> str:
    """With its interval."""
    return f"{mean.value:+.4f} [{mean.lower:+.4f}, {mean.upper:+.4f}]"


def kept(path: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What was computed before, or now; a file is whole or not there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".part.npz")
        np.savez(aside, **make())  # type: ignore[arg-type]
        aside.replace(path)
    return dict(np.load(path))


def main() -> None:
    """Fit what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--tf", default="15m", choices=THRESHOLDS)
    parser.add_argument("--days", type=float, default=365, help="of history")
    parser.add_argument("--groups", nargs="+", default=GROUPS, choices=GROUPS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in options.groups:
        group = make_group(options.folder, name, Timeframe(options.tf), options.days)
        folder = options.answers / options.tf
        ranges = kept(folder / f"{name}-ranges.npz", lambda group=group: fit_ranges(group))
        parts = kept(
            folder / f"{name}-parts.npz",
            lambda group=group, ranges=ranges: fit_parts(group, ranges),
        )
        show(group, f"{options.tf} {name}", parts)


if __name__ == "__main__":
    main()

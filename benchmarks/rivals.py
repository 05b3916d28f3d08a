"""What the judge's rivals are worth on many markets: every baseline, alone and pooled.

    python benchmarks/rivals.py FOLDER [--tf 15m] [--until 2025-07-15]

For each label rule a Markdown table: mean log-loss skill over the train prior and over the rolling
prior with joint intervals that draw days, and on how many markets validation rows choose it as
the rival. ``--until`` leaves out the bars from then on, so that the test window is an earlier one.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from percoin.bars.schema import Bars
from percoin.bars.sources.files import FilesSource
from percoin.dataset import DatasetSpec, MarketDataset, SplitSpec
from percoin.errors import PercoinError
from percoin.evaluation.baselines import MAJORITY, ROLLING_PRIOR, TRAIN_PRIOR
from percoin.evaluation.daily import DailyLosses, sum_by_day
from percoin.evaluation.fold_forecasts import fit_pooled_baselines, forecast_baselines
from percoin.evaluation.joint import JointMean, joint_recent_skill, joint_skill
from percoin.evaluation.metrics import row_log_loss
from percoin.evaluation.uncertainty import Bootstrap
from percoin.features.feature_set import FeatureSet
from percoin.labels import FixedHorizon, LabelRule, Relative, VolatilityScaled
from percoin.training.recipes.pool import build_pool
from percoin.types import Timeframe

RIVAL = "the rival of each market"
HORIZON = 3
THRESHOLDS = {"15m": 0.0025, "1h": 0.005, "4h": 0.01, "1d": 0.025}
# By name, made with the threshold of the bars.
RULES: dict[str, Callable[[float], LabelRule]] = {
    "fixed": lambda threshold: FixedHorizon(HORIZON, threshold),
    "scaled": lambda _: VolatilityScaled(HORIZON, 0.4, 50, None),
    "relative": lambda _: Relative(HORIZON, 0.4, 50),
}


def rule_of(name: str, timeframe: Timeframe) -> LabelRule:
    """A label rule of the studies by its name."""
    return RULES[name](THRESHOLDS[timeframe.value])


def main() -> None:
    """Print a table for each label rule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tf", default="15m", choices=THRESHOLDS)
    parser.add_argument("--days", type=float, default=365, help="of history")
    parser.add_argument("--until", type=lambda text: pd.Timestamp(text, tz="UTC"))
    options = parser.parse_args()
    timeframe = Timeframe(options.tf)
    markets = load(options.folder, timeframe, options.until)
    spec = SplitSpec(purge_bars=HORIZON, embargo_bars=HORIZON)
    for name in ("fixed", "scaled"):
        rule = rule_of(name, timeframe)
        pool = build_pool(markets, [], DatasetSpec(rule, FeatureSet(), 60, spec, options.days))
        started = time.monotonic()
        pooled = fit_pooled_baselines(pool.seen)
        fitted = time.monotonic() - started
        judged = [judge(dataset, pooled) for dataset in pool.seen]
        days = pool.seen[0].dates("test")
        print(
            f"\n{name} label, {len(judged)} markets of {options.tf}, test {days[0]:%Y-%m-%d} to "
            f"{days[1]:%Y-%m-%d}; pooled ones fitted in {fitted:.0f} s\n"
        )
        print(table(judged), flush=True)


def load(folder: Path, timeframe: Timeframe, until: pd.Timestamp | None) -> list[Bars]:
    """Every market of the folder that has bars of the test window."""
    source, found = FilesSource(folder), []
    for symbol in sorted(path.name for path in folder.iterdir()):
        try:
            bars = source.load(symbol, timeframe)
        except PercoinError:
            continue
        if until is not None:
            bars = bars.slice(0, int((bars.frame.index < until).sum()))
        if len(bars):
            found.append(bars)
    newest = max(int(bars.open_time[-1]) for bars in found)
    return [bars for bars in found if bars.open_time[-1] == newest]


def judge(dataset: MarketDataset, pooled: list) -> tuple[str, dict[str, DailyLosses]]:
    """The rival's name, and the losses by day of every baseline."""
    asked = forecast_baselines(dataset, pooled=pooled)
    label, rows = dataset.label[dataset.rows("test")], dataset.rows("test")
    losses = {f.name: row_log_loss(f.probabilities, label) for f in asked.forecasts}
    rival = min(asked.validation_losses, key=asked.validation_losses.__getitem__)
    prior, recent = losses[TRAIN_PRIOR], losses[ROLLING_PRIOR]
    opened = dataset.bars.open_time[rows]
    named = {RIVAL: losses[rival], **losses}
    return rival, {
        name: sum_by_day(opened, [own, prior, prior, recent]) for name, own in named.items()
    }


def table(judged: list[tuple[str, dict[str, DailyLosses]]]) -> str:
    """Markdown."""
    bootstrap, chosen = Bootstrap(1), Counter(rival for rival, _ in judged)
    lines = [
        "| baseline | skill over the train prior | over the rolling prior | chosen |",
        "|---|---:|---:|---:|",
    ]
    for name in judged[0][1]:
        if name == MAJORITY:
            continue
        daily = [own[name] for _, own in judged]
        recent = joint_recent_skill(daily, bootstrap)
        assert recent is not None
        lines.append(
            f"| {name} | {shown(joint_skill(daily, bootstrap))} | {shown(recent)} | "
            f"{chosen[name] or ''} |"
        )
    return "\n".join(lines)


def shown(mean: JointMean) -> str:
    """With its interval."""
    if mean.lower is None or mean.upper is None or np.isclose(mean.lower, mean.upper):
        return f"{mean.value:+.4f}"
    return f"{mean.value:+.4f} [{mean.lower:+.4f}, {mean.upper:+.4f}]"


if __name__ == "__main__":
    main()

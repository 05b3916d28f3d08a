"""How often the judge tells by how many bars forecasts are stamped off, and cries wolf.

    python benchmarks/wrong_stamps.py FOLDER [--tf 15m] [--days 365]

Forecasts of the models without a network, on the test rows of every market of the folder, are
stamped right, and a few bars or a time zone off. A line for each model and shift: of how many
markets the judge's look at what forecasts change with names the shift, to the bar; another
number; or nothing.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import pandas as pd
from rivals import HORIZON, THRESHOLDS, load, rule_of

from percoin.dataset import DatasetSpec, MarketDataset, SplitSpec, build_dataset
from percoin.errors import PercoinError
from percoin.evaluation.fold_forecasts import forecast_baselines
from percoin.evaluation.uncertainty import Bootstrap
from percoin.features.feature_set import FeatureSet
from percoin.judge.reaction import Reaction
from percoin.judge.run import most_bars_off
from percoin.types import Timeframe

MODELS = ("logistic", "volatility", "volatility_clock", "boosting")
# Above 0: stamped so many bars too early.
SHIFTS = (0, 1, 2, 3, -1, -3)
HOURS = (4, -2, -9)


def main() -> None:
    """Print a table for each label rule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tf", default="15m", choices=THRESHOLDS)
    parser.add_argument("--days", type=float, default=365, help="of history")
    options = parser.parse_args()
    timeframe = Timeframe(options.tf)
    zones = {hours * 3_600_000 / timeframe.milliseconds for hours in HOURS}
    shifts = [*SHIFTS, *sorted(int(zone) for zone in zones if zone == int(zone) and abs(zone) > 3)]
    spec = SplitSpec(purge_bars=HORIZON, embargo_bars=HORIZON)
    for name in ("fixed", "scaled"):
        rule = rule_of(name, timeframe)
        found: dict[tuple[str, int], Counter[str]] = {}
        for bars in load(options.folder, timeframe, None):
            try:
                dataset = build_dataset(
                    bars, DatasetSpec(rule, FeatureSet(), 60, spec, options.days)
                )
            except PercoinError:
                continue
            for key, answer in look(dataset, shifts):
                found.setdefault(key, Counter())[answer] += 1
        print(f"\n{name} label, {options.tf}\n\n{table(found, shifts)}", flush=True)


def look(dataset: MarketDataset, shifts: list[int]) -> list[tuple[tuple[str, int], str]]:
    """What is said of each model and shift."""
    asked = {each.name: each.probabilities for each in forecast_baselines(dataset).forecasts}
    most = most_bars_off(dataset.bars.timeframe)
    day = max(1, round(dataset.bars.timeframe.bars_per_day))
    bootstrap = Bootstrap(HORIZON, repetitions=500, day=day)
    edge = max(abs(shift) for shift in shifts) + 1
    rows = dataset.rows("test")[edge:-edge]
    answers = []
    for name in MODELS:
        said = asked[name][edge:-edge]
        for shift in shifts:
            reaction = Reaction(dataset.bars, rows - shift, said, bootstrap)
            early = reaction.to_range(range(1, most + 1)) or reaction.to_return(range(1, most + 1))
            bars = early or reaction.to_range(range(-most, 0))
            told = 0 if bars is None else bars[0]
            answer = "nothing" if told == 0 else "the shift" if told == shift else "another"
            answers.append(((name, shift), answer))
    return answers


def table(found: dict[tuple[str, int], Counter[str]], shifts: list[int]) -> str:
    """Markdown."""
    rows = [
        [
            name,
            *(
                f"{counts['the shift']}, {counts['another']}, {counts['nothing']}"
                for counts in (found[name, shift] for shift in shifts)
            ),
        ]
        for name in MODELS
    ]
    named = pd.DataFrame(rows, columns=["model", *(f"{shift:+d}" for shift in shifts)])
    lines = named.to_csv(sep="|", index=False).splitlines()
    ruled = [lines[0], "|".join(["---"] + ["---:"] * len(shifts)), *lines[1:]]
    return "\n".join(f"| {line.replace('|', ' | ')} |" for line in ruled)


if __name__ == "__main__":
    main()

"""How often drift is seen in real bars, by the rule of thumb and by the rule that percoin has.

    python stress/chance_drift.py FOLDER --tf 15m 1h

FOLDER holds bars as ``source=files`` reads them. The first 70 % of the newest bars of a market
(30,000 at most) stand for the train rows of a model, the rest for what came afterwards, cut into
stretches of 500. Told are the shares of stretches, of all markets together, in which some
feature has a population stability index above 0.25, and above so many times the furthest of
the stretches among the train rows. The stretches of the train rows themselves are the first
column: that is no drift by any meaning of the word.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from percoin.bars.sources.files import FilesSource
from percoin.features.drift import LEAST_STRETCHES, STRETCH_ROWS, bin_features, measure_shifts
from percoin.features.feature_set import FEATURE_NAMES, FeatureSet, compute_features
from percoin.types import Timeframe

MOST_BARS = 30_000
TRAIN_SHARE = 0.7
RULE_OF_THUMB = 0.25
TIMES = (1.0, 1.5, 2.0, 3.0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tf", nargs="+", type=Timeframe, default=[Timeframe.M15])
    parser.add_argument("--symbols", default="BTCUSDT,ETHUSDT,SOLUSDT,XRPUSDT,DOGEUSDT,LINKUSDT")
    arguments = parser.parse_args()
    heads = [f"> {RULE_OF_THUMB} in train", f"> {RULE_OF_THUMB}", *(f"> {n:g} x" for n in TIMES)]
    print("| tf | stretches |", " | ".join(heads), "|")
    print("|---|---:|" + "---:|" * len(heads))
    for timeframe in arguments.tf:
        found = [look(arguments.folder, s, timeframe) for s in arguments.symbols.split(",")]
        before, psi, ratio = (np.concatenate(each) for each in zip(*found, strict=True))
        shares = [before > RULE_OF_THUMB, psi > RULE_OF_THUMB, *(ratio > n for n in TIMES)]
        cells = [f"{share.mean():.0%}" for share in shares]
        print(f"| {timeframe} | {len(psi)} |", " | ".join(cells), "|")


def look(folder: Path, symbol: str, timeframe: Timeframe) -> tuple[np.ndarray, ...]:
    """Highest index within the train rows, then index and ratio afterwards, of each stretch."""
    bars = FilesSource(folder).load(symbol, timeframe)
    features = compute_features(bars, FeatureSet())
    rows = features[np.isfinite(features).all(axis=1)][-MOST_BARS:].astype(np.float32)
    train, later = np.split(rows, [int(len(rows) * TRAIN_SHARE)])
    if len(train) < LEAST_STRETCHES * STRETCH_ROWS:
        raise SystemExit(f"{symbol} {timeframe}: {len(train)} train rows are too few")
    bins = bin_features(FEATURE_NAMES, train)
    before = [measure_shifts(bins, stretch) for stretch in stretches(train)]
    after = [measure_shifts(bins, stretch) for stretch in stretches(later)]
    return (
        np.array([max(shift.psi for shift in shifts.values()) for shifts in before]),
        np.array([max(shift.psi for shift in shifts.values()) for shifts in after]),
        np.array([max(shift.ratio for shift in shifts.values()) for shifts in after]),
    )


def stretches(rows: np.ndarray) -> list[np.ndarray]:
    """Rows that follow each other, ``STRETCH_ROWS`` at a time; the last ones may be left over."""
    return np.split(rows[: len(rows) // STRETCH_ROWS * STRETCH_ROWS], len(rows) // STRETCH_ROWS)


if __name__ == "__main__":
    main()

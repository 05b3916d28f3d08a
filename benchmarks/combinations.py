"""What combinations of simple forecasters are worth, with weights chosen on validation rows.

    python benchmarks/combinations.py FOLDER [--symbols A,B] [--tf 15m] [--until 2025-07-15]

No network: every part is one of the judge's baselines, fitted on the train rows of a market (or
of all of them, for the pooled ones) and calibrated on its validation rows. For each label rule a
Markdown table: mean log-loss skill over the train prior on test rows, with joint intervals that
draw days, and the lead over the best single part on validation rows in nats a row. ``--until``
leaves out the bars from then on, so that the test window is an earlier one.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rivals import HORIZON, THRESHOLDS, load, shown

from percoin.dataset import DatasetSpec, MarketDataset, SplitSpec
from percoin.evaluation.baselines import LastRowClassifier, class_shares, make_boosting, volatility_and_clock
from percoin.evaluation.blend import blend_probabilities, choose_weights
from percoin.evaluation.daily import DailyLosses, sum_by_day
from percoin.evaluation.joint import joint_lead, joint_skill
from percoin.evaluation import judgement
from percoin.evaluation.judgement import fit_pooled_baselines
from percoin.evaluation.metrics import PROBABILITY_FLOOR, row_log_loss
from percoin.evaluation.uncertainty import Bootstrap
from percoin.features.feature_set import FeatureDefinition
from percoin.labels import FixedHorizon, LabelRule, VolatilityScaled
from percoin.training.recipes.pool import build_pool
from percoin.types import FloatArray, Timeframe

LOGISTIC, BOOSTING, V, VC = "logistic", "boosting", "volatility", "volatility_clock"
VCB = "volatility_clock_boosting"
PL, PB, PVCB = f"pooled_{LOGISTIC}", f"pooled_{BOOSTING}", f"pooled_{VCB}"
COMBINATIONS = (
    (LOGISTIC, BOOSTING),
    (V, VC),
    (V, BOOSTING),
    (LOGISTIC, V),
    (LOGISTIC, V, VC),
    (V, VC, BOOSTING),
    (LOGISTIC, V, VC, BOOSTING),
    (V, VCB),
    (V, VC, VCB),
    (LOGISTIC, V, VC, BOOSTING, VCB),
    (V, PVCB),
    (V, VC, PVCB),
    (LOGISTIC, V, VC, BOOSTING, PL, PB, PVCB),
    (V, VC, PL, PB, PVCB),
    (PL, PB, PVCB),
)


def main() -> None:
    """Print a table for each label rule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--symbols", type=lambda text: text.split(","), help="all without")
    parser.add_argument("--tf", default="15m", choices=THRESHOLDS)
    parser.add_argument("--days", type=float, default=365, help="of history")
    parser.add_argument("--until", type=lambda text: pd.Timestamp(text, tz="UTC"))
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    markets = load(options.folder, Timeframe(options.tf), options.until)
    markets = [b for b in markets if options.symbols is None or b.symbol in options.symbols]
    spec = SplitSpec(purge_bars=HORIZON, embargo_bars=HORIZON)
    rules: dict[str, LabelRule] = {
        "fixed": FixedHorizon(HORIZON, THRESHOLDS[options.tf]),
        "scaled": VolatilityScaled(HORIZON, 0.4, 50, None),
    }
    for name, rule in rules.items():
        dataset_spec = DatasetSpec(rule, FeatureDefinition.RELATIVE, 60, spec, options.days)
        pool = build_pool(markets, [], dataset_spec)
        pooled = fit_pooled_baselines(pool.seen)
        judged = [judge(dataset, pooled, options.keep and options.keep / f"{name}-{dataset.bars.symbol}.npz") for dataset in pool.seen]
        days = pool.seen[0].dates("test")
        print(f"\n{name} label, {len(judged)} markets of {options.tf}, test {days[0]:%Y-%m-%d} to {days[1]:%Y-%m-%d}\n")
        print(table(judged), flush=True)


def judge(dataset: MarketDataset, pooled: list, keep: Path | None):
    started = time.monotonic()
    train = dataset.rows("train")
    inputs = judgement.baseline_inputs(dataset)
    fitted = [b for b in judgement._fit_baselines(dataset, 0) if isinstance(b, LastRowClassifier)]
    own = LastRowClassifier(VCB, lambda: make_boosting(0), volatility_and_clock)
    own.fit(inputs.take(train), dataset.label[train])
    parts = {}
    for baseline in [*fitted, own, *pooled]:
        logits = [
            np.log(np.maximum(baseline.predict_proba(inputs.take(dataset.rows(p))), PROBABILITY_FLOOR))
            for p in ("validation", "test")
        ]
        part = judgement._calibrated(dataset, *logits)
        parts[baseline.name] = (part.validation, part.test)
    labels = [dataset.label[dataset.rows(p)] for p in ("validation", "test")]
    opened = dataset.bars.open_time[dataset.rows("test")]
    shares = class_shares(dataset.label[train])
    if keep:
        keep.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(keep, validation=labels[0], test=labels[1], opened=opened, shares=shares,
            **{f"{n}_{k}": p[k] for n, p in parts.items() for k in (0, 1)})
    print(dataset.bars.symbol, f"{time.monotonic()-started:.1f} s", flush=True)
    return parts, labels, opened, shares


def table(judged) -> str:
    rows = ["| parts | skill | lead over best single on validation | mean weights |", "|---|---|---|---|"]
    singles = [(name,) for name in judged[0][0]]
    best = [min(p, key=lambda n: row_log_loss(p[n][0], lab[0]).mean()) for p, lab, _, _ in judged]
    single_losses = [row_log_loss(p[b][1], lab[1]) for b, (p, lab, _, _) in zip(best, judged)]
    boot = Bootstrap(1)
    for names in [None, *singles, *COMBINATIONS]:
        daily, weights = [], []
        for b, one, (parts, labels, opened, shares) in zip(best, single_losses, judged):
            chosen = (b,) if names is None else names
            w = choose_weights([parts[n][0] for n in chosen], labels[0])
            weights.append(w if names is not None else (1.0,))
            said = blend_probabilities([parts[n][1] for n in chosen], w)
            prior = row_log_loss(np.tile(shares, (len(said), 1)), labels[1])
            loss = row_log_loss(said, labels[1])
            daily.append(sum_by_day(opened, [loss, prior, one, prior]))
        lead = joint_lead(daily, boot)
        w = " ".join(f"{x:.2f}" for x in np.mean(weights, axis=0))
        rows.append(f"| {'+'.join(names) if names else 'best single on validation'} | {shown(joint_skill(daily, boot))} | {shown(lead)} | {w} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()

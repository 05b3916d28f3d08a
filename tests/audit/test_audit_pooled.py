"""Rebuilding what a pool was made from, with markets of different lengths."""

from dataclasses import asdict
from types import SimpleNamespace

import pandas as pd
from builders import START, make_bars

from percoin.audit.findings import FindingStatus
from percoin.audit.pooled import check_pooled_scaling
from percoin.dataset import DatasetSpec, SplitSpec
from percoin.features.feature_set import FeatureSet
from percoin.labels import FixedHorizon
from percoin.registry.manifest import Features, ScalingNumbers
from percoin.training.manifest_draft import hash_references
from percoin.training.recipes.pool import build_pool
from percoin.training.recipes.pooled import record_pool
from percoin.types import Timeframe


def test_the_references_of_a_younger_market_of_the_pool_are_those_of_the_pool():
    later = START + 300 * pd.Timedelta(minutes=15)
    markets = {
        "BTCUSDT": make_bars(1200, "BTCUSDT"),
        "ETHUSDT": make_bars(1200, "ETHUSDT", seed=1),
        "SOLUSDT": make_bars(900, "SOLUSDT", seed=2, start=later),
    }
    features = FeatureSet(extra=("market",), references=("BTCUSDT", "ETHUSDT"))
    split = SplitSpec(purge_bars=3, embargo_bars=2)
    spec = DatasetSpec(FixedHorizon(3, 0.0025), features, 8, split, 365)
    pool = build_pool(list(markets.values()), [], spec)
    record = record_pool(pool)
    shares = dict(zip(("train", "validation", "test"), split.fractions, strict=True))
    for dataset in pool.markets:
        references = hash_references(dataset)
        manifest = SimpleNamespace(
            timeframe=Timeframe.M15,
            label_rule=spec.label_rule.to_json(),
            features=Features.of(features, Timeframe.M15),
            lookback=8,
            config={"split": asdict(split) | shares, "history_days": 365},
            pool=record,
            references=features.references,
            bars=SimpleNamespace(references=references),
            judged_scaling=ScalingNumbers.of(pool.scaling),
        )
        found = check_pooled_scaling(manifest, record, lambda name: markets[name])
        assert found.status is FindingStatus.OK, found.evidence

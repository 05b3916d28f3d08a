from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from retrain.retrain_runs import serve, tree
from versions.trained_registry import TIMEFRAME, market

from percoin.bars.schema import Bars
from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.labels import FixedHorizon
from percoin.monitoring.record import (
    RECORD_FILE,
    Baseline,
    Entry,
    Outcome,
    TrackRecord,
    kind_of_bars,
    sqlite_url,
)
from percoin.monitoring.resolution import PRIOR, rule_text
from percoin.registry.catalogue import served_version
from percoin.retrain.decisions import Absent, LiveSkill
from percoin.retrain.watching import Watch, measure_drift
from percoin.types import Signal, Source

HORIZON = 3


def manifest_of(folder):
    return served_version(market(folder)).manifest


def record_live(folder, manifest, n_rows: int, sure_of: float, version_id: str) -> None:
    """Resolved live predictions, right as often as the prior, of a model that is too sure."""
    record = TrackRecord(sqlite_url(folder / "data" / RECORD_FILE))
    rest = (1 - sure_of) / 2
    prior = Baseline(signal=int(Signal.NO_TRADE), probabilities=(1 / 3, 1 / 3, 1 / 3))
    step = manifest.timeframe.milliseconds
    entries = [
        Entry(
            symbol=manifest.symbol,
            tf=manifest.timeframe,
            ts=1_756_684_800_000 + row * step,
            bars=kind_of_bars(manifest.bars.origin),
            source=Source.MODEL.value,
            model_version=manifest.model_version,
            version_id=version_id,
            label_rule=rule_text(FixedHorizon(HORIZON, 0.005)),
            signal=int(Signal.LONG),
            confidence=sure_of,
            probabilities=(rest, rest, sure_of),
            close=100.0,
            baselines={PRIOR: prior},
            is_live=True,
            written_at=1_756_684_800_000 + row * step,
        )
        for row in range(n_rows)
    ]
    record.write_all(entries)
    labels = np.random.default_rng(3).integers(0, 3, n_rows)
    kept = record.predictions()
    outcomes = [Outcome(k.id, int(label), 0.0) for k, label in zip(kept, labels, strict=True)]
    record.resolve(outcomes, int(datetime.now(UTC).timestamp() * 1000))
    record.close()


def test_the_live_skill_is_that_of_the_served_version(trained):
    version_id = serve(trained)
    manifest = manifest_of(trained)
    record_live(trained, manifest, 900, 0.9, version_id)
    before = tree(trained)
    live = Watch(trained / "data")(manifest).live
    assert isinstance(live, LiveSkill)
    assert (live.n_resolved, live.n_independent) == (900, 300)
    assert live.lower < live.value < live.upper < 0
    assert tree(trained).keys() == before.keys()


@pytest.mark.parametrize(
    ("n_rows", "version_id", "why"),
    [
        (40, "20250101T000000000000Z-000000000000", "no live prediction of this version"),
        (5, None, "5 resolved predictions are too few for an interval"),
    ],
)
def test_a_record_that_says_nothing_of_the_version_is_told_so(trained, n_rows, version_id, why):
    served = serve(trained)
    manifest = manifest_of(trained)
    record_live(trained, manifest, n_rows, 0.5, version_id or served)
    live = Watch(trained / "data")(manifest).live
    assert isinstance(live, Absent)
    assert why in live.why


def test_without_a_record_none_is_made(trained):
    live = Watch(trained / "data")(manifest_of(trained)).live
    assert live.why.startswith("no track record in ")
    assert not (trained / "data" / RECORD_FILE).exists()


def test_a_record_that_cannot_be_reached_is_said_and_stops_nothing(trained):
    (trained / "data" / RECORD_FILE).write_text("this is no database, and long enough to be read")
    assert "is not a database" in Watch(trained / "data")(manifest_of(trained)).live.why


def test_drift_is_nothing_in_the_same_market_and_large_in_another_one(trained):
    manifest = manifest_of(trained)
    known = SimulatedSource(seed=0, n_bars=1200).load("BTCUSDT", TIMEFRAME)
    few = Watch(trained / "data")(manifest).drift
    assert few.why == "50 stored bars since, 500 are needed"

    def continued(factor: float) -> Bars:
        """The stored bars, and 700 more with moves of another size."""
        rng = np.random.default_rng(1)
        old = known.frame["close"].pct_change().dropna().to_numpy()
        closes = float(known.frame["close"].iloc[-1]) * np.cumprod(
            1 + factor * rng.choice(old, 700)
        )
        frame = known.frame.copy()
        extra = frame.iloc[:700].copy()
        extra.index = frame.index[-1] + TIMEFRAME.timedelta * np.arange(1, 701)
        extra.index.name = frame.index.name
        opens = np.concatenate([[float(frame["close"].iloc[-1])], closes[:-1]])
        extra["open"], extra["close"] = opens, closes
        extra["high"] = np.maximum(opens, closes) * (1 + 0.001 * factor)
        extra["low"] = np.minimum(opens, closes) * (1 - 0.001 * factor)
        joined = pd.concat([frame, extra]).astype("float64")
        return Bars("BTCUSDT", TIMEFRAME, joined, known.origin)

    assert measure_drift(manifest, continued(4.0)).psi > 1
    assert (
        measure_drift(manifest, continued(4.0)).psi
        > 2 * measure_drift(manifest, continued(1.0)).psi
    )
    without = known.slice(600, 1200)
    assert measure_drift(manifest, without).why == "the bars that it learnt from are stored no more"


def test_bars_that_are_gone_are_said(trained):
    path = BarStore(trained / "data" / "bars").path("BTCUSDT", TIMEFRAME)
    path.unlink()
    assert isinstance(Watch(trained / "data")(manifest_of(trained)).drift, Absent)

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from exported_models import bars_to_learn_from, export, make_dataset, random_network
from registry.command.trained_registry import TIMEFRAME, market
from retrain.retrain_runs import serve, tree

from percoin.bars.schema import Bars
from percoin.bars.store import BarStore
from percoin.errors import RecordError
from percoin.features.drift import bin_features
from percoin.intervals import KnownInterval
from percoin.labels import FixedHorizon
from percoin.monitoring.record import (
    RECORD_FILE,
    BaselineForecast,
    PredictionOutcome,
    RecordedPrediction,
    TrackRecord,
    kind_of_bars,
    sqlite_url,
)
from percoin.monitoring.resolution import PRIOR, rule_text
from percoin.monitoring.scoreboard import Standing
from percoin.registry.artifact import load_artifact
from percoin.registry.catalogue import served_version
from percoin.registry.judged import TRAIN_ROWS, TrainRows
from percoin.retrain.decisions import Absent, FurthestDrift, LiveSkill
from percoin.retrain.watching import Watch, live_skill
from percoin.types import Signal, Source, Timeframe

HORIZON = 3


def manifest_of(folder):
    return served_version(market(folder)).manifest


def watch(folder) -> Watch:
    return Watch(folder / "models", folder / "data")


def record_live(folder, manifest, n_rows: int, sure_of: float, version_id: str) -> None:
    """Resolved live predictions, right as often as the prior, of a model that is too sure."""
    record = TrackRecord(sqlite_url(folder / "data" / RECORD_FILE))
    rest = (1 - sure_of) / 2
    prior = BaselineForecast(signal=int(Signal.NO_TRADE), probabilities=(1 / 3, 1 / 3, 1 / 3))
    step = manifest.timeframe.milliseconds
    entries = [
        RecordedPrediction(
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
    outcomes = [
        PredictionOutcome(k.id, int(label), 0.0) for k, label in zip(kept, labels, strict=True)
    ]
    record.resolve(outcomes, int(datetime.now(UTC).timestamp() * 1000))
    record.close()


def test_the_live_skill_is_that_of_the_served_version(trained):
    version_id = serve(trained)
    manifest = manifest_of(trained)
    record_live(trained, manifest, 900, 0.9, version_id)
    before = tree(trained)
    live = watch(trained)(manifest).live
    assert isinstance(live, LiveSkill)
    assert (live.n_resolved, live.n_independent) == (900, 300)
    assert live.lower < live.value < live.upper < 0
    assert tree(trained).keys() == before.keys()


@pytest.mark.parametrize(
    ("n_rows", "version_id", "why"),
    [
        (40, "20250101T000000000000Z-000000000000", "no live prediction of this version"),
        (5, None, "5 resolved predictions are too few for an interval"),
        (185, None, "7.7 days of predictions; 8 are needed"),
    ],
)
def test_a_record_that_says_nothing_of_the_version_is_told_so(trained, n_rows, version_id, why):
    served = serve(trained)
    manifest = manifest_of(trained)
    record_live(trained, manifest, n_rows, 0.5, version_id or served)
    live = watch(trained)(manifest).live
    assert isinstance(live, Absent)
    assert why in live.why


def test_predictions_on_bars_of_another_source_are_no_live_skill_of_the_model():
    standing = Standing(
        symbol="BTCUSDT",
        tf=Timeframe.M15,
        source=Source.MODEL.value,
        bars="files",
        model_version="cnn_lstm_v1",
        version_id="an id",
        label_rule={"kind": "fixed_horizon", "horizon": 4},
        n_written=900,
        n_late=0,
        n_resolved=900,
        n_void=0,
        too_few="",
        skill=KnownInterval(-0.03, -0.04, -0.02),
        hit_rate=None,
        n_moves=0,
    )
    bars = SimpleNamespace(origin="binance spot: BTCUSDT")
    manifest = SimpleNamespace(version_id="an id", bars=bars)
    assert live_skill(manifest, [standing]) == Absent(
        "no live prediction of this version is recorded"
    )
    own = replace(standing, bars="binance spot", n_resolved=800)
    # As many predictions as a label reaches count as one.
    assert live_skill(manifest, [standing, own]) == LiveSkill(
        -0.03, -0.04, -0.02, 800, 200.0, 800 / 96
    )
    other = replace(own, version_id="another", n_resolved=5_000)
    assert live_skill(manifest, [other, own]).n_resolved == 800


def test_without_a_record_none_is_made(trained):
    live = watch(trained)(manifest_of(trained)).live
    assert live.why.startswith("no track record in ")
    assert not (trained / "data" / RECORD_FILE).exists()


def test_a_record_that_is_named_and_not_there_is_not_made_either(trained, tmp_path):
    place = tmp_path / "elsewhere" / "r.sqlite"
    named = Watch(trained / "models", trained / "data", sqlite_url(place))
    assert named(manifest_of(trained)).live == Absent(f"no track record in {place}")
    assert not place.parent.exists()


def test_one_row_that_cannot_be_meant_leaves_the_live_skill_to_be_told(trained):
    version_id = serve(trained)
    manifest = manifest_of(trained)
    record_live(trained, manifest, 900, 0.9, version_id)
    database = sqlite3.connect(trained / "data" / RECORD_FILE, isolation_level=None)
    database.execute("UPDATE percoin_predictions SET baselines = '{', ts = 'soon' WHERE id = 7")
    database.close()
    assert watch(trained)(manifest).live.n_resolved == 899


def test_a_record_that_cannot_be_reached_is_said_and_stops_nothing(trained):
    (trained / "data" / RECORD_FILE).write_text("this is no database, and long enough to be read")
    assert "is not a database" in watch(trained)(manifest_of(trained)).live.why


def test_a_record_that_is_away_is_waited_for_once_and_not_by_every_market(trained, monkeypatch):
    record_live(trained, manifest_of(trained), 5, 0.5, "20250101T000000000000Z-000000000000")
    asked = []

    def away(*_args):
        asked.append(1)
        raise RecordError("postgresql://db", "connection timeout expired")

    monkeypatch.setattr("percoin.retrain.watching.make_scoreboard", away)
    look, manifest = watch(trained), manifest_of(trained)
    said = [look(manifest).live for _ in range(3)]
    assert len(asked) == 1
    assert len(set(said)) == 1
    assert "connection timeout expired" in said[0].why
    monkeypatch.setattr("percoin.retrain.watching._ASKED_AGAIN_SECS", 0.0)
    look(manifest)
    assert len(asked) == 2


def test_drift_is_little_in_the_same_market_and_large_in_another_one(tmp_path):
    known = bars_to_learn_from(6400)
    dataset = make_dataset(known)
    rows = dataset.rows("train")
    told = TrainRows((0.3, 0.4, 0.3), bin_features(dataset.feature_names, dataset.features[rows]))
    export(tmp_path / "models", random_network(), dataset, sections={TRAIN_ROWS: told})
    manifest = load_artifact(tmp_path / "models", "BTCUSDT", Timeframe.M15).manifest

    def drift_after(factor: float, n_bars: int = 700) -> FurthestDrift | Absent:
        """Of bars whose moves have another size."""
        bars = continued(known, factor, n_bars)
        # Those that it learnt from need not be stored any more.
        BarStore(tmp_path / "data" / "bars").write(bars.slice(6000, len(bars)))
        return watch(tmp_path)(manifest).drift

    assert drift_after(1.0, n_bars=499) == Absent("499 bars since then, 500 are needed")
    assert drift_after(4.0).ratio > 2 > drift_after(1.0).ratio > 0


def test_a_model_that_learnt_from_few_rows_has_nothing_to_compare_with(trained):
    drift = watch(trained)(manifest_of(trained)).drift
    assert drift.why == "the model learnt from less than 4,000 rows: nothing to compare with"


def continued(known: Bars, factor: float, n_bars: int) -> Bars:
    """The bars, and more of them whose moves are drawn from theirs, times a factor."""
    rng = np.random.default_rng(1)
    old = known.frame["close"].pct_change().dropna().to_numpy()
    moves = 1 + factor * rng.choice(old, n_bars)
    closes = float(known.frame["close"].iloc[-1]) * np.cumprod(moves)
    extra = known.frame.iloc[:n_bars].copy()
    extra.index = known.frame.index[-1] + known.timeframe.timedelta * np.arange(1, n_bars + 1)
    extra.index.name = known.frame.index.name
    opens = np.concatenate([[float(known.frame["close"].iloc[-1])], closes[:-1]])
    extra["open"], extra["close"] = opens, closes
    extra["high"] = np.maximum(opens, closes) * (1 + 0.001 * factor)
    extra["low"] = np.minimum(opens, closes) * (1 - 0.001 * factor)
    joined = pd.concat([known.frame, extra]).astype("float64")
    return replace(known, frame=joined)


def test_bars_that_are_gone_are_said(trained):
    path = BarStore(trained / "data" / "bars").path("BTCUSDT", TIMEFRAME)
    path.unlink()
    assert isinstance(watch(trained)(manifest_of(trained)).drift, Absent)

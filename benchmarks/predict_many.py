"""How long the newest-bar predictions of 32 markets take, together and one after another.

    python benchmarks/predict_many.py [repetitions]

Trains a small throw-away run first (the network has its full size), exports its network for
32 markets as PyTorch and as ONNX, and keeps 1,000 bars of each market in memory. Then times,
with both libraries, 32 times ``predict``, one ``predict_many``, and ``predict_range`` over 512
bars of one market; and the features of all alone. Features, calibration and levels count,
loading the models does not. All are timed in turn, so that a busy moment of the machine meets
each. Prints medians and ratios.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from startup import ROOT, TRAIN, run

from percoin import Predictor
from percoin.bars.schema import Bars
from percoin.bars.sources.simulated import SimulatedSource
from percoin.features.feature_set import compute_features, compute_newest_features
from percoin.inference import Backend
from percoin.registry.artifact import export_artifact, load_artifact
from percoin.registry.layout import ONNX_FILE
from percoin.registry.manifest import ManifestDraft
from percoin.registry.training_record import TrainingHistory, TrainingRecord
from percoin.types import Timeframe

N_BARS = 1000
N_RANGE_BARS = 512
REPETITIONS = 21
SYMBOLS = (ROOT / "symbols").read_text().strip().split(",")
TIMEFRAME = Timeframe.M15


def export_all(folder: Path) -> Path:
    """Train one market and export its model under the name of each; returns the registry."""
    folders = [f"{name}_dir={folder}/{name}" for name in ("data", "models", "outputs")]
    run(["train.py", *TRAIN.split(), "logger=csv", "export.onnx=true", *folders])
    trained = load_artifact(folder / "models", "BTCUSDT", TIMEFRAME)
    onnx = (trained.folder / ONNX_FILE).read_bytes()
    known = {entry.name: getattr(trained.manifest, entry.name) for entry in fields(ManifestDraft)}
    record = TrainingRecord({}, TrainingHistory([1.0], [0.5], [1.0], [0.5]))
    weights = trained.state_dict
    for symbol in SYMBOLS:
        draft = ManifestDraft(**known | {"symbol": symbol})
        export_artifact(folder / "all", draft, weights, weights, record, onnx)
    return folder / "all"


def variants(models_dir: Path, markets: list[Bars], long: Bars) -> dict[str, Callable[[], object]]:
    """What is timed, by name; every model is loaded."""
    predictors = {backend: Predictor(models_dir, backend=backend) for backend in Backend}
    [manifest, *_] = [
        predictor.model(bars.symbol, bars.timeframe).manifest
        for bars in markets
        for predictor in predictors.values()
    ]
    features, lookback = manifest.features.feature_set, manifest.lookback
    recent = [bars.slice(N_BARS - manifest.history_bars) for bars in markets]
    timed: dict[str, Callable[[], object]] = {
        "features, one by one": lambda: [compute_features(bars, features) for bars in recent],
        "features, together": lambda: compute_newest_features(recent, features, lookback),
    }
    for name, predictor in predictors.items():
        timed[f"{name}, 32 x predict"] = lambda p=predictor: [p.predict(bars) for bars in markets]
        timed[f"{name}, predict_many"] = lambda p=predictor: p.predict_many(markets)
        first = long.frame.index[-N_RANGE_BARS]
        timed[f"{name}, range of {N_RANGE_BARS}"] = lambda p=predictor, first=first: (
            p.predict_range(long, first)
        )
    return timed


def measure(timed: dict[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Wall times in seconds of each, measured in turn."""
    for call in timed.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(repetitions):
        for name, call in timed.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return times


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS
    source = SimulatedSource(seed=1, n_bars=N_BARS, edge=0.0)
    markets = [source.load(symbol, TIMEFRAME) for symbol in SYMBOLS]
    long = SimulatedSource(seed=1, n_bars=N_BARS + N_RANGE_BARS, edge=0.0)
    history = long.load(SYMBOLS[0], TIMEFRAME)
    with tempfile.TemporaryDirectory() as folder:
        times = measure(variants(export_all(Path(folder)), markets, history), repetitions)
    for name, secs in times.items():
        print(
            f"{name:22}median {statistics.median(secs) * 1e3:6.1f} ms  "
            f"(fastest {min(secs) * 1e3:.1f}, slowest {max(secs) * 1e3:.1f}, n={len(secs)})"
        )
    for name in Backend:
        single, many = (times[f"{name}, {call}"] for call in ("32 x predict", "predict_many"))
        ratio = statistics.median(many) / statistics.median(single)
        print(
            f"{name + ', ratio':22}{ratio:.2f}  (aim: at most 0.5; "
            f"fastest to fastest {min(many) / min(single):.2f})"
        )
    print(f"{'load':22}{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

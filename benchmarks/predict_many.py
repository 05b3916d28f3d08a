"""How long the newest-bar predictions of 32 markets take, together and one after another.

    python benchmarks/predict_many.py [repetitions]

Trains a small throw-away run first (the network has its full size), with a planted pattern so
that the models beside the network get weights. Exports it for 32 markets as a pool, with one
network for all, and as 32 networks, each as PyTorch and as ONNX; the parts with a weight get
the same weight. Keeps 1,000 bars of each market in memory. Then times, with both libraries, 32
times ``predict`` of the pool, one ``predict_many`` of both, and ``predict_range`` over 512 bars of
one market; and the features of all alone. Features, the other parts, calibration, expected moves
and levels count, loading the models does not. All are timed in turn, so that a busy moment of
the machine meets each. Prints medians and ratios.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import onnx
from startup import ROOT, run

from percoin import Predictor
from percoin.bars.schema import Bars
from percoin.bars.sources.simulated import SimulatedSource
from percoin.evaluation.blend import NETWORK
from percoin.evaluation.trees import Trees
from percoin.features.feature_set import compute_features, compute_newest_features
from percoin.inference import Backend
from percoin.registry.artifact import Artifact, export_artifact, load_artifact
from percoin.registry.layout import EXPECTED_MOVE, METRICS_FILE, ONNX_FILE
from percoin.registry.manifest import ManifestDraft
from percoin.registry.parts import Combination
from percoin.registry.training_record import TrainingHistory, TrainingRecord
from percoin.types import Timeframe

N_BARS = 1000
N_RANGE_BARS = 512
REPETITIONS = 21
SYMBOLS = (ROOT / "symbols").read_text().strip().split(",")
TIMEFRAME = Timeframe.M15
# Few rows to train on: only the export is wanted, not a good model.
TRAIN = (
    "symbol=BTCUSDT source=simulated source.n_bars=3000 source.edge=0.5 history_days=3000 "
    "epochs=1 logger=csv export.onnx=true"
)
# Of the last layer.
BIAS = "head.8.bias"


@dataclass(frozen=True, eq=False)
class Trained:
    """A throw-away model, ready to be exported under other names.

    Attributes:
        artifact: Of the training.
        combination: Its parts, each with the same weight.
        content: Its network as ONNX.
    """

    artifact: Artifact
    combination: Combination
    content: bytes

    def export(self, models_dir: Path, symbol: str, k: int | None = None) -> None:
        """Publish it under a name; with ``k`` as a network and trees of its own."""
        found = self.artifact
        known = {entry.name: getattr(found.manifest, entry.name) for entry in fields(ManifestDraft)}
        draft = ManifestDraft(**known | {"symbol": symbol, "combination": self.combination})
        sections = json.loads((found.folder / METRICS_FILE).read_bytes())
        kept = {EXPECTED_MOVE: sections[EXPECTED_MOVE]}
        record = TrainingRecord({}, TrainingHistory([1.0], [0.5], [1.0], [0.5]), sections=kept)
        weights, trees, content = found.state_dict, found.trees, self.content
        if k is not None:
            # What sets them apart costs no time.
            weights = weights | {BIAS: weights[BIAS] + k * 1e-4}
            trees = {name: apart(entry, k) for name, entry in trees.items()}
            content = with_bias(content, weights[BIAS].numpy())
        export_artifact(models_dir, draft, weights, weights, record, content, trees)


def train_one(folder: Path, timeframe: Timeframe = TIMEFRAME) -> Trained:
    """Train one market for an epoch."""
    folders = [f"{name}_dir={folder}/{name}" for name in ("data", "models", "outputs")]
    run(["train.py", f"tf={timeframe.value}", *TRAIN.split(), *folders])
    artifact = load_artifact(folder / "models", "BTCUSDT", timeframe)
    content = (artifact.folder / ONNX_FILE).read_bytes()
    combination = evenly(artifact.manifest.combination)
    print(f"parts: {', '.join(combination.parts)}")
    return Trained(artifact, combination, content)


def export_all(folder: Path) -> dict[str, Path]:
    """Train one market and export its model under the name of each; returns the registries."""
    trained = train_one(folder)
    for k, symbol in enumerate(SYMBOLS):
        trained.export(folder / "pool", symbol)
        trained.export(folder / "own", symbol, k)
    return {name: folder / name for name in ("pool", "own")}


def evenly(combination: Combination) -> Combination:
    """The same parts, those with numbers and the network, each with the same weight."""
    parts = {
        name: part
        for name, part in combination.parts.items()
        if part.numbers is not None or name == NETWORK
    }
    weight = 1 / len(parts)
    return replace(
        combination, parts={name: replace(part, weight=weight) for name, part in parts.items()}
    )


def apart(trees: Trees, k: int) -> Trees:
    """Trees of the same shape with another baseline."""
    baseline = tuple(number + k * 1e-6 for number in trees.numbers.baseline)
    return Trees(replace(trees.numbers, baseline=baseline))


def with_bias(content: bytes, bias: np.ndarray) -> bytes:
    """The same ONNX network with another bias of the last layer."""
    model = onnx.load_from_string(content)
    [found] = [entry for entry in model.graph.initializer if entry.name == BIAS]
    found.CopyFrom(onnx.numpy_helper.from_array(bias, BIAS))
    written: bytes = model.SerializeToString()
    return written


def variants(
    registries: dict[str, Path], markets: list[Bars], long: Bars
) -> dict[str, Callable[[], object]]:
    """What is timed, by name; every model is loaded."""
    predictors = {
        (name, backend): Predictor(models_dir, backend=backend)
        for name, models_dir in registries.items()
        for backend in Backend
    }
    for predictor in predictors.values():
        assert not predictor.predict_many(markets).missing
    manifest = predictors["pool", Backend.TORCH].model(SYMBOLS[0], TIMEFRAME).manifest
    features, lookback = manifest.features.feature_set, manifest.lookback
    recent = [bars.slice(N_BARS - manifest.history_bars) for bars in markets]
    timed: dict[str, Callable[[], object]] = {
        "features, one by one": lambda: [compute_features(bars, features) for bars in recent],
        "features, together": lambda: compute_newest_features(recent, features, lookback),
    }
    for (name, backend), predictor in predictors.items():
        timed[f"{backend}, {name}, predict_many"] = lambda p=predictor: p.predict_many(markets)
        if name == "pool":
            timed[f"{backend}, 32 x predict"] = lambda p=predictor: [p.predict(b) for b in markets]
            first = long.frame.index[-N_RANGE_BARS]
            timed[f"{backend}, range of {N_RANGE_BARS}"] = lambda p=predictor, first=first: (
                p.predict_range(long, first, in_sample=True)
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
            f"{name:26}median {statistics.median(secs) * 1e3:6.1f} ms  "
            f"(fastest {min(secs) * 1e3:.1f}, slowest {max(secs) * 1e3:.1f}, n={len(secs)})"
        )
    for library in Backend:
        single, many = (
            times[f"{library}, {call}"] for call in ("32 x predict", "pool, predict_many")
        )
        ratio = statistics.median(many) / statistics.median(single)
        fastest = min(many) / min(single)
        print(f"{library + ', ratio':26}{ratio:.2f}  (fastest to fastest {fastest:.2f})")
    print(f"{'load':26}{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

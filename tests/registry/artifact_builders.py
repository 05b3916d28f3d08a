"""Small made-up models for the registry's tests.

Run as a script, it writes the committed artifacts of the present format anew:
``python tests/registry/artifact_builders.py``. Once a format has been released,
raise ``FORMAT_VERSION`` instead: its artifact must load for ever.
"""

import hashlib
import shutil
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from percoin.evaluation.blend import PartSkill, PartSkills
from percoin.evaluation.last_row import InputColumns
from percoin.evaluation.moves import RangeRegression
from percoin.evaluation.regression import Regression
from percoin.evaluation.trees import TreeNumbers, Trees
from percoin.features.feature_set import FEATURE_NAMES, FeatureDefinition, FeatureSet
from percoin.labels import Relative
from percoin.plugins import PluginSource
from percoin.registry import artifact
from percoin.registry.layout import MANIFEST_FILE
from percoin.registry.manifest import (
    BLEND_PARTS,
    FORMAT_VERSION,
    LOGISTIC_KIND,
    BarsInfo,
    Blend,
    DatasetInfo,
    Features,
    Gate,
    Manifest,
    ManifestDraft,
    ModelSpec,
    Refit,
    ScalingNumbers,
    SplitSpan,
    StoredVerdict,
    TestMetrics,
)
from percoin.registry.parts import Calibration, Combination, StoredNumbers, StoredPart
from percoin.registry.training_record import TrainingHistory, TrainingRecord
from percoin.registry.weights import save_weights
from percoin.types import Timeframe

SYMBOL = "BTCUSDT"
OTHER_SYMBOL = "ETHUSDT"
EXTRA_SYMBOL = "SOLUSDT"
TIMEFRAME = Timeframe.M15
GOLDEN = Path(__file__).with_name("golden")
CREATED_AT = datetime(2025, 9, 1, 0, 3, 12, 482911, tzinfo=UTC)


def draft(**changes) -> ManifestDraft:
    rng = np.random.default_rng(7)
    made = ManifestDraft(
        symbol=SYMBOL,
        timeframe=TIMEFRAME,
        lookback=60,
        dataset_info=DatasetInfo(
            num_features=15, train_samples=700, val_samples=150, test_samples=150
        ),
        test_metrics=TestMetrics(
            accuracy=0.6,
            precision=0.58,
            recall=0.6,
            f1=0.59,
            confusion_matrix=((20, 10, 5), (15, 50, 15), (5, 10, 20)),
        ),
        features=Features(FeatureDefinition.RELATIVE),
        scaling=ScalingNumbers(
            tuple(rng.normal(size=len(FEATURE_NAMES)).tolist()),
            tuple(rng.uniform(0.1, 3.0, size=len(FEATURE_NAMES)).tolist()),
        ),
        label_rule={"kind": "fixed_horizon", "horizon": 3, "threshold": 0.0025},
        calibration=Calibration("temperature", 1.25),
        gate=Gate(StoredVerdict.NOT_JUDGED, ("no gate yet",)),
        bars=BarsInfo(
            origin="simulated: seed 7",
            sha256="ab" * 32,
            first_open_time="2025-01-01T00:00:00Z",
            last_open_time="2025-01-31T23:45:00Z",
            n_bars=2976,
            splits={
                "train": SplitSpan("2025-01-02T00:00:00Z", "2025-01-20T00:00:00Z", 800),
                "val": SplitSpan("2025-01-20T06:00:00Z", "2025-01-25T00:00:00Z", 200),
                "test": SplitSpan("2025-01-25T06:00:00Z", "2025-01-31T23:00:00Z", 200),
            },
        ),
        model=ModelSpec({"n_features": 15, "channels": [64, 128, 256]}),
        config={"epochs": 5, "workers": None, "optimizer": {"lr": 0.001}},
        seed=42,
        code_version="0.1.0",
        libraries={"torch": "2.13.0", "numpy": "2.4.6"},
    )
    return replace(made, **changes)


def regression(seed: int = 5) -> Regression:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(3, len(FEATURE_NAMES)))
    return Regression(tuple(map(tuple, rows.tolist())), tuple(rng.normal(size=3).tolist()))


def blend(weight: float = 0.25) -> Blend:
    skill = PartSkills(PartSkill(0.02, 0.01, 0.03), PartSkill(0.01))
    return Blend(weight, Calibration("temperature", 0.9), dict.fromkeys(BLEND_PARTS, skill))


# What makes a draft that of another kind of model.
BLENDED = {"regression": regression(), "blend": blend()}
LOGISTIC = {
    "model_version": "logistic_v1",
    "model": ModelSpec({}, LOGISTIC_KIND),
    "regression": regression(),
}


EXTRA_SET = FeatureSet(extra=("volatility", "clock"))
N_EXTRA = len(EXTRA_SET.names(TIMEFRAME))
# And what gives it extra columns.
WITH_EXTRA = {
    "num_features": N_EXTRA,
    "dataset_info": DatasetInfo(
        num_features=N_EXTRA, train_samples=700, val_samples=150, test_samples=150
    ),
    "features": Features.of(EXTRA_SET, TIMEFRAME),
    "scaling": ScalingNumbers((0.0,) * N_EXTRA, (1.0,) * N_EXTRA),
}
# The state of reference markets in place of the clock.
MARKET_SET = FeatureSet(extra=("volatility", "market"), references=("BTCUSDT", "XRPUSDT"))
N_MARKET = len(MARKET_SET.names(TIMEFRAME))
RELATIVE = Relative(3, 0.4, 50, 0.75, 0.5, ("BTCUSDT", "ETHUSDT", "SOLUSDT"))


def with_market() -> dict[str, object]:
    """What gives a draft such columns; the first 15 are scaled as without them."""
    made = draft()
    mean, scale = made.scaling.mean, made.scaling.scale
    n_more = N_MARKET - len(mean)
    return {
        "num_features": N_MARKET,
        "dataset_info": replace(made.dataset_info, num_features=N_MARKET),
        "features": Features.of(MARKET_SET, TIMEFRAME),
        "scaling": ScalingNumbers((*mean, *(0.0,) * n_more), (*scale, *(1.0,) * n_more)),
        "bars": replace(made.bars, references={"BTCUSDT": "ab" * 32, "XRPUSDT": "cd" * 32}),
        "model": ModelSpec({"n_features": N_MARKET, "channels": [64, 128, 256]}),
    }


def trees() -> Trees:
    """Three small trees on the 15 features: a stump, a leaf, and one of two splits."""
    numbers = TreeNumbers(
        n_columns=len(FEATURE_NAMES),
        baseline=(0.1, 0.2, 0.3),
        n_nodes=(3, 1, 5),
        column=(0, -1, -1, -1, 14, 0, -1, -1, -1),
        number=(0.5, 1.0, 2.0, 3.0, 0.0, -1.0, 4.0, 5.0, 6.0),
        right=(2, 0, 0, 0, 4, 3, 0, 0, 0),
        missing_left=(1, 0, 0, 0, 0, 0, 0, 0, 0),
    )
    return Trees(numbers)


def part(weight: float, numbers: StoredNumbers | None = None) -> StoredPart:
    skill = PartSkills(PartSkill(0.01, 0.001, 0.02), PartSkill(0.02))
    return StoredPart(weight, Calibration("temperature", 0.9), skill, numbers)


def combination(**changes: StoredPart) -> Combination:
    """A network with trees, a regression on volatility, and a part without weight."""
    on_volatility = Regression(((0.5, -0.5, 0.25, 0.0, 1.0, 2.0),) * 3, (0.1, 0.0, -0.1))
    parts = {
        "network": part(0.5),
        "logistic": part(0.0),
        "volatility": part(0.25, StoredNumbers(InputColumns.VOLATILITY, on_volatility)),
        "boosting": part(0.25, StoredNumbers(InputColumns.FEATURES, trees="boosting.json")),
    }
    return Combination(parts | changes, PartSkills(PartSkill(0.03), PartSkill(0.03)))


BOOSTED = {
    "model_version": "boosting_v1",
    "model": ModelSpec({}, "boosting"),
    "last_row": StoredNumbers(InputColumns.FEATURES, trees="boosting.json"),
}


def moves_trees() -> Trees:
    """A stump and a leaf that add up to one number, on all columns of a model in two stages."""
    numbers = TreeNumbers(
        n_columns=27,
        baseline=(-6.5,),
        n_nodes=(3, 1),
        column=(26, -1, -1, -1),
        number=(0.5, 0.25, -0.25, 0.125),
        right=(2, 0, 0, 0),
        missing_left=(1, 0, 0, 0),
    )
    return Trees(numbers)


MOVES_NUMBERS = StoredNumbers(
    InputColumns.VOLATILITY_CLOCK_FEATURES,
    Regression(((0.5, -0.5, 0.25, 0.0, 1.0, 2.0, 0.75, -1.0),) * 3, (0.1, 0.0, -0.1)),
    "moves.json",
    RangeRegression((0.25, 0.5, -0.5, 0.0, 1.0, 2.0, *(0.125,) * 6), -6.0),
)
MOVES = {
    "model_version": "moves_v1",
    "model": ModelSpec({}, "moves"),
    "last_row": MOVES_NUMBERS,
}
TREES = {"boosting.json": trees(), "moves.json": moves_trees()}


def with_moves() -> Combination:
    """A network with trees and a model in two stages."""
    return combination(volatility=part(0.0), moves=part(0.25, MOVES_NUMBERS))


def averaged() -> Combination:
    """Trees and a regression on volatility, without a network, and a part without weight."""
    parts = {name: each for name, each in combination().parts.items() if name != "network"}
    halves = {name: replace(parts[name], weight=0.5) for name in ("volatility", "boosting")}
    return Combination(parts | halves, PartSkills(PartSkill(0.03), PartSkill(0.03)))


AVERAGED = {
    "model_version": "average_v1",
    "model": ModelSpec({}, "average"),
    "combination": averaged(),
}


def state_dict(value: float = 0.5, n_values: int = 50) -> dict[str, torch.Tensor]:
    return {
        "head.weight": torch.full((3, n_values), value),
        "norm.num_batches_tracked": torch.tensor(11),
    }


def record() -> TrainingRecord:
    return TrainingRecord(
        hyperparameters={"lr": 0.001, "batch_size": 16},
        training_history=TrainingHistory([1.1, 1.0], [0.4, 0.5], [1.2, 1.1], [0.3, 0.4]),
        test_metrics={"mcc": 0.2, "auroc": float("nan")},
        sections={"baselines": {"majority": np.float64(0.53)}},
    )


def export(root: Path, value: float = 0.5, n_values: int = 50, **changes) -> Path:
    """Export a model whose every weight is ``value``; its seed in the manifest tells it too."""
    weights = state_dict(value, n_values)
    made = draft(config={"value": value}, **changes)
    files = {name: TREES[name] for name in made.tree_files}
    return artifact.export_artifact(root, made, weights, weights, record(), trees=files).folder


def refit(judged: dict[str, torch.Tensor]) -> Refit:
    return Refit(
        rows=2900,
        first_open_time="2025-01-02T00:00:00Z",
        last_open_time="2025-01-31T23:00:00Z",
        epochs=4,
        twin_scaling=ScalingNumbers((0.5,) * 15, (2.0,) * 15),
        twin_sha256={"network": hashlib.sha256(save_weights(judged)).hexdigest()},
    )


def export_refit(root: Path, judged: float = 0.25, served: float = 0.5, **changes) -> Path:
    """Export a model whose served weights are others than the judged ones."""
    twin, weights = state_dict(judged, 4), state_dict(served, 4)
    made = draft(config={"value": served}, refit=refit(twin), **changes)
    return artifact.export_artifact(root, made, twin, weights, record()).folder


def export_alone(root: Path, **changes) -> Path:
    made = draft(**changes)
    files = {name: TREES[name] for name in made.tree_files}
    return artifact.export_artifact(root, made, {}, {}, record(), trees=files).folder


def export_logistic(root: Path, **changes) -> Path:
    return artifact.export_artifact(root, draft(**LOGISTIC | changes), {}, {}, record()).folder


# A network of the user's own, and a loss of theirs.
OWN_SYMBOL = "ADAUSDT"
OWN = {
    "model_version": "own_v1",
    "model": ModelSpec(
        {"width": 4, "kernels": [3, 5], "kind": "wide"},
        "own",
        PluginSource("my_models", "Nets.Wide", "ab" * 32),
        1234,
    ),
    "sources": {"loss": PluginSource("my_losses", "focal", "cd" * 32)},
}


def load(root: Path, symbol: str = SYMBOL) -> artifact.Artifact:
    return artifact.load_artifact(root, symbol, TIMEFRAME)


def check_whole(loaded: artifact.Artifact) -> float:
    """Return the value of the version, after checking that manifest and weights agree on it."""
    value = loaded.manifest.config["value"]
    assert (loaded.state_dict["head.weight"] == value).all()
    return value


def forge(folder: Path, **files: bytes) -> None:
    """Replace files of a served version and rewrite its manifest so that every hash is right."""
    manifest = Manifest.from_json((folder / MANIFEST_FILE).read_text(), SYMBOL, TIMEFRAME)
    hashes = dict(manifest.files)
    for key, content in files.items():
        name = {"weights": "cnn_lstm_v1.pth", "best": "cnn_lstm_best.pth", "scaler": "scaler.pkl"}[
            key
        ]
        (folder / name).write_bytes(content)
        hashes[name] = hashlib.sha256(content).hexdigest()
    made = draft(config=manifest.config)
    forged = made.seal(CREATED_AT, hashes)
    (folder / MANIFEST_FILE).write_text(forged.to_json())
    served = folder.with_name(forged.version_id)
    folder.rename(served)
    link = folder.parents[2] / TIMEFRAME.value
    link.unlink()
    link.symlink_to(f".versions/{TIMEFRAME.value}/{forged.version_id}")


def write_golden() -> None:
    """Export a small model of the newest format as a plain folder, without link and versions."""
    markets = GOLDEN / f"format_{FORMAT_VERSION}" / "per_coin"
    shutil.rmtree(markets, ignore_errors=True)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shutil.copytree(export_alone(root, **AVERAGED), markets / SYMBOL / TIMEFRAME.value)


if __name__ == "__main__":
    write_golden()

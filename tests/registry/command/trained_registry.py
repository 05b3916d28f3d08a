"""Trainings of seconds, and versions with another manifest over the same files."""

import shutil
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import pytest

from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.registry import publish
from percoin.registry.artifact import load_artifact, load_version
from percoin.registry.contents import read_files
from percoin.registry.history import Action
from percoin.registry.layout import MANIFEST_FILE, MarketFolder
from percoin.registry.manifest import ManifestDraft
from percoin.training.pipeline import prepare, train
from percoin.training.run_files import RunContext
from percoin.types import Timeframe

SYMBOL = "BTCUSDT"
TIMEFRAME = Timeframe.H1
N_BARS, N_TRAINED_ON = 1440, 1390
SIMULATED = ("source=simulated", f"source.n_bars={N_BARS}")


@pytest.fixture(scope="package")
def once(tmp_path_factory) -> Path:
    """A folder with a store and a registry; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    train_one(folder)
    return folder


@pytest.fixture
def trained(once, tmp_path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(once, tmp_path / "trained", symlinks=True)


def market(folder: Path) -> MarketFolder:
    return MarketFolder(folder / "models", SYMBOL, TIMEFRAME)


def served(folder: Path) -> str:
    return load_artifact(folder / "models", SYMBOL, TIMEFRAME).manifest.version_id


def train_one(folder: Path, *overrides: str) -> str:
    """Train on the older ones of the bars that the store of ``folder`` then holds."""
    network = [
        "model.channels=[4,4,4]",
        "model.hidden_size=4",
        "model.n_heads=2",
        "model.head_sizes=[4,4]",
        "blend=none",
    ]
    is_network = not any(word.startswith("model=") for word in overrides)
    settings = typed(
        compose_config(
            "train",
            [
                f"symbol={SYMBOL}",
                f"tf={TIMEFRAME.value}",
                *SIMULATED,
                "labels=fixed_horizon",
                "workers=1",
                "epochs=1",
                "lookback=8",
                "logger=csv",
                *(network if is_network else []),
                *(f"{name}_dir={folder / name}" for name in ("data", "models", "outputs")),
                *overrides,
            ],
        ),
        TrainConfig,
    )
    bars = SimulatedSource(seed=0, n_bars=N_BARS).load(SYMBOL, TIMEFRAME)
    BarStore(folder / "data" / "bars").write(bars)
    run = folder / "outputs"
    run.mkdir(parents=True, exist_ok=True)
    choices = {"source": "simulated", "labels": "fixed_horizon", "model": settings.model.option}
    recipe = prepare(settings, lambda _: bars.slice(0, N_TRAINED_ON))
    [result] = train(settings, recipe, RunContext(run, choices)).results
    return result.version


def add_version(folder: Path, **changes: object) -> str:
    """Serve a version with the files of the served one and a manifest that says otherwise."""
    where = market(folder)
    artifact = load_version(where, served(folder))
    entries = {
        entry.name: getattr(artifact.manifest, entry.name) for entry in fields(ManifestDraft)
    }
    draft = ManifestDraft(**entries | changes)
    sealed = draft.seal(datetime.now(UTC), artifact.manifest.files)
    files = read_files(where, artifact.folder, artifact.manifest)
    publish.publish_version(
        where,
        sealed.version_id,
        files | {MANIFEST_FILE: sealed.to_json().encode()},
        lambda: publish.Change(Action.EXPORT, (sealed.version_id,), "by a test", sealed.version_id),
    )
    return sealed.version_id

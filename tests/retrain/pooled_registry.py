"""Models of simulated markets with a planted edge, whose bars lie in files that can grow."""

from pathlib import Path

from builders import write_parquet

from percoin.bars.sources.simulated import SimulatedSource
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.training.pipeline import prepare, train
from percoin.training.run_files import RunContext
from percoin.types import Timeframe

MARKETS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
N_BARS, N_TRAINED_ON = 2400, 2200
CHOICES = {"source": "files", "labels": "fixed_horizon", "model": "cnn_lstm"}
# Enough for the gate to accept each of the three, trained on either number of bars.
LEARNT = (
    "epochs=3",
    "lr=0.01",
    "lookback=8",
    "model.channels=[4,4,4]",
    "model.hidden_size=4",
    "model.n_heads=2",
    "model.head_sizes=[4,4]",
)


def write_bars(folder: Path, n_bars: int, *symbols: str) -> None:
    """Write the first bars of markets, of as many as there are all in all."""
    for symbol in symbols:
        bars = SimulatedSource(seed=0, n_bars=N_BARS, edge=0.9).load(symbol, Timeframe.H1)
        write_parquet(bars.slice(0, n_bars), folder / "bars" / symbol / "1h.parquet")


def settings_of(folder: Path, *overrides: str) -> TrainConfig:
    return typed(
        compose_config(
            "train",
            [
                "tf=1h",
                "source=files",
                f"source.path={folder / 'bars'}",
                "workers=1",
                "logger=csv",
                *LEARNT,
                *(f"{name}_dir={folder / name}" for name in ("data", "models", "outputs")),
                *overrides,
            ],
        ),
        TrainConfig,
    )


def train_alone(folder: Path, *overrides: str) -> str:
    """Train a model of the first market alone on the older ones of its bars; its version."""
    write_bars(folder, N_TRAINED_ON, MARKETS[0])
    settings = settings_of(folder, f"symbol={MARKETS[0]}", *overrides)
    run = folder / "outputs" / "alone"
    run.mkdir(parents=True)
    [result] = train(settings, prepare(settings), RunContext(run, CHOICES)).results
    return result.version


def train_three(folder: Path, *overrides: str) -> None:
    """Train the pool on the older ones of the bars."""
    write_bars(folder, N_TRAINED_ON, *MARKETS)
    settings = settings_of(
        folder,
        "recipe=pooled",
        f"symbol='{','.join(MARKETS)}'",
        "pooled.windows_per_epoch=2000",
        "pooled.validation_windows=600",
        "pooled.seeds=1",
        *overrides,
    )
    run = folder / "outputs" / "pool"
    run.mkdir(parents=True)
    train(settings, prepare(settings), RunContext(run, CHOICES))

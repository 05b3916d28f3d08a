"""Build, test and fit the network that the settings describe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger

from percoin.config import CnnLstmConfig, ModelConfig, TrainConfig
from percoin.dataset import MarketDataset
from percoin.errors import ConfigError
from percoin.network import CnnLstm
from percoin.training.datamodule import MarketDataModule
from percoin.training.interruption import RunInterruption
from percoin.training.lit_module import OptimizerSpec, SignalClassifier
from percoin.training.run import (
    EndsWhenTold,
    TrainingPlan,
    fit,
    make_trainer,
    quiet_lightning,
    run_test,
)


def ask_network(
    module: SignalClassifier,
    dataset: MarketDataset,
    plan: TrainingPlan,
    interruption: RunInterruption,
    loggers: Sequence[Logger] = (),
) -> SignalClassifier:
    """Run a trained module on the test rows of a market.

    Returns:
        The same module, with the test outputs.
    """
    data = MarketDataModule.of(dataset, plan.batch_size, plan.seed)
    with quiet_lightning():
        trainer = make_trainer(plan, None, loggers, [EndsWhenTold(interruption)])
        run_test(trainer, module, data)
    return module


def fit_trial(
    settings: TrainConfig, dataset: MarketDataset, callbacks: Sequence[pl.Callback] = ()
) -> SignalClassifier:
    """Fit the network of the settings with ``percoin.training.run.fit``; it writes no file."""
    return fit(dataset, seeded_network(settings), plan_of(settings), callbacks)


def seeded_network(settings: TrainConfig) -> CnnLstm:
    """Seed all random generators and build the network with its initial weights."""
    pl.seed_everything(settings.seed, verbose=False)
    names = settings.features.feature_set.names(settings.tf.timeframe)
    return CnnLstm(len(names), **network_kwargs(settings.model))


def network_kwargs(settings: ModelConfig) -> dict[str, Any]:
    """Keyword arguments for ``CnnLstm``.

    Raises:
        ConfigError: The settings describe no network.
    """
    if not isinstance(settings, CnnLstmConfig):
        raise ConfigError(f"model={settings.option} has no network: choose another model")
    kwargs = asdict(settings)
    kwargs["channels"] = tuple(settings.channels)
    kwargs["head_sizes"] = tuple(settings.head_sizes)
    return kwargs


def plan_of(settings: TrainConfig) -> TrainingPlan:
    """The training plan of the settings."""
    return TrainingPlan(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        seed=settings.seed,
        optimizer=OptimizerSpec(**asdict(settings.optimizer)),
        accelerator=settings.trainer.accelerator,
        precision=settings.trainer.precision,
        record_steps=settings.trainer.record_steps,
    )

"""Build, test and fit the network that the settings describe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger
from torch import nn

from percoin.config import (
    CnnLstmConfig,
    ModelConfig,
    OptimizerConfig,
    OwnNetworkConfig,
    TrainConfig,
)
from percoin.dataset import MarketDataset
from percoin.errors import ConfigError
from percoin.network import CnnLstm
from percoin.own_network import count_own_weights, make_own_network
from percoin.registry.bounds import check_own_network
from percoin.registry.manifest import OWN_KIND, ModelSpec
from percoin.targets import find_target
from percoin.training.datamodule import MarketDataModule
from percoin.training.interruption import RunInterruption
from percoin.training.lit_module import OptimizerSpec, SignalClassifier
from percoin.training.own_parts import own_training
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
    from percoin.training.own_checks import check_own_parts

    check_own_parts(settings, dataset)
    return fit(dataset, seeded_network(settings), plan_of(settings), callbacks)


def seeded_network(settings: TrainConfig) -> nn.Module:
    """Seed all random generators and build the network with its initial weights.

    Raises:
        ConfigError: The settings describe no network, or one that cannot be made.
    """
    pl.seed_everything(settings.seed, verbose=False)
    n_features, model = _n_features(settings), settings.model
    if isinstance(model, OwnNetworkConfig):
        target = find_target("model._target_", model._target_)
        return make_own_network(target, model.arguments, n_features, settings.lookback)
    return CnnLstm(n_features, **network_kwargs(model))


def network_spec(settings: TrainConfig) -> ModelSpec:
    """What a manifest says of the network.

    Raises:
        ConfigError: As ``seeded_network``, or the registry would not take it.
    """
    model = settings.model
    if not isinstance(model, OwnNetworkConfig):
        return ModelSpec(network_kwargs(model))
    target = find_target("model._target_", model._target_)
    if target.source is None:
        raise target.refusal("is of torch: write a class of your own around it, in a file")
    counted = count_own_weights(target, model.arguments, _n_features(settings), settings.lookback)
    try:
        check_own_network(model.arguments, counted)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None
    return ModelSpec(model.arguments, OWN_KIND, target.source, counted)


def _n_features(settings: TrainConfig) -> int:
    return len(settings.features.feature_set.names(settings.tf.timeframe))


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
        optimizer=optimizer_spec(settings.optimizer),
        accelerator=settings.trainer.accelerator,
        precision=settings.trainer.precision,
        windows_per_epoch=settings.windows_per_epoch,
        record_steps=settings.trainer.record_steps,
        own=own_training(settings),
        train_batches=settings.trainer.limit_train_batches,
        val_batches=settings.trainer.limit_val_batches,
        overfit_batches=settings.trainer.overfit_batches,
    )


def optimizer_spec(settings: OptimizerConfig) -> OptimizerSpec:
    """The numbers among the settings of the optimizer."""
    return OptimizerSpec(**{e.name: getattr(settings, e.name) for e in fields(OptimizerSpec)})

"""The per-market recipe: one network per fold of a single market; the newest is exported."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from lightning.pytorch.loggers import Logger
from torch import nn

from percoin.config import TrainConfig
from percoin.dataset import MarketDataset, PreparedMarket
from percoin.features.scaling import Scaling
from percoin.registry.pool_record import PoolRecord
from percoin.training.fitted_network import FittedNetwork, Fold, TrainedAgain
from percoin.training.loggers import make_loggers
from percoin.training.own_parts import sources_of
from percoin.training.recipes.network import network_spec, plan_of, seeded_network
from percoin.training.recipes.recipe import Fitting, OneMarket, Trained
from percoin.training.run import (
    TrainedModel,
    TrainingPlan,
    checkpoint_of,
    data_of,
    make_module,
    train,
    train_again,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PerMarket(OneMarket):
    """One market, with a network trained from scratch."""

    is_gentle: ClassVar[bool] = False

    def max_epochs(self, settings: TrainConfig) -> int:
        """The sum over all folds."""
        return settings.epochs * len(self.folds)

    def fit(self, fitting: Fitting) -> Trained:
        """Train every fold from scratch, the newest last."""
        settings, folder, n_folds = fitting.settings, fitting.folder, len(self.folds)
        *earlier, newest = self.folds
        # They fail before any training; what they get is of the newest fold.
        loggers = make_loggers(settings, folder)
        before = []
        for number, dataset in enumerate(earlier, start=1):
            log.info("fold %d of %d", number, n_folds)
            trained = self._fit_fold(fitting, dataset, folder / f"fold-{number}")
            before.append(Fold(dataset, trained.module))
        if earlier:
            log.info("fold %d of %d, whose model is the one to serve", n_folds, n_folds)
        trained = self._fit_fold(fitting, newest, folder, loggers)
        market = FittedNetwork(
            dataset=newest,
            seed=settings.seed,
            secs=trained.secs,
            epochs=(trained.n_epochs, trained.best_epoch),
            pool=self._pool(trained),
            loggers=loggers,
            test=lambda: trained.module,
            earlier=before,
            again=lambda: self._train_again(fitting, trained),
            spec=network_spec(settings),
            sources=sources_of(settings),
            fitter=fitting.fitter,
        )
        return Trained([market], trained.secs)

    def _fit_fold(
        self,
        fitting: Fitting,
        dataset: MarketDataset,
        folder: Path,
        loggers: Sequence[Logger] = (),
    ) -> TrainedModel:
        settings = fitting.settings
        return train(
            dataset,
            self._network(settings),
            self._plan(settings),
            folder,
            loggers,
            fitting.callbacks,
            resume=settings.resume and checkpoint_of(folder).is_file(),
            interruption=fitting.interruption,
            is_gentle=self.is_gentle,
        )

    def _train_again(self, fitting: Fitting, trained: TrainedModel) -> TrainedAgain:
        """Train the newest fold once more, on all rows."""
        settings, plan = fitting.settings, self._plan(fitting.settings)
        dataset = PreparedMarket.again(self.folds[-1]).without_holdout(self._served_scaling)
        log.info("refit on %d rows, as long as the judged model", len(dataset.rows("train")))
        if plan.windows_per_epoch is not None:
            # The share of the rows that the twin's epochs had.
            share = len(dataset.rows("train")) / len(self.folds[-1].rows("train"))
            plan = replace(plan, windows_per_epoch=round(share * plan.windows_per_epoch))
        module = make_module(self._network(settings, is_refit=True), plan, self.is_gentle)
        data = data_of(dataset, plan)
        train_again(
            trained, module, data, plan, fitting.folder, settings.resume, fitting.interruption
        )
        return TrainedAgain(dataset, module)

    @property
    def _served_scaling(self) -> Scaling | None:
        """The scaling of a refit; None fits it to all rows."""
        return None

    def _network(self, settings: TrainConfig, is_refit: bool = False) -> nn.Module:
        """The network with its initial weights."""
        return seeded_network(settings)

    def _plan(self, settings: TrainConfig) -> TrainingPlan:
        return plan_of(settings)

    def _pool(self, trained: TrainedModel) -> PoolRecord | None:
        """None: these weights come from no pool of markets."""
        return None

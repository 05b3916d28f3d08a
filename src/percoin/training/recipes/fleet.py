"""The fleet recipe: one separate network per market, all trained at once in one process."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Self, cast

from lightning.pytorch.loggers import Logger

from percoin.config import TrainConfig
from percoin.dataset import MarketDataset
from percoin.errors import MarketError
from percoin.network import CnnLstm
from percoin.run_record import MARKETS_FOLDER
from percoin.training.fitted_network import FittedNetwork
from percoin.training.fleet_run import FleetModel, train_fleet
from percoin.training.folds import LoadBars, load_with_references, make_folds
from percoin.training.lit_module import SignalClassifier
from percoin.training.loggers import make_loggers
from percoin.training.recipes.network import ask_network, plan_of, seeded_network
from percoin.training.recipes.recipe import (
    FLEET_SECTION,
    Fitting,
    Recipe,
    Trained,
    failure,
    known_bars,
    market_settings,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Fleet(Recipe):
    """Several markets, each with the same data as in a separate training.

    Attributes:
        fleet: The markets; may be empty.
    """

    is_set: ClassVar[bool] = True
    fleet: Sequence[MarketDataset]

    @classmethod
    def prepare(cls, settings: TrainConfig, load: LoadBars) -> Self:
        """Build the datasets; a market that cannot be prepared goes to ``failed``."""
        fleet, failed = [], {}
        for symbol in settings.symbols:
            own = market_settings(settings, symbol)
            try:
                fleet += make_folds(own, load_with_references(own, load))
            except MarketError as error:
                failed[symbol] = failure(error)
        return cls(fleet=fleet, failed=failed)

    @property
    def datasets(self) -> Sequence[MarketDataset]:
        """All markets."""
        return self.fleet

    def settings_of(self, settings: TrainConfig, symbol: str) -> TrainConfig:
        """The settings of a separate training of the market, except for ``fleet``."""
        return market_settings(settings, symbol)

    def fit(self, fitting: Fitting) -> Trained:
        """Train all networks together, step by step."""
        if not self.fleet:
            return Trained([], 0.0)
        settings, folder = fitting.settings, fitting.folder
        n_rows = sum(len(dataset.rows("train")) for dataset in self.fleet)
        log.info("training %d networks on %d train rows in %s", len(self.fleet), n_rows, folder)
        loggers = {
            dataset.bars.symbol: make_loggers(
                settings, folder / MARKETS_FOLDER / dataset.bars.symbol
            )
            for dataset in self.fleet
        }

        def log_epoch(model: FleetModel) -> None:
            for logger in loggers[model.symbol]:
                logger.log_metrics(model.newest_figures(), step=len(model.history["val_loss"]))

        with fitting.interruption.expected():
            models = train_fleet(
                self.fleet,
                # All networks start from one seed, as separate trainings do.
                [cast(CnnLstm, seeded_network(settings))] * len(self.fleet),
                plan_of(settings),
                fitting.interruption.end_if_received,
                log_epoch,
                folder,
                settings.resume,
            )
        secs = max(model.secs for model in models)
        return Trained(
            [_fitted(fitting, model, loggers[model.symbol]) for model in models],
            secs,
            f"{len(models)} networks trained together",
            sections={FLEET_SECTION: self._record()},
        )

    def _record(self) -> dict[str, dict[str, object]]:
        """The markets and bars of this training; dropout is drawn for all of them together."""
        return {data.bars.symbol: asdict(known_bars(data)) for data in self.fleet}


def _fitted(fitting: Fitting, model: FleetModel, loggers: Sequence[Logger]) -> FittedNetwork:
    settings, plan = fitting.settings, plan_of(fitting.settings)

    def test() -> SignalClassifier:
        if model.error is not None:
            raise model.error
        network = seeded_network(settings)
        network.load_state_dict(model.state_dict)
        module = SignalClassifier(network, plan.optimizer, plan.lr, plan.seed)
        module.history = model.history
        return ask_network(module, model.dataset, plan, fitting.interruption, loggers)

    return FittedNetwork(
        dataset=model.dataset,
        seed=settings.seed,
        secs=model.secs,
        epochs=(len(model.history["val_loss"]), model.best_epoch),
        loggers=loggers,
        test=test,
        fitter=fitting.fitter,
    )

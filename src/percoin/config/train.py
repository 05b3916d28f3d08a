"""The settings of ``train.py``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from percoin.bars.renames import current_symbol
from percoin.config.backtest import BacktestConfig
from percoin.config.costs import CostsConfig
from percoin.config.dates import check_dates, end_date, first_test_date, start_date
from percoin.config.features import FeaturesConfig
from percoin.config.fields import (
    MOST_BARS,
    MOST_CORES,
    MOST_DAYS,
    MOST_EPOCHS,
    MOST_LOOKS,
    MOST_SEED,
    Effect,
    Names,
    When,
    allowed_code,
    check_all,
    choice,
    file_path,
    number,
    require,
    setting,
    some_of,
)
from percoin.config.labels import LabelsConfig, RelativeConfig
from percoin.config.loggers import loggers_of
from percoin.config.model import OF_A_MARKET, OF_A_NETWORK, CnnLstmConfig, ModelConfig
from percoin.config.recipes import (
    INIT_POOLED,
    EvaluationMode,
    PooledConfig,
    RecipeName,
)
from percoin.config.source import SourceConfig
from percoin.config.split import SplitConfig
from percoin.config.targets import LossConfig, SchedulerConfig
from percoin.config.timeframe import TimeframeConfig
from percoin.config.trainer import AUTO_PRECISION, ExportConfig, OptimizerConfig, TrainerConfig
from percoin.config.tune import TuneConfig
from percoin.dataset import check_purge
from percoin.errors import ConfigError
from percoin.evaluation.backtest import Exit
from percoin.evaluation.baselines import BESIDE, NO_BLEND, POOLED

BLEND_NAMES = Names(NO_BLEND, (*BESIDE, *POOLED))

_POOLED = f"recipe={RecipeName.POOLED}"
_SWEEP_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")


@dataclass
class TrainConfig:
    """Everything ``train.py`` can be told."""

    symbol: str = setting(
        "market as the exchange spells it, for example BTCUSDT; needed", affects=Effect.MODEL
    )
    recipe: str = choice(
        "per_market, or pooled: one network for all markets of symbol=A,B,C, saved and judged for "
        "each",
        RecipeName,
        affects=Effect.MODEL,
    )
    init: str | None = choice(
        "null, or pooled: start from the weights of a pooled model and fine-tune them",
        (INIT_POOLED,),
        default=None,
        affects=Effect.MODEL,
    )
    fleet: bool = setting(
        "true trains one network for each market of symbol=A,B,C, all at once in one process",
        default=False,
        affects=Effect.RUN,
    )
    pooled: PooledConfig = setting("with recipe=pooled, and with init=pooled where it says so")
    tf: TimeframeConfig = setting()
    source: SourceConfig = setting()
    features: FeaturesConfig = setting()
    labels: LabelsConfig = setting()
    model: ModelConfig = setting()
    blend: str = some_of(
        "models to average the network with, weighted on validation rows, joined by +; or none",
        BLEND_NAMES,
        affects=Effect.JUDGEMENT,
    )
    trainer: TrainerConfig = setting(used=OF_A_NETWORK)
    logger: Any = setting(
        "tensorboard, csv, mlflow or wandb, several as [A,B], or null",
        default=None,
        affects=Effect.RUN,
    )
    # A search is over before the training begins, which has the settings that it found.
    experiment: TuneConfig | None = setting(default=None, affects=Effect.RUN)
    epochs: int = number(
        "at most; 50, or 15 with recipe=pooled; early stopping may end sooner",
        1,
        MOST_EPOCHS,
        affects=Effect.LENGTH,
        used=OF_A_NETWORK,
    )
    # Batch normalisation needs two windows to know a variance.
    batch_size: int = number(
        "windows per step", 2, 1_000_000, affects=Effect.MODEL, used=OF_A_NETWORK
    )
    windows_per_epoch: int | None = number(
        "train windows of an epoch, drawn anew each time; null is all of them",
        2,
        100_000_000,
        default=None,
        affects=Effect.MODEL,
        used=OF_A_MARKET,
    )
    lr: float = number(
        "learning rate to begin with",
        above=0,
        below=1,
        affects=Effect.MODEL,
        used=When(unless=(*OF_A_NETWORK.unless, "init=pooled")),
    )
    seed: int = number(
        "for the initial weights, the shuffles and dropout", 0, MOST_SEED, affects=Effect.MODEL
    )
    workers: int | None = number(
        "cores to use; in a sweep: jobs at a time; they share the cores; null is all cores",
        1,
        MOST_CORES,
        default=None,
        affects=Effect.RUN,
    )
    resume: bool = setting(
        "go on with the newest interrupted run of this market; a sweep does so by itself",
        default=False,
        affects=Effect.RUN,
    )
    sweep: str | None = setting(
        "name of a sweep; null makes one from the settings that are not swept",
        default=None,
        affects=Effect.SWEEP,
    )
    force: bool = setting(
        "in a sweep: train finished jobs again", default=False, affects=Effect.SWEEP
    )
    reuse_bars_secs: float = number(
        "in a sweep: an exchange's bars that are no older than this are not fetched again",
        0,
        1_000_000_000,
        affects=Effect.SWEEP,
    )
    # Two poolings by 2 leave nothing of a window shorter than 4 bars.
    lookback: int = number("bars in a window", 4, MOST_BARS, why=" bars", affects=Effect.MODEL)
    history_days: int = number(
        "days of history, back from the newest bar",
        1,
        MOST_DAYS,
        affects=Effect.MODEL,
        used=When(unless=("start=*",)),
    )
    start: str | None = start_date(Effect.MODEL)
    end: str | None = end_date(Effect.MODEL)
    test_from: str | None = first_test_date()
    split: SplitConfig = setting("shares of the rows, oldest first")
    loss: LossConfig = setting("what is minimised", used=OF_A_NETWORK)
    optimizer: OptimizerConfig = setting(used=OF_A_NETWORK)
    scheduler: SchedulerConfig = setting("how the learning rate changes", used=OF_A_NETWORK)
    evaluation: str = choice(
        "single_split, or walk_forward: train anew for each fold, judge the test rows of all folds",
        EvaluationMode,
        affects=Effect.MODEL,
    )
    folds: int = number(
        "folds of a walk-forward",
        2,
        1000,
        affects=Effect.MODEL,
        used=When(needs=("evaluation=walk_forward",)),
    )
    refit: bool = setting(
        "true trains the judged model again on all rows, the newest included, and serves that one; "
        "the figures stay those of the judged one",
        default=False,
        affects=Effect.JUDGEMENT,
    )
    costs: CostsConfig = setting("for each side of a trade, in basis points")
    backtest: BacktestConfig = setting()
    export: ExportConfig = setting("more files of the trained model")
    trials: int = number(
        "models and settings tried, this one included; deflates the Sharpe ratio",
        1,
        1_000_000_000,
        affects=Effect.JUDGEMENT,
    )
    looks: int = number(
        "chosen models that were judged on these test rows, this one included; the more, the "
        "stricter the gate",
        1,
        MOST_LOOKS,
        affects=Effect.JUDGEMENT,
    )
    tags: list[str] = setting(
        "words that mark the run, in its manifest and its loggers: [A,B]",
        default_factory=list,
        affects=Effect.RUN,
    )
    plugins: list[str] = allowed_code()
    data_dir: str = file_path("bars are stored here, in bars/", affects=Effect.FOLDER)
    models_dir: str = file_path("the registry of trained models", affects=Effect.FOLDER)
    outputs_dir: str = file_path(
        "logs, checkpoints and pictures of every run", affects=Effect.FOLDER
    )

    def __post_init__(self) -> None:
        # A search makes settings without a config to look at.
        check_all(self)
        loggers_of(self.logger)
        self._check_recipe()
        require(
            self.sweep is None or _SWEEP_NAME.fullmatch(self.sweep) is not None,
            f"sweep={self.sweep!r} cannot name a folder: use letters, digits and _ . -",
        )
        require(
            # The runs of a market lie in a folder of its name.
            self.sweep is None or self.sweep != self.sweep.upper(),
            f"sweep={self.sweep} could be a market; use lower-case letters too",
        )
        require(
            self.experiment is None or not self.resume,
            "experiment=tune goes on with its study by itself: leave out resume=true",
        )
        require(
            self.trainer.overfit_batches is None or not self.refit,
            "trainer.overfit_batches trains on a few batches alone, and refit=true on all rows: "
            "leave out one of the two",
        )
        check_dates(self.start, self.end, self.test_from)
        check_purge(self.split.purge_bars, self.labels.horizon)
        if not self.model.has_network:
            self._check_without_network()
        if isinstance(self.model, CnnLstmConfig):
            self.model.check_size(len(self.features.feature_set.names(self.tf.timeframe)))
        strange = [name for name in self.blended if name in POOLED]
        require(
            not strange or self.recipe == RecipeName.POOLED,
            f"blend={self.blend}: {', '.join(strange)} learns from all markets of a pool; use it "
            "with recipe=pooled",
        )

    @property
    def leaves_precision_open(self) -> bool:
        """Whether a network is trained in the precision that suits the machine."""
        return self.model.has_network and self.trainer.precision == AUTO_PRECISION

    @property
    def blended(self) -> tuple[str, ...]:
        """The baselines to average, with the network if there is one."""
        return BLEND_NAMES.split(self.blend)

    def _check_without_network(self) -> None:
        """Refuse what only a network can be told."""
        name = self.model.option
        require(
            self.model.is_blended or not self.blended,
            f"blend={self.blend} averages several models, and model={name} is one: leave out one "
            "of the two, or use model=average",
        )
        require(
            not self.model.is_blended or len(self.blended) > 1,
            f"model={name} averages two or more models, and blend={self.blend} names "
            f"{len(self.blended) or 'none'}: name more, or leave it out",
        )
        require(
            self.experiment is None,
            f"experiment=tune searches settings of a network, and model={name} has none of them",
        )
        require(
            not self.resume,
            f"model={name} trains in seconds and cannot be resumed: leave out resume=true",
        )

    @property
    def targets(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """What is of the user's own, by its group: the name of its code, and its arguments."""
        groups: dict[str, Any] = {
            "model": self.model,
            "loss": self.loss,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
        }
        return {
            name: (group._target_, group.arguments)
            for name, group in groups.items()
            if getattr(group, "_target_", None) is not None
        }

    @property
    def symbols(self) -> tuple[str, ...]:
        """The markets, of which only ``recipe=pooled`` and ``fleet=true`` have several."""
        return tuple(word.strip() for word in self.symbol.split(","))

    @property
    def pooled_symbols(self) -> tuple[str, ...]:
        """Those of them that take part in a pool."""
        return tuple(name for name in self.symbols if name not in self.pooled.without)

    def looks_of(self, symbol: str) -> int:
        """Chosen models that the test rows of one market have judged, the next one included."""
        each = self.pooled.looks
        return each[self.symbols.index(symbol)] if each else self.looks

    @property
    def title(self) -> str:
        """What messages call the market, or all of them."""
        if len(self.symbols) == 1:
            return self.symbol
        return f"{'fleet' if self.fleet else 'pool'} of {len(self.symbols)} markets"

    def _check_recipe(self) -> None:
        if self.fleet:
            self._check_fleet()
        elif self.recipe == RecipeName.POOLED:
            self._check_pool()
            self._check_single_split(_POOLED)
        elif len(self.symbols) > 1:
            raise ConfigError(
                f"symbol names {len(self.symbols)} markets; several values make a sweep: add -m "
                "to train one model for each, fleet=true to do the same at once on a GPU, or "
                "recipe=pooled to train one network on all of them"
            )
        else:
            current_symbol(self.symbol)
        if self.init == INIT_POOLED:
            self._check_single_split("init=pooled")
        require(
            self.test_from is None or (self.recipe == RecipeName.PER_MARKET and self.init is None),
            "test_from is for markets that train from scratch, without a pool, whose test part "
            "begins where its shares say: leave it out",
        )
        if isinstance(self.labels, RelativeConfig):
            self._check_relative()

    def _check_relative(self) -> None:
        """Refuse what labels that compare the markets of a pool do not go with."""
        require(
            self.recipe == RecipeName.POOLED,
            "labels=relative compares a market with the mean of its pool, and this trains each "
            "market alone: add recipe=pooled and name the markets with symbol=A,B,C",
        )
        require(
            self.backtest.exit != Exit.LEVELS,
            "labels=relative trades a market against a basket, for which there is no stop and no "
            "target: leave out backtest.exit=levels",
        )

    def _check_fleet(self) -> None:
        """Refuse what a fleet does not know how to do."""
        self._check_symbols()
        others = {
            "recipe=pooled": self.recipe == RecipeName.POOLED,
            "init=pooled": self.init == INIT_POOLED,
            f"model={self.model.option}": not isinstance(self.model, CnnLstmConfig),
            "experiment=tune": self.experiment is not None,
            f"evaluation={self.evaluation}": self.evaluation == EvaluationMode.WALK_FORWARD,
            "refit=true": self.refit,
            self.trainer.limited: bool(self.trainer.limited),
            **dict.fromkeys(self._of_a_market, True),
            **dict.fromkeys((f"{name}._target_" for name in self.targets), True),
        }
        for option, is_asked in others.items():
            require(
                not is_asked,
                f"fleet=true trains a network from scratch for each market, in one go on one "
                f"split, and does not go with {option}: leave out one of the two",
            )

    @property
    def _of_a_market(self) -> list[str]:
        """What is told of the epochs and the weights of a market that trains alone."""
        told = {
            "windows_per_epoch": self.windows_per_epoch,
            "optimizer.averaging": self.optimizer.averaging,
        }
        return [f"{name}={value}" for name, value in told.items() if value]

    def _check_symbols(self) -> None:
        for symbol in self.symbols:
            current_symbol(symbol)
            require(self.symbols.count(symbol) == 1, f"symbol names {symbol} twice")

    def _check_pool(self) -> None:
        self._check_symbols()
        require(
            len(self.symbols) > 1,
            "recipe=pooled learns from several markets; give symbol=A,B,C or symbol=$(cat symbols)",
        )
        for key in ("leave_out", "without"):
            named = getattr(self.pooled, key)
            strange = [name for name in named if name not in self.symbols]
            require(
                not strange,
                f"pooled.{key} names {', '.join(strange)}, which symbol does not name; add them "
                "to symbol, or leave them out",
            )
        require(
            len(self.pooled_symbols) > 1,
            f"pooled.without={self.pooled.without} leaves fewer than two markets of symbol",
        )
        require(
            self.seed + self.pooled.seeds - 1 <= MOST_SEED,
            f"the last of the pool's seeds would be {self.seed + self.pooled.seeds - 1}; use a "
            "smaller seed",
        )
        require(
            len(self.pooled.looks) in (0, len(self.symbols)),
            f"pooled.looks={self.pooled.looks} must have a number for each market of symbol, "
            "in their order, or none",
        )
        require(
            self.trainer.overfit_batches is None,
            "trainer.overfit_batches is for one market alone; leave out recipe=pooled",
        )
        require(
            self.init is None,
            "init=pooled is for one market after its pool was trained; leave out recipe=pooled",
        )

    def _check_single_split(self, option: str) -> None:
        require(
            self.evaluation == EvaluationMode.SINGLE_SPLIT,
            f"{option} uses the cuts of the pool; leave out evaluation={self.evaluation}",
        )
        takes, fits = "a network", self.model.has_network
        if option == _POOLED:
            takes, fits = "a network or model=average", self.model.is_blended
        require(
            fits,
            f"{option} trains {takes}, and model={self.model.option} is none: leave out one of "
            "the two",
        )
        require(
            self.experiment is None,
            f"{option} and experiment=tune do not go together: a search is for one market alone",
        )
        require(
            not self._of_a_market,
            f"{' '.join(self._of_a_market)} is for one market that trains alone, from scratch, and "
            f"does not go with {option}: leave out one of the two",
        )

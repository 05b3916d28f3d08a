"""The from-pool recipe: fine-tune a pooled model on one market.

A pooled model is one network that was trained on several markets.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from torch import Tensor, nn

from percoin import json_codec
from percoin.assembly import dataset_spec, label_rule
from percoin.bars.schema import Bars
from percoin.config import TrainConfig
from percoin.dataset import DatasetSpec, MarketDataset
from percoin.errors import ConfigError, ModelNotFoundError
from percoin.features.feature_set import FeatureSet
from percoin.features.scaling import Scaling
from percoin.registry.artifact import Artifact, load_version, read_artifact
from percoin.registry.catalogue import read_versions
from percoin.registry.layout import MANIFEST_FILE, MarketFolder
from percoin.registry.manifest import Manifest, ModelSpec
from percoin.registry.pool_record import PoolRecord
from percoin.training.folds import LoadBars, load_with_references
from percoin.training.recipes.network import network_spec
from percoin.training.recipes.per_market import PerMarket
from percoin.training.recipes.pool import (
    UNUSABLE,
    CalendarCuts,
    build_pooled_market,
    spec_of,
)
from percoin.training.run import TrainedModel, TrainingPlan
from percoin.types import Timeframe


@dataclass(frozen=True)
class PooledStart:
    """A pooled model to start from.

    Attributes:
        manifest: Its manifest.
        pool: The record of its markets and time cuts.
        judged: Its judged weights: a refit has seen the test rows.
        served: Its served weights, with which a refit begins.
    """

    manifest: Manifest
    pool: PoolRecord
    judged: dict[str, Tensor]
    served: dict[str, Tensor]

    def dataset(self, spec: DatasetSpec, bars: Bars) -> MarketDataset:
        """Build a market's dataset with the pool's time cuts and scaling.

        With the same cuts, the test part holds nothing that the pooled model was trained on.

        Raises:
            NotEnoughBarsError: The market has no rows in one of the three parts.
            MissingClassError: Its train rows lack one of the three classes.
        """
        cuts = CalendarCuts(*self.pool.moments())
        return build_pooled_market(bars, spec, cuts, self.manifest.judged_scaling.fitted())


@dataclass(frozen=True, kw_only=True)
class FromPool(PerMarket):
    """One market; fine-tunes a pooled model with batch normalisation frozen.

    Attributes:
        start: The pooled model.
    """

    is_gentle: ClassVar[bool] = True
    start: PooledStart

    @classmethod
    def prepare(cls, settings: TrainConfig, load: LoadBars) -> Self:
        """Find the pooled model, then build the dataset with its time cuts and scaling.

        Raises:
            ModelNotFoundError: There is no pooled model.
            DataError: There are no bars, or too few.
        """
        start, bars = find_start(settings), load_with_references(settings, load)
        return cls(folds=[start.dataset(dataset_spec(settings), bars)], start=start)

    @property
    def begins_with(self) -> str | None:
        """The version id of the pooled model."""
        return self.start.manifest.version_id

    @property
    def _served_scaling(self) -> Scaling:
        return self.start.manifest.scaling.fitted()

    def _network(self, settings: TrainConfig, is_refit: bool = False) -> nn.Module:
        network = super()._network(settings)
        network.load_state_dict(self.start.served if is_refit else self.start.judged)
        return network

    def _plan(self, settings: TrainConfig) -> TrainingPlan:
        return replace(super()._plan(settings), lr=settings.pooled.init_lr)

    def _pool(self, trained: TrainedModel) -> PoolRecord:
        """The pool's record, with whether fine-tuning improved the pooled weights."""
        improved = trained.best_epoch > 0
        return replace(self.start.pool, started_from=self.begins_with, improved=improved)


def find_start(settings: TrainConfig) -> PooledStart:
    """Find the pooled model for init=pooled: of this market, another market, or a folder.

    For a market, this is its newest pooled version, served or not. A model fine-tuned from a
    pooled one does not count as pooled, so that what is served does not change the start.

    Raises:
        ModelNotFoundError: There is no such model.
        InvalidArtifactError: The model's files are broken.
        ConfigError: The settings ask for a different network, bar length, lookback, features or
            labels.
    """
    wanted, timeframe = settings.pooled.init_model, settings.tf.timeframe
    if wanted is not None and ("/" in wanted or Path(wanted).is_dir()):
        artifact = _of_folder(Path(wanted), settings)
    else:
        market = MarketFolder(Path(settings.models_dir), wanted or settings.symbol, timeframe)
        artifact = load_version(market, _pooled_version(market))
    manifest = artifact.manifest
    if manifest.pool is None:
        found = f"{manifest.version_id} was not trained with recipe=pooled"
        action = "name another model with pooled.init_model"
        raise ModelNotFoundError(settings.symbol, settings.tf.name, found, action)
    _check_same_kind(manifest, settings)
    return PooledStart(manifest, manifest.pool, artifact.judged, artifact.state_dict)


def _pooled_version(market: MarketFolder) -> str:
    found = [
        version.version_id
        for version in read_versions(market)
        if version.manifest is not None and _is_pooled(version.manifest)
    ]
    if not found:
        raise ModelNotFoundError(
            market.symbol,
            market.timeframe,
            f"no model of recipe=pooled in {market.root} for init=pooled to begin with",
            "train one with recipe=pooled, or name another market's with pooled.init_model=SYMBOL",
        )
    return max(found)


def _of_folder(folder: Path, settings: TrainConfig) -> Artifact:
    def refusal(found: str) -> ModelNotFoundError:
        action = "give the folder of one version, with its meta.json"
        return ModelNotFoundError(settings.symbol, settings.tf.name, found, action)

    try:
        named = json_codec.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        symbol, timeframe = str(named["symbol"]), Timeframe(named["timeframe"])  # type: ignore[index]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise refusal(f"pooled.init_model={folder} is no version of a model ({error})") from error
    artifact = read_artifact(MarketFolder(folder, symbol, timeframe), folder.resolve())
    if not _is_pooled(artifact.manifest):
        raise refusal(f"pooled.init_model={folder} was not trained with recipe=pooled")
    return artifact


def _is_pooled(manifest: Manifest) -> bool:
    pool = manifest.pool
    return manifest.has_network and pool is not None and pool.started_from is None


def _check_same_kind(manifest: Manifest, settings: TrainConfig) -> None:
    """Raise ConfigError if the settings do not fit the pooled weights."""
    try:
        spec = spec_of(manifest)
    except UNUSABLE as error:
        raise ConfigError(
            f"init=pooled: the settings of the pooled model {manifest.version_id} cannot be read "
            f"({error!r:.200}); train the pool again, or begin with another model"
        ) from error
    rule = label_rule(settings.labels).to_json() | {"width": None}
    asked = settings.features.feature_set
    pairs = {
        "tf": (manifest.timeframe, settings.tf.timeframe),
        "lookback": (spec.lookback, settings.lookback),
        "features.definition": (spec.feature_set.definition, asked.definition),
        "features.extra": (_with_code(spec.feature_set), _with_code(asked)),
        "features.references": (list(spec.feature_set.references), list(asked.references)),
        # The scaling is of the pool's train rows.
        "split.purge_bars": (
            spec.split_spec.purge_bars,
            dataset_spec(settings).split_spec.purge_bars,
        ),
        "labels": (spec.label_rule.unproven.to_json() | {"width": None}, rule),
        "model": (_described(manifest.model), _described(network_spec(settings))),
    }
    for name, (pooled, given) in pairs.items():
        if pooled != given:
            raise ConfigError(
                f"init=pooled: the pooled model {manifest.version_id} has {name}={pooled}, not "
                f"{given}; repeat the settings that it was trained with"
            )


def _with_code(features: FeatureSet) -> list[str]:
    codes = {feature.label: f" ({feature.source.sha256[:12]})" for feature in features.own}
    return [f"{name}{codes.get(name, '')}" for name in features.extra_names]


def _described(spec: ModelSpec) -> object:
    code = {} if spec.source is None else {"code": f"{spec.source.name} {spec.source.sha256:.12}"}
    return json.loads(json.dumps({**code, **spec.kwargs}))

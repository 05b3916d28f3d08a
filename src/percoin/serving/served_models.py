"""The served model of each market; a model is read again when its version changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from percoin.bars.schema import Bars
from percoin.commands import command
from percoin.errors import ConfigError, ModelNotFoundError
from percoin.features.drift import STRETCH_ROWS
from percoin.features.feature_set import history_bars
from percoin.labels import LabelRule, label_rule_from_json
from percoin.registry.artifact import served_mark
from percoin.registry.contents import read_manifest
from percoin.registry.judged import JudgedSkill, TrainRows, judged_skill, train_rows
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Manifest
from percoin.registry.publish import served_folder
from percoin.serving.discretion import Discretion
from percoin.serving.each_market import EachMarket
from percoin.serving.offer import Clock, Market, utc_now
from percoin.signals.chain import prepare
from percoin.signals.protocol import MarketBars, SignalSource
from percoin.types import Passed, Prediction, Source


@dataclass(frozen=True)
class ModelStatus:
    """The state of one market's served model.

    Attributes:
        mark: Changes with the served version; None if no model is served.
        manifest: The model's manifest; None without a valid model.
        content: The state as a JSON object.
        train_rows: Facts about the model's train rows; None if the model does not store them.
        label_rule: Rule that decides if the model was right; None without a model, or if
            this percoin does not know the rule.
        problem: Why an existing model is invalid; empty if it is valid or does not exist.
    """

    mark: str | None
    manifest: Manifest | None
    content: Mapping[str, object]
    train_rows: TrainRows | None = None
    label_rule: LabelRule | None = None
    problem: str = ""


class ServedModels:
    """Knows the served models of some markets from their manifests alone.

    Args:
        models_dir: Folder of the model registry.
        markets: The served markets.
        discretion: Removes folder names from texts.
        clock: Gives the current time.
        bars_from: As for ``ModelSource``: the advice to train a missing model repeats them.
    """

    def __init__(
        self,
        models_dir: Path,
        markets: Iterable[Market],
        discretion: Discretion,
        clock: Clock = utc_now,
        bars_from: Sequence[str] = (),
    ) -> None:
        self._models_dir = models_dir
        self._bars_from = bars_from
        self._discretion = discretion
        self._steps = EachMarket("MODEL", "its model cannot be read", clock)
        self._statuses: dict[Market, ModelStatus] = {}
        for market in markets:
            self._statuses[market] = self._told(market)

    def look(self) -> None:
        """Read changed models again; an unchanged model costs one ``readlink``.

        A model that could not be read is tried again after a pause: its files may still be on
        their way.
        """
        for market, status in self._statuses.items():
            is_due = bool(status.problem) and self._steps.may_try(market)
            if is_due or served_mark(self._models_dir, *market) != status.mark:
                self._statuses[market] = self._told(market)

    def status(self, market: Market) -> ModelStatus | None:
        """The state of one market's model; None if the market is not served."""
        return self._statuses.get(market)

    def contents(self) -> list[Mapping[str, object]]:
        """The state of every market's model as JSON objects."""
        return [status.content for status in list(self._statuses.values())]

    def compared_with(self) -> list[Market]:
        """The markets that features or labels of models compare theirs with, served or not."""
        found: list[Market] = []
        for status in list(self._statuses.values()):
            if status.manifest is not None:
                rule = status.label_rule
                names = (*status.manifest.references, *(rule.compared_with if rule else ()))
                found += [(symbol, status.manifest.timeframe) for symbol in names]
        return list(dict.fromkeys(found))

    def bars_to_hold(self, market: Market) -> int:
        """How many bars models need of the market, for an answer and for its drift.

        They are its own model and those that compare with it; without one, the bars of one
        bar's features.
        """
        needed = [history_bars(1)]
        for manifest in self._manifests():
            named = (manifest.symbol, *manifest.references)
            if manifest.timeframe == market[1] and market[0] in named:
                warm_up = manifest.features.feature_set.warm_up_bars(manifest.timeframe)
                needed += [manifest.bars_to_load, warm_up + STRETCH_ROWS]
        return max(needed)

    def _manifests(self) -> list[Manifest]:
        return [one.manifest for one in list(self._statuses.values()) if one.manifest is not None]

    def _told(self, market: Market) -> ModelStatus:
        # Taken before the files are read, so that the next look notices a change meanwhile.
        mark = served_mark(self._models_dir, *market)
        status = self._steps.run(market, partial(self._read, market, mark), None)
        if status is not None:
            return status
        problem = self._steps.failure(market)
        return ModelStatus(
            mark, None, self._discretion.content(describe(market, problem)), problem=problem
        )

    def _read(self, market: Market, mark: str | None) -> ModelStatus:
        """Read the served model; without one, return a status that says so.

        Raises:
            InvalidArtifactError: The model exists but is invalid.
        """
        folder = MarketFolder(self._models_dir, *market)
        try:
            manifest = read_manifest(folder, served_folder(folder))
            skill = judged_skill(self._models_dir, manifest)
            learnt = train_rows(self._models_dir, manifest)
        except ModelNotFoundError as error:
            # The action ends with the command that trains a model.
            action = command(error.action, *self._bars_from)
            missing = ModelNotFoundError(*market, error.found, action)
            return ModelStatus(mark, None, self._discretion.content(describe(market, missing)))
        content = self._discretion.content(describe(market, manifest, skill))
        return ModelStatus(mark, manifest, content, learnt, _label_rule(manifest))


class TrustedModel:
    """The model as a source of the chain; it gives no answer if its files are invalid.

    This way, no answer comes from a model that ``/api/models`` calls invalid.

    Args:
        models: Has read every file that it describes, so it knows which models are invalid.
        model: The wrapped source.
    """

    def __init__(self, models: ServedModels, model: SignalSource) -> None:
        self._models = models
        self._model = model

    def prepare(self, markets: Sequence[Bars]) -> None:
        """See ``AsksTogether.prepare``."""
        prepare([self._model], markets)

    def answer(self, market: MarketBars) -> Prediction | Passed:
        """See ``SignalSource.answer``."""
        status = self._models.status((market.asked.symbol, market.asked.timeframe))
        if status is not None and status.problem:
            return Passed(Source.MODEL, "model_invalid", status.problem)
        return self._model.answer(market)


def _label_rule(manifest: Manifest) -> LabelRule | None:
    try:
        return label_rule_from_json(manifest.label_rule)
    except ConfigError:
        # A newer percoin made the rule: predictions are served but never resolved.
        return None


def describe(
    market: Market,
    manifest: Manifest | ModelNotFoundError | str,
    skill: JudgedSkill | None = None,
) -> dict[str, object]:
    """Describe a market's model as a JSON object for ``/api/models``.

    Args:
        market: The model's market.
        manifest: The model's manifest, the error of a missing model, or the problem of an
            invalid one.
        skill: The skill from the model's test; None if it is unknown.
    """
    symbol, timeframe = market
    content: dict[str, object] = {
        "symbol": symbol,
        "tf": timeframe.value,
        "status": "invalid" if isinstance(manifest, str) else "missing",
        "problem": None if isinstance(manifest, Manifest) else str(manifest),
        "version_id": None,
        "model_version": None,
        "created_at": None,
        "verdict": None,
        "reasons": [],
        "refit": None,
        "skill": None,
        "lookback": None,
        "features": None,
        "extra_features": [],
        "label_rule": None,
        "trained_on": None,
    }
    if not isinstance(manifest, Manifest):
        return content
    bars = manifest.bars
    return content | {
        "status": "served",
        "version_id": manifest.version_id,
        "model_version": manifest.model_version,
        "created_at": manifest.created_at,
        "verdict": manifest.gate.verdict.value,
        "reasons": list(manifest.gate.reasons),
        "refit": manifest.refit_text,
        "skill": None if skill is None else asdict(skill),
        "lookback": manifest.lookback,
        "features": manifest.features.definition.value,
        "extra_features": list(manifest.features.feature_set.extra_names),
        "label_rule": dict(manifest.label_rule),
        "trained_on": {
            "bars": bars.origin,
            "n_bars": bars.n_bars,
            "first_open_time": bars.first_open_time,
            "last_open_time": bars.last_open_time,
        },
    }

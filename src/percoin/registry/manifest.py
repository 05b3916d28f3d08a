"""The manifest (``meta.json``): everything needed to load a model and to check it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum

import numpy as np

from percoin import json_codec
from percoin.errors import ConfigError, InvalidArtifactError
from percoin.evaluation.baselines import ALONE, LOGISTIC, MOVES, POOLED_MOVES
from percoin.evaluation.blend import AVERAGE, BLEND, NETWORK, PartSkills
from percoin.evaluation.last_row import InputColumns
from percoin.evaluation.regression import Regression
from percoin.expected_move.inputs import bars_needed
from percoin.features.feature_set import FEATURE_NAMES, FeatureDefinition, FeatureSet
from percoin.features.own import MOST_COLUMNS, MOST_OWN_MEMORY_BARS, OwnFeature
from percoin.features.scaling import Scaling
from percoin.labels import OwnRule, is_relative
from percoin.plugins import PluginSource
from percoin.printable import printable
from percoin.registry.bounds import (
    MOST_FILES,
    MOST_LABEL_BARS,
    MOST_LOOKBACK,
    check_network,
    check_own_network,
    count_weights,
)
from percoin.registry.field_checks import parse_time, require, require_sha256, time_text
from percoin.registry.layout import (
    BEST_WEIGHTS_FILE,
    COMMON_FILES,
    HASHED_FILES,
    MANIFEST_FILE,
    TREE_FILES,
    VERSION_ID_PATTERN,
    trees_file,
)
from percoin.registry.parts import Calibration, Combination, ModelPart, StoredNumbers
from percoin.registry.pool_record import PoolRecord
from percoin.types import CLASS_NAMES, Timeframe, check_symbol

# The newest format. A manifest names the oldest format that can describe its model, so that an
# older percoin still reads what it understands. Format 2 added regressions, blends and pools,
# format 3 extra features, combinations, and models of volatility and of boosted trees, format 4
# models in two stages and code of the user's own, format 5 what compares a market with others, and
# features and labels of the user's own, format 6 models that were fitted again to all rows after
# their judgement, format 7 averages without a network.
FORMAT_VERSION = 7
_FIRST_FORMAT = 1
_SECOND_FORMAT = 2
_THIRD_FORMAT = 3
_FOURTH_FORMAT = 4
_FIFTH_FORMAT = 5
_SIXTH_FORMAT = 6
MODEL_VERSION = "cnn_lstm_v1"
MODEL_KIND = "cnn_lstm"
# A network of the user's own.
OWN_KIND = "own"
LOGISTIC_KIND = LOGISTIC
_NETWORKS = (MODEL_KIND, OWN_KIND)
_KINDS = {
    MODEL_VERSION: MODEL_KIND,
    f"{OWN_KIND}_v1": OWN_KIND,
    **{f"{name}_v1": name for name in (*ALONE, AVERAGE)},
}
VERSIONS = {kind: version for version, kind in _KINDS.items()}
# What a manifest of format 2 calls the parts of a network and a regression averaged.
BLEND_PARTS = (NETWORK, "regression", BLEND)
SPLIT_NAMES = ("train", "val", "test")

_TWIN = "twin"
_HASH_LENGTH = 12
_FILE_NAME_PATTERN = re.compile(r"\w+\.\w+", re.ASCII)
_TRAIN_AGAIN = "train the model again"
# Of the reason in an error: a key may be as long as the file.
_MOST_CHARS_SHOWN = 300


class StoredVerdict(StrEnum):
    """What the gate said of the model."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNTESTABLE = "untestable"
    NOT_JUDGED = "not_judged"


@dataclass(frozen=True)
class DatasetInfo:
    """How many rows the model was trained and judged on; a sample is a window."""

    num_features: int
    train_samples: int
    val_samples: int
    test_samples: int

    def __post_init__(self) -> None:
        require(min(self.train_samples, self.val_samples, self.test_samples) >= 1, "an empty split")


@dataclass(frozen=True)
class TestMetrics:
    """The original's five test figures; rows of the matrix are the true classes."""

    __test__ = False  # the name is the manifest's, not a test's

    accuracy: float
    precision: float
    recall: float
    f1: float
    confusion_matrix: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        scores = (self.accuracy, self.precision, self.recall, self.f1)
        require(min(scores) >= 0 and max(scores) <= 1, "a score outside 0 to 1")
        widths = [len(row) for row in self.confusion_matrix]
        require(widths == [len(CLASS_NAMES)] * len(CLASS_NAMES), "confusion_matrix is not 3 x 3")
        counts = [count for row in self.confusion_matrix for count in row]
        require(min(counts) >= 0, "confusion_matrix has a negative count")


@dataclass(frozen=True)
class Features:
    """Feature names in column order, and which definition and groups they follow.

    Attributes:
        extra: What comes after the 15, by name; None, and not in the text, if nothing does.
        references: The markets that a group compares with; None, and not in the text, without
            such a group.
        own: Those of the user's own in ``extra``: which code, and what was measured.
    """

    definition: FeatureDefinition
    names: tuple[str, ...] = FEATURE_NAMES
    extra: tuple[str, ...] | None = None
    references: tuple[str, ...] | None = None
    own: tuple[OwnFeature, ...] | None = None

    def __post_init__(self) -> None:
        require(self.extra != (), "extra is an empty list")
        require(self.references != (), "references is an empty list")
        require(self.own != (), "own is an empty list")
        for feature in self.own or ():
            require(feature.label in (self.extra or ()), f"{feature.label} is not in extra")
            memory_bars = feature.memory_bars
            is_known = memory_bars is not None and 0 <= memory_bars <= MOST_OWN_MEMORY_BARS
            require(is_known, f"memory_bars of {feature.label} is {memory_bars}")
            require(len(feature.columns) <= MOST_COLUMNS, f"{feature.label} has too many columns")
        _ = self.feature_set

    @property
    def feature_set(self) -> FeatureSet:
        """What the features are computed with."""
        own = {feature.label: feature for feature in self.own or ()}
        extra = tuple(own.get(name, name) for name in self.extra or ())
        return FeatureSet(self.definition, extra, self.references or ())

    @classmethod
    def of(cls, feature_set: FeatureSet, timeframe: Timeframe) -> Features:
        """Describe the features of a model of one bar length."""
        return cls(
            feature_set.definition,
            feature_set.names(timeframe),
            feature_set.extra_names or None,
            feature_set.references or None,
            feature_set.own or None,
        )


@dataclass(frozen=True)
class ScalingNumbers:
    """The fitted ``Scaling`` as a manifest keeps it, one entry per feature."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = (len(self.mean), len(self.scale))
        require(
            lengths[0] == lengths[1] >= len(FEATURE_NAMES), f"mean and scale have {lengths} entries"
        )
        require(min(self.scale) > 0, "a scale is not positive")

    @classmethod
    def of(cls, scaling: Scaling) -> ScalingNumbers:
        """Take over a fitted scaling."""
        return cls(tuple(scaling.mean_.tolist()), tuple(scaling.scale_.tolist()))

    def fitted(self) -> Scaling:
        """The same scaling, bit for bit."""
        return Scaling(np.array(self.mean), np.array(self.scale))


@dataclass(frozen=True)
class Blend:
    """How the network's probabilities are averaged with those of the manifest's regression.

    Attributes:
        network_weight: The network's share; the regression has the rest.
        calibration: The regression's; the manifest's own is the network's.
        skills: Of ``network``, ``regression`` and ``blend``, each calibrated.

    Only of models of format 2: a network and one regression on its features. ``Combination``
    describes every other average.
    """

    network_weight: float
    calibration: Calibration
    skills: Mapping[str, PartSkills]

    def __post_init__(self) -> None:
        require(0 <= self.network_weight <= 1, "network_weight is not between 0 and 1")
        require(set(self.skills) == set(BLEND_PARTS), f"skills are not of {', '.join(BLEND_PARTS)}")


@dataclass(frozen=True)
class Gate:
    """The verdict and its reasons, each a phrase for people."""

    verdict: StoredVerdict
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refit:
    """What is served was fitted again to all rows; every figure is of its judged twin.

    Scaling, network and the other parts of the served model are those of the refit. Label rule,
    calibrations, weights of a blend, threshold and expected move are the twin's, because no rows
    are left to choose them on.

    Attributes:
        rows: On how many rows.
        first_open_time: Of the first of them (UTC).
        last_open_time: Of the last; later ones had no known label.
        epochs: Of the network, as many as the twin's best checkpoint had; None without one.
        twin_scaling: With which the twin was judged.
        twin_sha256: By part. A network's weights lie in ``cnn_lstm_best.pth``; of the other
            parts it is the hash of their numbers as JSON.
        figures_of: Whose the figures of the manifest and of ``metrics.json`` are.
    """

    rows: int
    first_open_time: str
    last_open_time: str
    epochs: int | None
    twin_scaling: ScalingNumbers
    twin_sha256: Mapping[str, str]
    figures_of: str = _TWIN

    def __post_init__(self) -> None:
        first, last = parse_time(self.first_open_time), parse_time(self.last_open_time)
        require(first <= last, "the refit ends before it begins")
        require(self.rows >= 1, "the refit has no rows")
        require(self.epochs is None or self.epochs >= 0, "the refit has less than no epochs")
        require(self.figures_of == _TWIN, f"figures_of is {self.figures_of!r:.60}, not {_TWIN}")
        for name, digest in self.twin_sha256.items():
            require_sha256(digest, f"the twin of {name:.60} has no sha256")


@dataclass(frozen=True)
class SplitSpan:
    """One split: open times of its first and last bar (UTC), and its labelled rows."""

    first: str
    last: str
    rows: int

    def __post_init__(self) -> None:
        require(parse_time(self.first) <= parse_time(self.last), "last lies before first")
        require(self.rows >= 1, "rows is not positive")


@dataclass(frozen=True)
class BarsInfo:
    """The bars the model was made from; ``sha256`` is ``Bars.sha256()``.

    Attributes:
        references: ``MarketPanel.sha256`` of each market that the features compare with, over
            the time of these bars; None, and not in the text, without such features.
    """

    origin: str
    sha256: str
    first_open_time: str
    last_open_time: str
    n_bars: int
    splits: Mapping[str, SplitSpan]
    references: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        require_sha256(self.sha256)
        for sha256 in (self.references or {}).values():
            require_sha256(sha256)
        require(self.n_bars >= 1, "n_bars is not positive")
        require(set(self.splits) == set(SPLIT_NAMES), "splits are not train, val and test")
        times = [self.first_open_time]
        for name in SPLIT_NAMES:
            times += [self.splits[name].first, self.splits[name].last]
        times.append(self.last_open_time)
        moments = [parse_time(text) for text in times]
        require(moments == sorted(moments), "the splits are not in time order within the bars")


@dataclass(frozen=True)
class ModelSpec:
    """The kind of model, and the keyword arguments of its network, if it has one.

    Attributes:
        kwargs: Of a network of the user's own those that its settings give.
        kind: What it is.
        source: The code of a network of the user's own.
        n_weights: Numbers in the parameters and buffers of such a network.
    """

    kwargs: Mapping[str, object]
    kind: str = MODEL_KIND
    source: PluginSource | None = None
    n_weights: int | None = None

    def __post_init__(self) -> None:
        require(self.kind in _KINDS.values(), f"kind {self.kind!r} is unknown")
        require(self.kind in _NETWORKS or not self.kwargs, f"kwargs are not of a {self.kind}")
        is_own = (self.source is not None, self.n_weights is not None)
        require(is_own == (self.kind == OWN_KIND,) * 2, f"source or n_weights of a {self.kind}")
        if self.source is not None:
            require_sha256(self.source.sha256, "the source of the network has no sha256")


@dataclass(frozen=True, kw_only=True)
class ManifestDraft:
    """What a training knows about its model before the files are written.

    The first keys are those of the original system, under its names.

    Attributes:
        lookback: Window length in bars.
        label_rule: ``kind`` and the numbers that define the label.
        config: The whole training config, as plain containers.
        libraries: Version by library name.
        machine: What else the bits of a training depend on, such as the number of
            threads; None in older manifests.
        pool: Set for a network that was trained on many markets.
        regression: Set for a regression, and for a blend with one.
        blend: Set for a network that is averaged with ``regression``.
        combination: Set for an average of forecasters, with a network or without.
        last_row: Set for a model without a network, unless it is a regression on the features or
            an average.
        sources: The user's own code that a training needs and a prediction does not, by the
            group of the setting that names it.
        refit: Set for a model that was fitted again to all rows after its judgement.
    """

    symbol: str
    timeframe: Timeframe
    model_version: str = MODEL_VERSION
    lookback: int
    num_features: int = len(FEATURE_NAMES)
    dataset_info: DatasetInfo
    test_metrics: TestMetrics
    class_order: tuple[str, ...] = CLASS_NAMES
    features: Features
    scaling: ScalingNumbers
    label_rule: Mapping[str, object]
    calibration: Calibration
    gate: Gate
    bars: BarsInfo
    model: ModelSpec
    config: Mapping[str, object]
    seed: int
    code_version: str
    libraries: Mapping[str, str]
    machine: Mapping[str, str] | None = None
    pool: PoolRecord | None = None
    regression: Regression | None = None
    blend: Blend | None = None
    combination: Combination | None = None
    last_row: StoredNumbers | None = None
    sources: Mapping[str, PluginSource] | None = None
    refit: Refit | None = None

    def __post_init__(self) -> None:
        check_symbol(self.symbol)
        require(self.model_version in _KINDS, f"model_version {self.model_version!r} is unknown")
        kind = self.model.kind
        require(
            _KINDS[self.model_version] == kind, f"model_version is {self.model_version} of a {kind}"
        )
        self._check_parts()
        require(self.lookback >= 1, f"lookback {self.lookback} is not positive")
        require(self.lookback <= MOST_LOOKBACK, f"lookback {self.lookback} is no number of bars")
        self._check_features()
        self._check_refit()
        require(self.class_order == CLASS_NAMES, f"class_order is {self.class_order}")
        require(isinstance(self.label_rule.get("kind"), str), "label_rule has no kind")
        for name, value in self.label_rule.items():
            is_beyond = isinstance(value, int | float) and abs(value) > MOST_LABEL_BARS
            require(not is_beyond, f"label_rule.{name} is {value!r:.60}, beyond {MOST_LABEL_BARS}")
        judged = sum(sum(row) for row in self.test_metrics.confusion_matrix)
        require(
            judged == self.dataset_info.test_samples,
            f"confusion_matrix counts {judged} of {self.dataset_info.test_samples} test samples",
        )

    @property
    def has_network(self) -> bool:
        """Whether the model has weights in files of its own."""
        return self.model.kind in _NETWORKS

    @property
    def n_weights(self) -> int:
        """How many numbers the network has."""
        if self.model.n_weights is not None:
            return self.model.n_weights
        return count_weights(self.model.kwargs, self.num_features)

    @property
    def judged_scaling(self) -> ScalingNumbers:
        """The scaling that was fitted to train rows alone; a refit is served with another."""
        return self.scaling if self.refit is None else self.refit.twin_scaling

    @property
    def last_known(self) -> str:
        """Open time of the newest bar that the served model was made from (UTC).

        A network that was fitted again to all rows of a pool knows those of every market.
        """
        times = [self.bars.last_open_time]
        if self.refit is not None and self.pool is not None:
            times += [self.pool.markets[symbol].last_open_time for symbol in self.pool.seen]
        return max(times, key=parse_time)

    @property
    def known_until(self) -> datetime:
        """When the newest bar closed that the served model was made from."""
        return parse_time(self.last_known) + self.timeframe.timedelta

    @property
    def refit_text(self) -> str | None:
        """For people, wherever figures are shown; None without a refit."""
        if self.refit is None:
            return None
        test = self.bars.splits["test"]
        return (
            f"refit on all rows until {self.refit.last_open_time[:10]}; figures are of its twin "
            f"judged on {test.first[:10]} to {test.last[:10]}"
        )

    @property
    def references(self) -> tuple[str, ...]:
        """The markets whose bars a prediction takes beside those of its own; most take none."""
        return self.features.references or ()

    @property
    def history_bars(self) -> int:
        """How many bars one prediction needs so that its inputs equal training's."""
        numbers = (part.numbers for part in self.parts.values())
        memories = (n.columns.memory_bars(self.timeframe) for n in numbers if n is not None)
        own = self.features.feature_set.history_bars(self.lookback, self.timeframe)
        return max([own, *(memory + 1 for memory in memories)])

    @property
    def bars_to_load(self) -> int:
        """How many bars a caller loads: ``history_bars``, and what the expected move looks back at.

        With fewer a prediction is as good and its expected move unknown, as on 5m, where a week
        has more bars than the features look back at.
        """
        return max(self.history_bars, bars_needed(self.timeframe))

    @property
    def parts(self) -> Mapping[str, ModelPart]:
        """The forecasters that the model asks, by name; the network comes first."""
        regression = self.regression
        if self.combination is not None:
            return {
                name: ModelPart(part.weight, part.calibration, part.numbers)
                for name, part in self.combination.parts.items()
                if name == NETWORK or part.weight > 0
            }
        beside = None if regression is None else StoredNumbers(InputColumns.FEATURES, regression)
        if not self.has_network:
            return {self.model.kind: ModelPart(1.0, self.calibration, self.last_row or beside)}
        if self.blend is None:
            return {NETWORK: ModelPart(1.0, self.calibration)}
        weight = self.blend.network_weight
        return {
            NETWORK: ModelPart(weight, self.calibration),
            LOGISTIC: ModelPart(1 - weight, self.blend.calibration, beside),
        }

    @property
    def weights(self) -> Mapping[str, float]:
        """The weight of each part, those without weight included; empty if there is one part."""
        if self.combination is not None:
            return {name: part.weight for name, part in self.combination.parts.items()}
        parts = self.parts
        return {name: part.weight for name, part in parts.items()} if len(parts) > 1 else {}

    @property
    def part_skills(self) -> Mapping[str, PartSkills]:
        """The skill of each part and of their average; empty if there is one part."""
        if self.combination is not None:
            parts = self.combination.parts.items()
            return {name: part.skills for name, part in parts} | {BLEND: self.combination.skills}
        if self.blend is None:
            return {}
        names = (NETWORK, LOGISTIC, BLEND)
        skills = (self.blend.skills[part] for part in BLEND_PARTS)
        return dict(zip(names, skills, strict=True))

    @property
    def tree_files(self) -> tuple[str, ...]:
        """The files of boosted trees that the model needs."""
        numbers = [part.numbers for part in self.parts.values()]
        return tuple(entry.trees for entry in numbers if entry is not None and entry.trees)

    def _check_features(self) -> None:
        feature_set = self.features.feature_set
        expected = feature_set.names(self.timeframe)
        is_same = set(self.bars.references or ()) == set(feature_set.references)
        require(is_same, "references of bars and features do not agree")
        is_same = self.features.names == expected
        require(is_same, "names are not the features of this percoin")
        counts = (self.num_features, self.dataset_info.num_features)
        require(counts == (len(expected),) * 2, f"num_features is {counts}, not {len(expected)}")
        n_scaled = len(self.scaling.mean)
        require(n_scaled == len(expected), f"scaling has {n_scaled} entries, not {len(expected)}")
        if self.model.n_weights is None:
            check_network(self.model.kwargs, len(expected))
        else:
            check_own_network(self.model.kwargs, self.model.n_weights)

    def _check_refit(self) -> None:
        if self.refit is None:
            return
        n_scaled = len(self.refit.twin_scaling.mean)
        require(n_scaled == self.num_features, f"the twin's scaling has {n_scaled} entries")
        has_epochs = self.refit.epochs is not None
        require(has_epochs == self.has_network, "the refit and the model do not agree on a network")
        bars = self.bars
        times = (
            *(bars.first_open_time, self.refit.first_open_time),
            *(bars.splits["test"].last, self.refit.last_open_time, bars.last_open_time),
        )
        moments = [parse_time(text) for text in times]
        require(moments == sorted(moments), "the refit does not reach over the test rows")

    def _check_parts(self) -> None:
        kind, further = self.model.kind, (self.blend, self.combination)
        is_average = kind == AVERAGE
        is_blended = self.has_network or is_average
        require(is_blended or further == (None, None), f"a {kind} has nothing to blend with")
        require(None in further, "a blend and a combination at once")
        require(not is_average or self.combination is not None, "an average has no combination")
        if self.combination is not None:
            is_its = (NETWORK in self.combination.parts) == self.has_network
            require(is_its, f"the parts are not of a model of the kind {kind}")
        is_needed = kind == LOGISTIC_KIND or self.blend is not None
        require(is_needed == (self.regression is not None), "regression and model do not agree")
        is_needed = not (is_blended or kind == LOGISTIC_KIND)
        require(is_needed == (self.last_row is not None), "last_row and model do not agree")
        trees = None if self.last_row is None else self.last_row.trees
        require(trees in (None, trees_file(kind)), f"the trees of a {kind} lie in {trees!r:.60}")
        for name, part in self.parts.items():
            if part.numbers is not None:
                part.numbers.check_columns(name, self.timeframe, self.num_features)

    def seal(
        self, created_at: datetime, files: Mapping[str, str], revised_from: str | None = None
    ) -> Manifest:
        """Name the version by its time and by a hash over the whole manifest.

        Args:
            created_at: Moment of the export, with its zone.
            files: sha256 by file name.
            revised_from: The version whose files these are, if its verdict was revised.

        Raises:
            ValueError: A manifest cannot hold what the draft says.
        """
        moment = created_at.astimezone(UTC)
        stamp = f"{moment:%Y%m%dT%H%M%S%f}Z"
        unsealed = f"{stamp}-{'0' * _HASH_LENGTH}"
        entries = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        draft = Manifest(
            **entries,
            created_at=time_text(moment),
            files=files,
            version_id=unsealed,
            format_version=_format_for(self),
            revised_from=revised_from,
        )
        sealed = draft.to_json().replace(unsealed, _sealed_id(draft.to_json(), unsealed))
        return _decode(json_codec.loads(sealed))


@dataclass(frozen=True, kw_only=True)
class Manifest(ManifestDraft):
    """The description of one exported version.

    Attributes:
        created_at: Moment of the export (UTC).
        files: sha256 of every other file of the version, by name.
        version_id: Sorts by time. Its last part is a hash over the whole text of
            the manifest, so that a changed manifest is as visible as a changed file.
        format_version: Raised with every change that an older percoin would misread.
        revised_from: The version with the same files and the verdict before the revision;
            None, and not in the text, for a trained one.
    """

    created_at: str
    files: Mapping[str, str]
    version_id: str
    format_version: int = FORMAT_VERSION
    revised_from: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_time(self.created_at)
        require(VERSION_ID_PATTERN.fullmatch(self.version_id) is not None, "version_id is none")
        origin = self.revised_from
        is_version = origin is None or VERSION_ID_PATTERN.fullmatch(origin) is not None
        require(is_version, "revised_from names no version")
        require(self.format_version == _format_for(self), f"format version {self.format_version}")
        needed = (*(HASHED_FILES if self.has_network else COMMON_FILES), *self.tree_files)
        missing = [name for name in needed if name not in self.files]
        require(not missing, f"files does not list {missing[:1]}")
        if self.refit is not None and self.has_network:
            twin = self.refit.twin_sha256.get(NETWORK)
            is_twin = self.files[BEST_WEIGHTS_FILE] == twin
            require(is_twin, f"{BEST_WEIGHTS_FILE} does not hold the judged twin")
        further = [
            name
            for name in self.files
            if name not in needed and (not self.has_network or name in TREE_FILES)
        ]
        require(not further, f"files lists {further[:1]}, which is not of a {self.model.kind}")
        require(len(self.files) <= MOST_FILES, f"files lists {len(self.files)} files")
        for name, sha256 in self.files.items():
            require(
                _FILE_NAME_PATTERN.fullmatch(name) is not None and name != MANIFEST_FILE,
                f"files lists {name!r}, which is no file of a version",
            )
            require_sha256(sha256, f"{name} has no sha256")

    def revised(self, gate: Gate, created_at: datetime) -> Manifest:
        """The same model and the same files under another verdict: a version of its own."""
        entries = {entry.name: getattr(self, entry.name) for entry in fields(ManifestDraft)}
        draft = ManifestDraft(**entries | {"gate": gate})
        return draft.seal(created_at, self.files, revised_from=self.version_id)

    def to_json(self) -> str:
        """The text of ``meta.json``."""
        return json_codec.dumps(self)

    @classmethod
    def from_json(cls, text: str, symbol: str, timeframe: Timeframe) -> Manifest:
        """Read and check the manifest of one market.

        Raises:
            InvalidArtifactError: Not a manifest, changed since it was written, of
                another market, or of a newer format.
        """

        def refusal(found: str, action: str = _TRAIN_AGAIN) -> InvalidArtifactError:
            shown = printable(f"{MANIFEST_FILE}: {found}", _MOST_CHARS_SHOWN)
            return InvalidArtifactError(symbol, timeframe, shown, action)

        try:
            content = json_codec.loads(text)
            newer = _newer_format(content)
            if newer is not None:
                found = f"format version {newer} is newer than {FORMAT_VERSION}"
                raise refusal(found, "upgrade percoin or train the model again")
            manifest = _decode(content)
        except (ValueError, ConfigError) as error:
            raise refusal(str(error)) from error
        if (manifest.symbol, manifest.timeframe) != (symbol, timeframe):
            raise refusal(f"it belongs to {manifest.symbol} {manifest.timeframe}")
        if _sealed_id(text, manifest.version_id) != manifest.version_id:
            raise refusal("it was changed after the export")
        return manifest


def _format_for(draft: ManifestDraft) -> int:
    """The oldest format that can describe the model."""
    if draft.model.kind == AVERAGE:
        return FORMAT_VERSION
    if draft.refit is not None:
        return _SIXTH_FORMAT
    has_code = draft.features.own is not None or draft.label_rule["kind"] == OwnRule.kind
    if has_code or draft.features.references is not None or is_relative(draft.label_rule):
        return _FIFTH_FORMAT
    combined = {} if draft.combination is None else draft.combination.parts
    numbers = (draft.last_row, *(part.numbers for part in combined.values()))
    has_moves = MOVES in combined or POOLED_MOVES in combined or any(n and n.ridge for n in numbers)
    if has_moves or draft.model.source is not None or draft.sources is not None:
        return _FOURTH_FORMAT
    parts = (draft.features.extra, draft.combination, draft.last_row)
    if any(part is not None for part in parts):
        return _THIRD_FORMAT
    is_plain = draft.regression is None and draft.pool is None
    return _FIRST_FORMAT if is_plain else _SECOND_FORMAT


def _decode(content: object) -> Manifest:
    return json_codec.decode(Manifest, content)


def _newer_format(content: object) -> int | None:
    version = content.get("format_version") if isinstance(content, dict) else None
    return version if isinstance(version, int) and version > FORMAT_VERSION else None


def _sealed_id(text: str, version_id: str) -> str:
    """The id that ``text`` must have: its hash is taken with zeros in the place of the id's."""
    stamp = version_id.rpartition("-")[0]
    unsealed = text.replace(version_id, f"{stamp}-{'0' * _HASH_LENGTH}")
    return f"{stamp}-{hashlib.sha256(unsealed.encode()).hexdigest()[:_HASH_LENGTH]}"

"""From a trained model to its files, and back; loading runs no code from them.

torch is imported only where weights are read or written: a prediction by ONNX Runtime needs no
torch.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from percoin.bars.schema import is_simulated
from percoin.errors import InvalidArtifactError, ModelNotFoundError, UnreadableArtifactError
from percoin.evaluation.metrics import N_CLASSES
from percoin.evaluation.trees import Trees
from percoin.expected_move.judging import JudgedMoveModel
from percoin.expected_move.model import MoveModel
from percoin.printable import printable
from percoin.registry import publish
from percoin.registry.contents import (
    check_hashes,
    parse_manifest,
    parse_metrics,
    read_files,
    read_manifest,
    read_section,
    sha256,
)
from percoin.registry.history import Action
from percoin.registry.layout import (
    BEST_WEIGHTS_FILE,
    EXPECTED_MOVE,
    MANIFEST_FILE,
    METRICS_FILE,
    ONNX_FILE,
    SCALER_FILE,
    SERVED_WEIGHTS_FILE,
    WEIGHT_FILES,
    MarketFolder,
)
from percoin.registry.manifest import Manifest, ManifestDraft, StoredVerdict
from percoin.registry.training_record import TrainingRecord
from percoin.types import Timeframe

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

# Readable by every Python that other tools may run.
_PICKLE_PROTOCOL = 4
# Of the reason in an error.
_MOST_CHARS_SHOWN = 300


@dataclass(frozen=True)
class Artifact:
    """A loaded model: its manifest, its served weights, and the version they lie in.

    Attributes:
        state_dict: Served weights; empty without a network.
        trees: Boosted trees of the model's parts, by the name of their file.
        move: Forecasts how far the price moves; older versions have none.
        judged: The weights that the figures are of: others than the served ones after a refit.
            Only of a version that was read by its name or folder.
    """

    manifest: Manifest
    state_dict: dict[str, Tensor]
    folder: Path
    trees: Mapping[str, Trees] = field(default_factory=dict)
    move: MoveModel | None = None
    judged: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class OnnxArtifact:
    """A loaded model for ONNX Runtime: its manifest, its network, the version they lie in.

    Attributes:
        network: Empty without a network.
        trees: Boosted trees of the model's parts, by the name of their file.
        move: Forecasts how far the price moves; older versions have none.
    """

    manifest: Manifest
    network: bytes
    folder: Path
    trees: Mapping[str, Trees] = field(default_factory=dict)
    move: MoveModel | None = None


@dataclass(frozen=True)
class Exported:
    """A new version: the folder it lies in, and whether it is the one that is served."""

    folder: Path
    is_served: bool


def export_artifact(
    root: Path,
    draft: ManifestDraft,
    best_state_dict: Mapping[str, Tensor],
    served_state_dict: Mapping[str, Tensor],
    record: TrainingRecord,
    onnx: bytes | None = None,
    trees: Mapping[str, Trees] | None = None,
) -> Exported:
    """Write a model as a new version, and serve it unless the served one must stay.

    An accepted version stays served when the new one is not accepted, and one of real
    bars when the new one is of simulated bars; the new one is then kept in the history.

    Args:
        root: The models folder.
        draft: The content of the manifest.
        best_state_dict: Weights of the best validation epoch, which were judged; empty of a
            model without a network.
        served_state_dict: Weights that predictions are made with: the same, or those of a
            refit; empty likewise.
        record: History and evaluation.
        onnx: The network once more, with its served weights, for ONNX Runtime.
        trees: Boosted trees of the model's parts, by the name of their file.

    Raises:
        RegistryWriteError: The models folder refuses it; the old version stays.
        InvalidArtifactError: The model itself is not fit to be loaded again, for
            example a weight is not finite; the old version stays.
    """
    market = MarketFolder(root, draft.symbol, draft.timeframe)
    created_at = datetime.now(UTC)
    weights = {BEST_WEIGHTS_FILE: best_state_dict, SERVED_WEIGHTS_FILE: served_state_dict}
    files = {
        **(_save_all(weights) if draft.has_network else {}),
        SCALER_FILE: _save_scaler(draft),
        METRICS_FILE: record.to_json(draft, created_at).encode(),
        **({} if onnx is None else {ONNX_FILE: onnx}),
        **{name: entry.to_json().encode() for name, entry in (trees or {}).items()},
    }
    manifest = draft.seal(created_at, {name: sha256(content) for name, content in files.items()})
    files[MANIFEST_FILE] = manifest.to_json().encode()
    # A version that cannot be loaded must not replace one that can.
    _verified(market, files)
    version_id = manifest.version_id

    def decide() -> publish.Change:
        serve = version_id if _may_replace(market, manifest) else None
        why = f"trained; the gate says {manifest.gate.verdict.value}"
        return publish.Change(Action.EXPORT, (version_id,), why, serve)

    folder = publish.publish_version(market, version_id, files, decide)
    return Exported(folder, is_served=publish.served_id(market) == version_id)


def load_artifact(root: Path, symbol: str, timeframe: Timeframe) -> Artifact:
    """Load the served model of a market, all files checked against the manifest.

    Raises:
        ModelNotFoundError: No model has been exported for the market.
        InvalidArtifactError: A file is missing, changed, of another market, of a
            newer format, or outside the version's folder.
    """
    market = MarketFolder(root, symbol, timeframe)
    return _with_weights(market, *_read_served(market))


def load_onnx(root: Path, symbol: str, timeframe: Timeframe) -> OnnxArtifact:
    """Load the served model of a market for ONNX Runtime, without torch.

    Every file is checked against the manifest, also those that are not used here.

    Raises:
        ModelNotFoundError: No model has been exported for the market, or its network not as
            ONNX.
        InvalidArtifactError: As ``load_artifact``.
    """
    market = MarketFolder(root, symbol, timeframe)
    manifest, files, folder = _read_served(market)
    if manifest.has_network and ONNX_FILE not in files:
        raise ModelNotFoundError(
            market.symbol,
            market.timeframe,
            f"version {manifest.version_id} holds no {ONNX_FILE}",
            "train with export.onnx=true, or predict with predictor=torch",
        )
    return _without_torch(market, manifest, files, folder)


def load_fastest(root: Path, symbol: str, timeframe: Timeframe) -> Artifact | OnnxArtifact:
    """Load the served model for ONNX Runtime if its network lies there as ONNX, else with weights.

    Raises:
        ModelNotFoundError: No model has been exported for the market.
        InvalidArtifactError: As ``load_artifact``.
    """
    market = MarketFolder(root, symbol, timeframe)
    manifest, files, folder = _read_served(market)
    needs_torch = manifest.has_network and ONNX_FILE not in files
    read = _with_weights if needs_torch else _without_torch
    return read(market, manifest, files, folder)


def _with_weights(
    market: MarketFolder, manifest: Manifest, files: Mapping[str, bytes], folder: Path
) -> Artifact:
    weights = _load_all(market, manifest, files, (SERVED_WEIGHTS_FILE,))
    trees = _load_trees(market, manifest, files)
    _log_loaded(manifest)
    move = _move_of(market, manifest, files)
    return Artifact(manifest, weights.get(SERVED_WEIGHTS_FILE, {}), folder, trees, move)


def _without_torch(
    market: MarketFolder, manifest: Manifest, files: Mapping[str, bytes], folder: Path
) -> OnnxArtifact:
    trees = _load_trees(market, manifest, files)
    _log_loaded(manifest)
    move = _move_of(market, manifest, files)
    return OnnxArtifact(manifest, files.get(ONNX_FILE, b""), folder, trees, move)


def served_mark(root: Path, symbol: str, timeframe: Timeframe) -> str | None:
    """A mark that changes whenever another version is served; it costs one ``readlink``.

    The version's id; for a plain folder in the link's place the time when its manifest was
    written. None if nothing is served or nothing can be read.
    """
    market = MarketFolder(root, symbol, timeframe)
    try:
        version_id = publish.served_id(market)
        if version_id is not None:
            return version_id
        status = (market.link / MANIFEST_FILE).stat()
    except (OSError, UnreadableArtifactError):
        return None
    return f"{status.st_ino} {status.st_mtime_ns}"


def _read_served(market: MarketFolder) -> tuple[Manifest, dict[str, bytes], Path]:
    while True:
        folder = publish.served_folder(market)
        try:
            manifest = read_manifest(market, folder)
            log.info("Loaded metadata: %s %s", market.symbol, market.timeframe.value)
            return manifest, read_files(market, folder, manifest), folder
        except InvalidArtifactError:
            # Another version may have been served meanwhile, and this one removed.
            if publish.served_folder(market) == folder:
                raise


def _log_loaded(manifest: Manifest) -> None:
    symbol, timeframe = manifest.symbol, manifest.timeframe.value
    log.info("Loaded model: %s %s (features=%d)", symbol, timeframe, manifest.num_features)
    # The scaler that counts is in the manifest; the pickle is for other tools.
    log.info("Loaded scaler: %s %s", symbol, timeframe)


def load_version(market: MarketFolder, version_id: str) -> Artifact:
    """Load one version, served or not; its other weights are checked too.

    Raises:
        InvalidArtifactError: It is not there, or cannot be loaded.
    """
    return read_artifact(market, publish.version_folder(market, version_id))


def read_artifact(market: MarketFolder, folder: Path) -> Artifact:
    """Load the version in a folder, wherever it lies.

    Raises:
        InvalidArtifactError: It cannot be loaded.
    """
    manifest = read_manifest(market, folder)
    files = read_files(market, folder, manifest)
    weights = _load_all(market, manifest, files)
    trees = _load_trees(market, manifest, files)
    move = _move_of(market, manifest, files)
    served, judged = (weights.get(n, {}) for n in (SERVED_WEIGHTS_FILE, BEST_WEIGHTS_FILE))
    return Artifact(manifest, served, folder, trees, move, judged)


def _move_of(
    market: MarketFolder, manifest: Manifest, files: Mapping[str, bytes]
) -> MoveModel | None:
    """The forecast of the expected move; None in older versions, or if it cannot be read."""
    try:
        sections = parse_metrics(market, files[METRICS_FILE])
    except InvalidArtifactError:
        # The classifier is intact, so it answers.
        return None
    judged = read_section(JudgedMoveModel, sections, EXPECTED_MOVE)
    if judged is None or not judged.model.fits(manifest.timeframe):
        return None
    beside = judged.model.range_forecast
    if beside is not None:
        part = manifest.parts.get(beside.part)
        if part is None or not part.forecasts_range:
            return None
    return judged.model


def _may_replace(market: MarketFolder, new: Manifest) -> bool:
    """Whether a new version may take the place of the served one, if that can be loaded.

    Only an accepted version replaces an accepted one, and a model of simulated bars never
    replaces one of real bars. If the served version cannot be read now, only an accepted one
    takes its place.
    """
    accepted = StoredVerdict.ACCEPTED
    try:
        served = read_manifest(market, publish.served_folder(market))
    except UnreadableArtifactError as error:
        return new.gate.verdict is accepted or isinstance(error.__cause__, FileNotFoundError)
    except (ModelNotFoundError, InvalidArtifactError):
        return True
    if is_simulated(new.bars.origin) and not is_simulated(served.bars.origin):
        return False
    return new.gate.verdict is accepted or served.gate.verdict is not accepted


def check_writable(root: Path, symbol: str, timeframe: Timeframe) -> None:
    """Check before a training whether its model can be exported afterwards.

    Raises:
        RegistryWriteError: The models folder would refuse the export.
    """
    publish.check_writable(MarketFolder(root, symbol, timeframe))


def _verified(market: MarketFolder, files: Mapping[str, bytes]) -> None:
    manifest = parse_manifest(market, files[MANIFEST_FILE])
    check_hashes(market, manifest, files)
    _load_all(market, manifest, files)
    _load_trees(market, manifest, files)


def _save_all(weights: Mapping[str, Mapping[str, Tensor]]) -> dict[str, bytes]:
    from percoin.registry.weights import save_weights

    return {name: save_weights(state_dict) for name, state_dict in weights.items()}


def _load_all(
    market: MarketFolder,
    manifest: Manifest,
    files: Mapping[str, bytes],
    names: Sequence[str] = WEIGHT_FILES,
) -> dict[str, dict[str, Tensor]]:
    """The weights by the names of their files; none of a model without a network."""
    if not manifest.has_network:
        return {}
    from percoin.registry.weights import load_weights

    return {name: load_weights(market, name, files[name]) for name in names}


def _load_trees(
    market: MarketFolder, manifest: Manifest, files: Mapping[str, bytes]
) -> dict[str, Trees]:
    """The boosted trees of a model's parts, by the name of their file."""
    found = {}
    for part in manifest.parts.values():
        name = None if part.numbers is None else part.numbers.trees
        if part.numbers is None or name is None:
            continue
        try:
            found[name] = Trees.from_json(files[name])
            expected = part.numbers.columns.n_columns(manifest.timeframe, manifest.num_features)
            if found[name].n_columns != expected:
                raise ValueError(f"it takes {found[name].n_columns} columns, not {expected}")
            expected = N_CLASSES if part.numbers.ridge is None else 1
            if found[name].n_sums != expected:
                raise ValueError(f"its trees add up to {found[name].n_sums} sums, not {expected}")
        except ValueError as error:
            reason = printable(f"{name} cannot be used: {error}", _MOST_CHARS_SHOWN)
            action = "train the model again"
            raise InvalidArtifactError(market.symbol, market.timeframe, reason, action) from error
    return found


def _save_scaler(draft: ManifestDraft) -> bytes:
    """Pickle the scikit-learn scaler that other tools expect; percoin never reads it."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    scaler.mean_ = np.array(draft.scaling.mean)
    scaler.scale_ = np.array(draft.scaling.scale)
    scaler.var_ = scaler.scale_**2
    fitted_on = draft.bars.splits["train"] if draft.refit is None else draft.refit
    scaler.n_samples_seen_ = fitted_on.rows
    scaler.n_features_in_ = len(draft.features.names)
    scaler.feature_names_in_ = np.array(draft.features.names, dtype=object)
    return pickle.dumps(scaler, protocol=_PICKLE_PROTOCOL)

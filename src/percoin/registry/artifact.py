"""From a trained model to its five files, and back; loading runs no code from them."""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from percoin.bars.schema import is_simulated
from percoin.errors import InvalidArtifactError, ModelNotFoundError
from percoin.registry import publish
from percoin.registry.contents import (
    check_hashes,
    parse_manifest,
    read_files,
    read_manifest,
    sha256,
)
from percoin.registry.history import Action
from percoin.registry.layout import (
    BEST_WEIGHTS_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    SCALER_FILE,
    SERVED_WEIGHTS_FILE,
    MarketFolder,
)
from percoin.registry.manifest import Manifest, ManifestDraft, Verdict
from percoin.registry.training_record import TrainingRecord
from percoin.types import Timeframe

log = logging.getLogger(__name__)

# Readable by every Python that other tools may run.
_PICKLE_PROTOCOL = 4

_WEIGHT_TYPES = {torch.float32, torch.float64, torch.int64}


@dataclass(frozen=True)
class Artifact:
    """A loaded model: its manifest, its served weights, and the version they lie in."""

    manifest: Manifest
    state_dict: dict[str, Tensor]
    folder: Path


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
) -> Exported:
    """Write a model as a new version, and serve it unless the served one is to be preferred.

    An accepted version stays served when the new one is not accepted, and one of real
    bars when the new one is of simulated bars; the new one is then kept in the history.

    Args:
        root: The models folder.
        draft: What the manifest shall say.
        best_state_dict: Weights of the best validation epoch.
        served_state_dict: Weights that predictions are made with.
        record: History and evaluation.

    Raises:
        RegistryWriteError: The models folder refuses it; the old version stays.
        InvalidArtifactError: The model itself is not fit to be loaded again, for
            example a weight is not finite; the old version stays.
    """
    market = MarketFolder(root, draft.symbol, draft.timeframe)
    created_at = datetime.now(UTC)
    files = {
        BEST_WEIGHTS_FILE: _save_weights(best_state_dict),
        SERVED_WEIGHTS_FILE: _save_weights(served_state_dict),
        SCALER_FILE: _save_scaler(draft),
        METRICS_FILE: record.to_json(draft, created_at).encode(),
    }
    manifest = draft.seal(created_at, {name: sha256(content) for name, content in files.items()})
    files[MANIFEST_FILE] = manifest.to_json().encode()
    # What could not be loaded again must not replace what can.
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
    folder = publish.served_folder(market)
    manifest = read_manifest(market, folder)
    log.info("Loaded metadata: %s %s", symbol, market.timeframe.value)
    files = read_files(market, folder, manifest)
    state_dict = _load_weights(market, SERVED_WEIGHTS_FILE, files[SERVED_WEIGHTS_FILE])
    n_features = manifest.num_features
    log.info("Loaded model: %s %s (features=%d)", symbol, market.timeframe.value, n_features)
    # The scaler that counts is in the manifest; the pickle is for other tools.
    log.info("Loaded scaler: %s %s", symbol, market.timeframe.value)
    return Artifact(manifest, state_dict, folder)


def load_version(market: MarketFolder, version_id: str) -> Artifact:
    """Load one version, served or not; its other weights are checked too.

    Raises:
        InvalidArtifactError: It is not there, or cannot be loaded.
    """
    folder = publish.version_folder(market, version_id)
    manifest = read_manifest(market, folder)
    files = read_files(market, folder, manifest)
    _load_weights(market, BEST_WEIGHTS_FILE, files[BEST_WEIGHTS_FILE])
    weights = _load_weights(market, SERVED_WEIGHTS_FILE, files[SERVED_WEIGHTS_FILE])
    return Artifact(manifest, weights, folder)


def _may_replace(market: MarketFolder, new: Manifest) -> bool:
    """Whether a new version may take the place of the served one, if that can be loaded.

    An accepted version gives way to accepted ones alone, a model of real bars never to
    one of simulated bars.
    """
    try:
        served = read_manifest(market, publish.served_folder(market))
    except (ModelNotFoundError, InvalidArtifactError):
        return True
    if is_simulated(new.bars.origin) and not is_simulated(served.bars.origin):
        return False
    accepted = Verdict.ACCEPTED
    return new.gate.verdict is accepted or served.gate.verdict is not accepted


def check_writable(root: Path, symbol: str, timeframe: Timeframe) -> None:
    """Find out before a training whether its model could be exported after it.

    Raises:
        RegistryWriteError: The models folder would refuse the export.
    """
    publish.check_writable(MarketFolder(root, symbol, timeframe))


def _verified(market: MarketFolder, files: Mapping[str, bytes]) -> None:
    manifest = parse_manifest(market, files[MANIFEST_FILE])
    check_hashes(market, manifest, files)
    for name in (BEST_WEIGHTS_FILE, SERVED_WEIGHTS_FILE):
        _load_weights(market, name, files[name])


def _save_weights(state_dict: Mapping[str, Tensor]) -> bytes:
    # Copied: a view would drag its whole storage into the file.
    weights = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state_dict.items()
    }
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    return buffer.getvalue()


def _load_weights(market: MarketFolder, name: str, content: bytes) -> dict[str, Tensor]:
    try:
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        # Broken bytes make torch raise whatever they happen to break.
        reason = str(error).strip().partition("\n")[0]
        raise _invalid(
            market, f"{name} holds no weights that are safe to load: {reason}"
        ) from error
    if not isinstance(weights, dict) or not weights:
        raise _invalid(market, f"{name} holds no state dict")
    for key, tensor in weights.items():
        if not isinstance(key, str) or not _is_plain(tensor):
            raise _invalid(market, f"{name} holds more than a plain state dict: {key!r}")
        if not bool(torch.isfinite(tensor).all()):
            raise _invalid(market, f"{name} holds a value that is not finite in {key}")
    return weights


def _is_plain(tensor: object) -> bool:
    # A few bytes can describe an expanded or sparse tensor too large to look at.
    return (
        type(tensor) is Tensor
        and tensor.dtype in _WEIGHT_TYPES
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.is_contiguous()
    )


def _save_scaler(draft: ManifestDraft) -> bytes:
    """Pickle the scikit-learn scaler that other tools expect; percoin never reads it."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    scaler.mean_ = np.array(draft.scaling.mean)
    scaler.scale_ = np.array(draft.scaling.scale)
    scaler.var_ = scaler.scale_**2
    scaler.n_samples_seen_ = draft.bars.splits["train"].rows
    scaler.n_features_in_ = len(draft.features.names)
    scaler.feature_names_in_ = np.array(draft.features.names, dtype=object)
    return pickle.dumps(scaler, protocol=_PICKLE_PROTOCOL)


def _invalid(market: MarketFolder, found: str) -> InvalidArtifactError:
    action = "train the model again"
    return InvalidArtifactError(market.symbol, market.timeframe, found, action)

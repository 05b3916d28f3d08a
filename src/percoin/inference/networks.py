"""The network of an artifact as a function of windows, by PyTorch or by ONNX Runtime.

Each library is imported only for a model with a network.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from percoin.errors import ConfigError, InvalidArtifactError
from percoin.plugins import resolve_same
from percoin.printable import printable
from percoin.registry.artifact import Artifact, OnnxArtifact
from percoin.registry.layout import ONNX_FILE
from percoin.registry.manifest import Manifest
from percoin.targets import Target
from percoin.types import CLASS_NAMES, Float32Array, FloatArray

if TYPE_CHECKING:
    import onnxruntime
    from torch import nn

# Windows, shape (B, L, F), to logits, shape (B, C).
Network = Callable[[Float32Array], FloatArray]

_EXTERNAL_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"

_TRAIN_AGAIN = "train the model again"
_MOST_CHARS_SHOWN = 200


class Backend(StrEnum):
    """Which library computes the network."""

    TORCH = "torch"
    """The reference: any version, any device."""
    ONNX = "onnx"
    """ONNX Runtime on the CPU: versions exported with ``export.onnx=true``."""


def check_backend(backend: Backend, device: str) -> None:
    """Check before anything is loaded whether this machine can compute the network.

    Args:
        backend: Which library.
        device: In torch's words, for example ``cpu`` or ``cuda:0``.

    Raises:
        ConfigError: No such device, or ONNX Runtime is not installed.
    """
    if backend is Backend.ONNX:
        if device != "cpu":
            raise ConfigError(f"predictor=onnx runs on the CPU, not on device={device}")
        if find_spec("onnxruntime") is None:
            raise ConfigError(
                "predictor=onnx needs ONNX Runtime, which is not installed: "
                "pip install 'percoin[onnx]', or use predictor=torch"
            )
    elif device != "cpu":
        _check_gpu(device)


def load_network(artifact: Artifact | OnnxArtifact, device: str = "cpu") -> Network:
    """The network of an artifact, ready to be asked from several threads at once.

    Args:
        artifact: Checked by the registry; its model has a network.
        device: In torch's words; ONNX Runtime takes only ``cpu``.

    Raises:
        InvalidArtifactError: It does not fit what the manifest describes.
    """
    if isinstance(artifact, OnnxArtifact):
        return _onnx_network(artifact)
    return _torch_network(artifact, device)


def _check_gpu(device: str) -> None:
    import torch

    wanted, n_gpus = torch.device(device), torch.cuda.device_count()
    if wanted.type == "cuda" and (wanted.index or 0) >= n_gpus:
        raise ConfigError(
            f"device={device} (or ML_DEVICE) needs a GPU that torch can use; it finds "
            f"{n_gpus}: use device=cpu"
        )


def _torch_network(artifact: Artifact, device: str) -> Network:
    import torch

    place = torch.device(device)
    network = _build(artifact).to(place).eval()

    @torch.inference_mode()
    def logits(windows: Float32Array) -> FloatArray:
        batch = torch.tensor(windows, device=place)
        return network(batch).double().cpu().numpy()  # type: ignore[no-any-return]

    def ask(windows: Float32Array) -> FloatArray:
        n_threads = torch.get_num_threads()
        if place.type != "cpu" or n_threads == 1:
            return logits(windows)
        # The caller spreads windows over threads. Within one window, torch's own threads wait
        # for each other at every bar, and longer still on busy cores.
        torch.set_num_threads(1)
        try:
            return logits(windows)
        finally:
            torch.set_num_threads(n_threads)

    return ask


def _build(artifact: Artifact) -> nn.Module:
    manifest = artifact.manifest
    n_described = manifest.n_weights
    # Building it first could take any amount of memory.
    if manifest.model.source is None and n_described > _n_stored(artifact):
        raise _invalid(manifest, f"the weights do not fit the network: it has {n_described}")
    try:
        network = _made(manifest)
        network.load_state_dict(artifact.state_dict)
    except ConfigError as error:
        raise InvalidArtifactError(manifest.symbol, manifest.timeframe, *_advised(error)) from error
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        reason = _first_line(error)
        raise _invalid(manifest, f"the weights do not fit the network: {reason}") from error
    return network


def _made(manifest: Manifest) -> nn.Module:
    """The network, with other weights than the trained ones.

    Raises:
        ConfigError: It is of the user's own, and its code is not allowed here, or another one.
    """
    model, n_features = manifest.model, manifest.num_features
    if model.source is None:
        from percoin.network import CnnLstm

        # CnnLstm itself checks the arguments of the manifest.
        return CnnLstm(n_features, **dict(model.kwargs))  # type: ignore[arg-type]
    from percoin.own_network import count_own_weights, make_own_network

    value = resolve_same(model.source)
    target = Target("model._target_", model.source.name, value, model.source)
    asked = target, model.kwargs, n_features, manifest.lookback
    n_weights = count_own_weights(*asked)
    if n_weights != model.n_weights:
        raise target.refusal(f"has {n_weights} weights, not {model.n_weights} as in the training")
    return make_own_network(*asked)


def _n_stored(artifact: Artifact) -> int:
    return sum(tensor.numel() for tensor in artifact.state_dict.values())


def _advised(error: ConfigError) -> tuple[str, str]:
    """What was found, and what to do, of an error that says both."""
    found, _, action = printable(str(error)).partition("; ")
    return found, action or _TRAIN_AGAIN


def _first_line(error: Exception) -> str:
    """The first line of a library's error, which may quote its input."""
    return printable(str(error).strip().partition("\n")[0], _MOST_CHARS_SHOWN)


def open_session(content: bytes) -> onnxruntime.InferenceSession:
    """An ONNX network in memory, computed by one thread of the CPU; threads may share it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # The caller spreads windows and markets over threads.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Otherwise a file could name weights elsewhere, below the working folder.
    options.add_session_config_entry(_EXTERNAL_WEIGHTS_FOLDER, os.devnull)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _onnx_network(artifact: OnnxArtifact) -> Network:
    manifest = artifact.manifest
    try:
        session = open_session(artifact.network)
    except Exception as error:
        # Its exceptions have no common base class.
        reason = _first_line(error)
        raise _invalid(manifest, f"{ONNX_FILE} cannot be loaded: {reason}") from error
    ends = [*session.get_inputs(), *session.get_outputs()]
    found = [(end.type, end.shape) for end in ends]
    # The number of windows must be a name, whichever the exporter chose.
    batch = next((size for _, shape in found for size in shape[:1] if isinstance(size, str)), None)
    shapes = [[batch, manifest.lookback, manifest.num_features], [batch, len(CLASS_NAMES)]]
    if batch is None or found != [("tensor(float)", shape) for shape in shapes]:
        shown = printable(str(found), _MOST_CHARS_SHOWN)
        raise _invalid(manifest, f"{ONNX_FILE} maps {shown}, not any windows to logits")

    def ask(windows: Float32Array) -> FloatArray:
        [logits] = session.run(None, {ends[0].name: np.ascontiguousarray(windows)})
        return np.asarray(logits, dtype=np.float64)

    return ask


def _invalid(manifest: Manifest, found: str) -> InvalidArtifactError:
    return InvalidArtifactError(manifest.symbol, manifest.timeframe, found, _TRAIN_AGAIN)

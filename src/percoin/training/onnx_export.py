"""Export the network for ONNX Runtime, and check that its outputs equal those of PyTorch."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from percoin.errors import ConfigError, InvalidArtifactError
from percoin.evaluation.calibration import apply_calibration
from percoin.inference.networks import open_session
from percoin.types import Float32Array, FloatArray

if TYPE_CHECKING:
    import onnx

log = logging.getLogger(__name__)

# Largest difference of a probability: both sum in float32, but in different orders.
TOLERANCE = 1e-5

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# If the example has one window, the exporter fixes the batch size at one.
_EXAMPLES = 2
# Loggers of the exporter and its optimizer.
_CHATTY = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def check_packages() -> None:
    """Check before a training that its network can be exported afterwards.

    Raises:
        ConfigError: A package is missing.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"export.onnx=true needs {', '.join(missing)}, which is not installed: "
            "pip install 'percoin[onnx]', or use export.onnx=false"
        )


def export_onnx(network: nn.Module, windows: Float32Array, market: tuple[str, str]) -> bytes:
    """Export a network for any number of windows, as one file without local paths.

    Args:
        network: A trained network; it is not changed.
        windows: Real windows outside the train rows, shape (n, L, F), at least two. The two
            networks are compared on one, two and all of them.
        market: Symbol and timeframe, for the message.

    Raises:
        InvalidArtifactError: A probability differs from PyTorch's by more than ``TOLERANCE``.
    """
    reference = copy.deepcopy(network).cpu().eval()
    content = _written(reference, windows[:_EXAMPLES])
    session = open_session(content)
    expected = _probabilities(_asked(reference, windows))
    largest = 0.0
    for batch in (windows[:1], windows[:2], windows):
        [logits] = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(batch)})
        difference = np.abs(_probabilities(logits) - expected[: len(batch)]).max()
        # Written with "not" so that NaN counts as different.
        if not difference <= TOLERANCE:
            raise InvalidArtifactError(
                *market,
                f"the ONNX network differs from PyTorch by {difference:.1e} on "
                f"{len(batch)} validation windows, {TOLERANCE:.0e} is allowed",
                "with resume=true export.onnx=false the same command saves it without training",
            )
        largest = max(largest, float(difference))
    log.info("ONNX agrees with PyTorch to %.0e on %d validation windows", largest, len(windows))
    return content


def _written(network: nn.Module, windows: Float32Array) -> bytes:
    import onnx

    with _quiet():
        program = torch.onnx.export(
            network,
            (torch.tensor(windows),),
            dynamo=True,
            input_names=["windows"],
            output_names=["logits"],
            dynamic_shapes={"windows": {0: "batch"}},
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise TypeError("torch.onnx.export with dynamo=True gave no program")
    model = program.model_proto
    _forget_origin(model)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _forget_origin(model: onnx.ModelProto) -> None:
    """Remove the metadata that names the source file of each operation."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
    for end in (*graph.input, *graph.output):
        end.ClearField("metadata_props")


@torch.inference_mode()
def _asked(network: nn.Module, windows: Float32Array) -> FloatArray:
    logits: FloatArray = network(torch.tensor(windows)).double().numpy()
    return logits


def _probabilities(logits: FloatArray) -> FloatArray:
    return apply_calibration(logits, {"method": "none"})


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Deprecations inside the exporter, and hints for its developers.
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""The forecasters of an artifact as one function: their probabilities, calibrated and averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from percoin.bars.schema import Bars
from percoin.evaluation.blend import blend_probabilities
from percoin.evaluation.calibration import apply_calibration
from percoin.evaluation.last_row import InputColumns, LastRowModel, columns_beside
from percoin.inference.networks import load_network
from percoin.registry.artifact import Artifact, OnnxArtifact
from percoin.registry.parts import ModelPart
from percoin.types import Float32Array, FloatArray


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """What a model is asked with.

    Attributes:
        windows: Scaled features, shape (B, L, F).
        newest: What is known of the last bar of each window, for the parts that take it;
            shape (B, D) each.
    """

    windows: Float32Array
    newest: Mapping[InputColumns, FloatArray]


class ServedParts:
    """The parts of a loaded model; they never change and threads may share them.

    Args:
        artifact: Checked by the registry.
        device: In torch's words, for example ``cpu`` or ``cuda:0``.

    Raises:
        InvalidArtifactError: The weights do not fit the network the manifest describes.
    """

    def __init__(self, artifact: Artifact | OnnxArtifact, device: str = "cpu") -> None:
        parts = artifact.manifest.parts.values()
        self._weights = [part.weight for part in parts]
        self._asked = [_asked(artifact, part, device) for part in parts]
        numbers = [part.numbers for part in parts]
        found = dict.fromkeys(entry.columns for entry in numbers if entry is not None)
        self._columns = tuple(columns for columns in found if columns.groups)

    def newest(self, bars: Bars) -> dict[InputColumns, FloatArray]:
        """What the parts take beside the features at each bar; NaN where it is not known yet.

        Args:
            bars: Closed bars of the model's market.
        """
        return {columns: columns_beside(bars, columns) for columns in self._columns}

    def probabilities(self, inputs: ModelInputs) -> FloatArray:
        """Calibrated probabilities, shape (B, C).

        Raises:
            ValueError: A part answers with no number.
        """
        return blend_probabilities([ask(inputs) for ask in self._asked], self._weights)


def _asked(
    artifact: Artifact | OnnxArtifact, part: ModelPart, device: str
) -> Callable[[ModelInputs], FloatArray]:
    calibration, numbers = part.calibration.to_json(), part.numbers
    if numbers is None:
        network = load_network(artifact, device)
        return lambda inputs: apply_calibration(network(inputs.windows), calibration)
    return _last_row(numbers.model(artifact.trees), calibration)


def _last_row(
    model: LastRowModel, calibration: Mapping[str, Any]
) -> Callable[[ModelInputs], FloatArray]:
    def probabilities(inputs: ModelInputs) -> FloatArray:
        beside = [inputs.newest[model.columns]] if model.columns.groups else []
        features = [inputs.windows[:, -1]] if model.columns.has_features else []
        rows = np.concatenate([*beside, *features], axis=1)
        return apply_calibration(model.logits(rows), calibration)

    return probabilities

"""The forecasters of an artifact as one function: their probabilities, calibrated and averaged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from percoin.bars.schema import Bars
from percoin.evaluation.blend import blend_probabilities
from percoin.evaluation.calibration import apply_calibration, calibrate, factor_and_offset
from percoin.evaluation.last_row import InputColumns, LastRowModel, columns_beside
from percoin.evaluation.metrics import N_CLASSES
from percoin.evaluation.trees import Trees
from percoin.inference.forecasters import SharedForecasters
from percoin.inference.networks import Network
from percoin.registry.artifact import Artifact, OnnxArtifact
from percoin.registry.parts import ModelPart
from percoin.types import BoolArray, Float32Array, FloatArray

# Among more, a window costs hardly less; so many of one network are worth another thread.
_FEWEST_WINDOWS = 8

AskNetwork = Callable[[Network, Float32Array], FloatArray]
# As ``map`` with two iterables, perhaps by several threads.
ShareOut = Callable[[AskNetwork, Iterable[Network], Iterable[Float32Array]], Iterable[FloatArray]]


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


@dataclass(frozen=True, eq=False)
class ServedPart:
    """A forecaster of a model, and what is made of its logits.

    Attributes:
        forecaster: The network, or a model of the newest bar.
        weight: Its share of the probabilities.
        calibration: As ``fit_calibration`` returned it.
        affine: The same as a factor and an offset of each class, shape (2, C).
    """

    forecaster: Network | LastRowModel
    weight: float
    calibration: Mapping[str, object]
    affine: FloatArray

    @classmethod
    def of(
        cls, artifact: Artifact | OnnxArtifact, part: ModelPart, shared: SharedForecasters
    ) -> ServedPart:
        """A part of an artifact; its forecaster may be one that another model holds."""
        calibration, numbers = part.calibration.to_json(), part.numbers
        affine = np.stack([np.broadcast_to(n, N_CLASSES) for n in factor_and_offset(calibration)])
        forecaster: Network | LastRowModel
        if numbers is None:
            forecaster = shared.network(artifact)
        else:
            forecaster = shared.last_row(artifact, numbers)
        return cls(forecaster, part.weight, calibration, affine)

    def probabilities(self, inputs: ModelInputs) -> FloatArray:
        """Calibrated, shape (B, C)."""
        if isinstance(self.forecaster, LastRowModel):
            logits = self.forecaster.logits(_newest_row(self.forecaster, inputs))
        else:
            logits = self.forecaster(inputs.windows)
        return apply_calibration(logits, self.calibration)


class ServedParts:
    """The parts of a loaded model; they never change and threads may share them.

    Args:
        artifact: Checked by the registry.
        shared: The forecasters that other models hold.

    Raises:
        InvalidArtifactError: The weights do not fit the network the manifest describes.
    """

    def __init__(self, artifact: Artifact | OnnxArtifact, shared: SharedForecasters) -> None:
        parts = artifact.manifest.parts
        self._by_name = {
            name: ServedPart.of(artifact, part, shared) for name, part in parts.items()
        }
        self.all = tuple(self._by_name.values())
        numbers = [part.numbers for part in parts.values()]
        found = dict.fromkeys(entry.columns for entry in numbers if entry is not None)
        self.columns = tuple(columns for columns in found if columns.groups)

    def last_row(self, name: str) -> LastRowModel:
        """The model of the newest bar that is the part of this name.

        Raises:
            ValueError: The part is the network.
        """
        forecaster = self._by_name[name].forecaster
        if not isinstance(forecaster, LastRowModel):
            raise ValueError(f"{name} is no model of the newest bar")
        return forecaster

    def newest(self, bars: Bars) -> dict[InputColumns, FloatArray]:
        """What the parts take beside the features at each bar; NaN where it is not known yet.

        Args:
            bars: Closed bars of the model's market.
        """
        return {columns: columns_beside(bars, columns) for columns in self.columns}

    def probabilities(self, inputs: ModelInputs) -> FloatArray:
        """Calibrated probabilities, shape (B, C).

        Raises:
            ValueError: A part answers with no number.
        """
        return self.blend([part.probabilities(inputs) for part in self.all])

    def blend(self, said: Sequence[FloatArray]) -> FloatArray:
        """The average of what each part says, shape (B, C) each."""
        return blend_probabilities(said, [part.weight for part in self.all])


def ask_together(
    asked: Sequence[tuple[ServedParts, ModelInputs]], n_threads: int, share_out: ShareOut
) -> list[FloatArray | None]:
    """``ServedParts.probabilities`` of many models, each about one window.

    A forecaster that several models hold is asked once, about the windows of all of them.

    Args:
        asked: The models, at least one, and the inputs of each.
        n_threads: How many threads ``share_out`` has.
        share_out: Asks the networks.

    Returns:
        Shape (1, C) each; None where an answer is no number: alone, the model says why.
    """
    places = [(part, inputs) for parts, inputs in asked for part in parts.all]
    networks: dict[Network, list[int]] = defaultdict(list)
    models: dict[LastRowModel, list[int]] = defaultdict(list)
    for place, (part, _) in enumerate(places):
        if isinstance(part.forecaster, LastRowModel):
            models[part.forecaster].append(place)
        else:
            networks[part.forecaster].append(place)
    batches = [(each, batch) for each in networks for batch in _batches(networks[each], n_threads)]
    windows = [np.concatenate([places[k][1].windows for k in batch]) for _, batch in batches]
    # Threads begin here, and the other parts are computed meanwhile.
    answers = share_out(_answer_or_nan, (each for each, _ in batches), windows)
    logits = np.empty((len(places), N_CLASSES))
    for model, alike in models.items():
        logits[alike] = model.logits(
            np.concatenate([_newest_row(model, places[k][1]) for k in alike])
        )
    for (_, batch), answer in zip(batches, answers, strict=True):
        logits[batch] = answer
    factor, offset = np.stack([part.affine for part, _ in places], axis=1)
    said = calibrate(logits, factor, offset)
    is_known: BoolArray = np.isfinite(np.concatenate([logits, said], axis=1)).all(axis=1)
    found: list[FloatArray | None] = []
    stop = 0
    for parts, inputs in asked:
        own = slice(stop, stop := stop + len(parts.all))
        is_answer = bool(is_known[own].all() and np.isfinite(inputs.windows).all())
        found.append(parts.blend(list(said[own, np.newaxis])) if is_answer else None)
    return found


def log_ranges_together(asked: Sequence[tuple[LastRowModel, ModelInputs]]) -> FloatArray:
    """``LastRowModel.log_range`` of many models, each about one window, shape (n_asked,).

    Trees that several models hold are asked once, about the newest bars of all of them.
    """
    found: FloatArray = np.full(len(asked), np.nan)
    alike: dict[Trees | None, list[int]] = defaultdict(list)
    for place, (model, _) in enumerate(asked):
        alike[model.trees].append(place)
    for places in alike.values():
        rows = np.concatenate([_newest_row(*asked[place]) for place in places])
        found[places] = asked[places[0]][0].log_range(rows)
    return found


def _answer_or_nan(network: Network, windows: Float32Array) -> FloatArray:
    """A network that fails leaves only the models that hold it without an answer."""
    try:
        return network(windows)
    except ValueError:
        return np.full((len(windows), N_CLASSES), np.nan)


def _batches(alike: list[int], n_threads: int) -> list[list[int]]:
    """The windows of one network shared out to threads."""
    n_batches = min(n_threads, -(-len(alike) // _FEWEST_WINDOWS))
    return [batch.tolist() for batch in np.array_split(alike, n_batches)]


def _newest_row(model: LastRowModel, inputs: ModelInputs) -> FloatArray:
    beside = [inputs.newest[model.columns]] if model.columns.groups else []
    features = [inputs.windows[:, -1]] if model.columns.has_features else []
    return np.concatenate([*beside, *features], axis=1)

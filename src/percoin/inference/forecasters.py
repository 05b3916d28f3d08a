"""Networks and trees in memory, each once, whichever models are made of it."""

from __future__ import annotations

from weakref import WeakValueDictionary

from percoin.evaluation.last_row import LastRowModel
from percoin.inference.networks import Network, load_network
from percoin.registry.artifact import Artifact, OnnxArtifact
from percoin.registry.layout import ONNX_FILE, SERVED_WEIGHTS_FILE
from percoin.registry.parts import StoredNumbers


class SharedForecasters:
    """The forecasters that models are made of; markets trained as a pool have the same ones.

    A network is known by the hash of its file in the manifest and by what the manifest says of
    it, a model of the newest bar by its numbers. What no model holds any more is forgotten.
    Threads may share this.

    Args:
        device: In torch's words; ONNX Runtime takes only ``cpu``.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._networks: WeakValueDictionary[tuple[object, ...], Network] = WeakValueDictionary()
        self._last_rows: WeakValueDictionary[tuple[object, ...], LastRowModel]
        self._last_rows = WeakValueDictionary()

    def network(self, artifact: Artifact | OnnxArtifact) -> Network:
        """As ``load_network``; the very same object for the same network."""
        manifest = artifact.manifest
        file = ONNX_FILE if isinstance(artifact, OnnxArtifact) else SERVED_WEIGHTS_FILE
        described = (manifest.num_features, manifest.lookback, repr(manifest.model))
        key = (file, manifest.files[file], *described)
        known = self._networks.get(key)
        # Where two threads load one at once, the first is kept.
        return known or self._networks.setdefault(key, load_network(artifact, self._device))

    def last_row(self, artifact: Artifact | OnnxArtifact, numbers: StoredNumbers) -> LastRowModel:
        """A part on the newest bar alone; the very same object for the same numbers."""
        file = numbers.trees
        key = (numbers, None if file is None else artifact.manifest.files[file])
        known = self._last_rows.get(key)
        return known or self._last_rows.setdefault(key, numbers.model(artifact.trees))

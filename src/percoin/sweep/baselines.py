"""The baselines of a market: jobs of a sweep that have the same ones fit them once.

::

    outputs/<sweep>/<SYMBOL>/<tf>/baselines/<key>.msgpack

A key is a hash of everything that a result depends on: bars, features, labels, split, seed, code,
libraries, machine. The file begins with a hash of its key and its content, so that no other one,
and no part of one, is taken for it. It holds numbers, texts and arrays, and is no pickle.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from percoin.dataset import PARTS, MarketDataset
from percoin.errors import InUseError
from percoin.evaluation.evaluate import Forecast
from percoin.evaluation.fold_forecasts import AskedBaselines, BaselineFitter, Part
from percoin.evaluation.last_row import InputColumns, LastRowModel
from percoin.evaluation.moves import Moves, RangeRegression
from percoin.evaluation.regression import Regression
from percoin.evaluation.trees import TreeNumbers, Trees
from percoin.file_lock import file_lock
from percoin.provenance import code_version, library_versions, machine_facts
from percoin.run_record import facts_hash
from percoin.training.manifest_draft import hash_references
from percoin.types import FloatArray
from percoin.whole_file import remove_leftovers, write_whole

log = logging.getLogger(__name__)

SHARED_FOLDER = "baselines"
_SUFFIX = ".msgpack"
# Of a market: some ten results for a year of 15m bars. Those that were used last stay.
_MOST_BYTES = 32 * 2**20
_DIGEST_BYTES = hashlib.sha256().digest_size
# Much longer than a fit. Whoever has waited so long fits them too.
_LONGEST_WAIT_SECS = 600.0
# Beside those that every model depends on.
_LIBRARIES = ("scipy", "msgspec")

Result = TypeVar("Result")
Stored = TypeVar("Stored")


class SharedBaselineFitter(BaselineFitter):
    """Takes what another job has fitted from a folder, else fits it and leaves it there.

    If the folder cannot be used, every job fits its own.

    Args:
        folder: All jobs of the sweep on the market share it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ask(self, dataset: MarketDataset, seed: int, parts: tuple[str, ...]) -> AskedBaselines:
        """As ``BaselineFitter``, to the last bit."""
        return self._shared(
            result_key("asked", dataset, seed, parts),
            lambda: super(SharedBaselineFitter, self).ask(dataset, seed, parts),
            _StoredAnswers.of,
            _StoredAnswers,
            _StoredAnswers.restored,
        )

    def fit_parts(
        self, dataset: MarketDataset, seed: int, parts: tuple[str, ...]
    ) -> dict[str, LastRowModel]:
        """As ``BaselineFitter``, to the last bit."""
        return self._shared(
            result_key("parts", dataset, seed, parts),
            lambda: super(SharedBaselineFitter, self).fit_parts(dataset, seed, parts),
            _StoredModels.of,
            _StoredModels,
            _StoredModels.restored,
        )

    def _shared(
        self,
        key: str,
        make: Callable[[], Result],
        to_stored: Callable[[Result], Stored],
        kind: type[Stored],
        restored: Callable[[Stored], Result],
    ) -> Result:
        path = self._folder / f"{key}{_SUFFIX}"
        with self._claimed(key):
            stored = _read(path, kind)
            if stored is not None:
                log.info("baselines: those of another job of this sweep")
                return restored(stored)
            made = make()
            self._keep(path, to_stored(made))
        return made

    @contextmanager
    def _claimed(self, key: str) -> Iterator[None]:
        """Wait for a job that fits the same; without a lock there may be two."""
        # A few locks for all keys: no file is left behind for each.
        lock = self._folder / f".{key[0]}.lock"
        with ExitStack() as held:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(file_lock(lock, _LONGEST_WAIT_SECS, _tell_waiting))
                remove_leftovers(self._folder / f"{key}{_SUFFIX}")
            except (InUseError, OSError) as error:
                log.warning("baselines are not shared: %s", error)
            yield

    def _keep(self, path: Path, stored: object) -> None:
        payload = msgspec.msgpack.encode(stored, enc_hook=_from_array)
        try:
            # Not synced: what a power cut leaves of it has another hash.
            write_whole(path, _digest(path, payload) + payload, is_synced=False)
            self._drop_oldest()
        except OSError as error:
            log.warning("baselines are not shared: %s", error)

    def _drop_oldest(self) -> None:
        found = [(path, path.stat()) for path in self._folder.glob(f"*{_SUFFIX}")]
        total = 0
        for path, facts in sorted(found, key=lambda each: each[1].st_mtime_ns, reverse=True):
            total += facts.st_size
            if total > _MOST_BYTES:
                path.unlink(missing_ok=True)


def result_key(kind: str, dataset: MarketDataset, seed: int, parts: tuple[str, ...]) -> str:
    """Hash everything that fitted baselines depend on.

    Args:
        kind: Which result.
        dataset: The fold. Features, labels and rows count by their content.
        seed: For the boosting baseline.
        parts: The baselines that are parts of the model.
    """
    bars, spec = dataset.bars, dataset.spec
    arrays: list[np.ndarray[Any, Any]] = [dataset.features, dataset.label, dataset.forward_return]
    arrays += [dataset.rows(part) for part in PARTS]
    facts = {
        "kind": kind,
        "seed": seed,
        "parts": parts,
        "bars": [bars.symbol, bars.timeframe.value, bars.sha256(), hash_references(dataset)],
        "arrays": [_array_hash(array) for array in arrays],
        "rules": [
            dataset.feature_names,
            str(dataset.feature_set),
            dataset.lookback,
            dataset.label_rule.horizon,
            asdict(spec.split_spec),
            spec.code,
        ],
        "code": code_version(),
        "libraries": {**library_versions(), **{name: version(name) for name in _LIBRARIES}},
        "machine": machine_facts(),
    }
    return facts_hash(facts, n_digits=40)


@dataclass(frozen=True)
class _StoredModel:
    columns: InputColumns
    regression: Regression | None = None
    trees: TreeNumbers | None = None
    ridge: RangeRegression | None = None

    @classmethod
    def of(cls, model: LastRowModel) -> _StoredModel:
        numbers = model.numbers
        if isinstance(numbers, Moves):
            return cls(model.columns, numbers.classes, numbers.trees.numbers, numbers.ridge)
        if isinstance(numbers, Trees):
            return cls(model.columns, trees=numbers.numbers)
        return cls(model.columns, numbers)

    def restored(self) -> LastRowModel:
        numbers: Regression | Trees | Moves | None = self.regression
        if self.trees is not None:
            numbers = trees = Trees(self.trees)
            if self.ridge is not None and self.regression is not None:
                numbers = Moves(trees, self.ridge, self.regression)
        if numbers is None:
            raise ValueError("a stored model has no numbers")
        return LastRowModel(self.columns, numbers)


@dataclass(frozen=True)
class _StoredModels:
    by_name: Mapping[str, _StoredModel]

    @classmethod
    def of(cls, models: Mapping[str, LastRowModel]) -> _StoredModels:
        return cls({name: _StoredModel.of(model) for name, model in models.items()})

    def restored(self) -> dict[str, LastRowModel]:
        return {name: model.restored() for name, model in self.by_name.items()}


@dataclass(frozen=True, eq=False)
class _StoredPart:
    validation: FloatArray
    test: FloatArray
    calibration: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class _StoredAnswers:
    forecasts: tuple[Forecast, ...]
    validation_losses: Mapping[str, float]
    parts: Mapping[str, _StoredPart]
    models: _StoredModels
    refusals: Mapping[str, str]

    @classmethod
    def of(cls, asked: AskedBaselines) -> _StoredAnswers:
        parts = asked.parts.items()
        return cls(
            asked.forecasts,
            asked.validation_losses,
            {
                name: _StoredPart(each.validation, each.test, each.calibration)
                for name, each in parts
            },
            _StoredModels.of({name: each.numbers for name, each in parts if each.numbers}),
            asked.refusals,
        )

    def restored(self) -> AskedBaselines:
        models = self.models.restored()
        parts = {
            name: Part(each.validation, each.test, each.calibration, models.get(name))
            for name, each in self.parts.items()
        }
        return AskedBaselines(self.forecasts, self.validation_losses, parts, self.refusals)


def _read(path: Path, kind: type[Stored]) -> Stored | None:
    """What is stored under the name; None if there is nothing, or something else."""
    try:
        content = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if digest != _digest(path, payload):
        log.warning("%s is damaged: the baselines are fitted again", path)
        return None
    return msgspec.msgpack.decode(payload, type=kind, dec_hook=_to_array)


def _digest(path: Path, payload: bytes) -> bytes:
    return hashlib.sha256(path.stem.encode() + payload).digest()


def _array_hash(array: np.ndarray[Any, Any]) -> str:
    facts = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(facts + array.tobytes()).hexdigest()


def _from_array(value: object) -> bytes:
    if not isinstance(value, np.ndarray):
        raise NotImplementedError(f"{type(value).__name__} is not stored")
    buffer = io.BytesIO()
    # Keeps the order of the axes in memory, on which the last bit of a sum depends.
    np.save(buffer, value, allow_pickle=False)
    return buffer.getvalue()


def _to_array(_kind: type, content: bytes) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def _tell_waiting() -> None:
    log.info("waiting for another job of this sweep, which fits the same baselines")

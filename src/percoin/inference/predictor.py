"""The models of a registry behind one object that threads may share."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from importlib.util import find_spec
from pathlib import Path
from threading import Lock

import numpy as np

from percoin.bars.given import Table, as_bars
from percoin.bars.panel import with_panel
from percoin.bars.schema import Bars, is_simulated
from percoin.errors import (
    ConfigError,
    DataError,
    InvalidArtifactError,
    MarketError,
    PercoinError,
    RegistryError,
)
from percoin.inference.asked import closed_bars
from percoin.inference.forecasters import SharedForecasters
from percoin.inference.model import NewestWindow, ServedModel, newest_windows
from percoin.inference.networks import Backend, check_backend
from percoin.inference.parts import ask_together
from percoin.inference.results import (
    FORECAST_PARTS,
    Answer,
    Answers,
    NoPrediction,
    RangeAnswers,
)
from percoin.printable import printable
from percoin.registry.artifact import (
    Artifact,
    OnnxArtifact,
    load_artifact,
    load_fastest,
    load_onnx,
    served_mark,
)
from percoin.types import FloatArray, Prediction, Timeframe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Held:
    """A model in memory, and the mark of the version that it was loaded from."""

    mark: str | None
    model: ServedModel


class Predictor:
    """Predictions of all markets of a registry.

    Answers are for bars that have closed. A bar that still runs, as ccxt returns it, is
    dropped with a warning, and the answer is for the one before; ``now`` says which bars
    have closed, by default this machine's clock. Bars that break the schema
    (``percoin.bars.schema.check_bars``) are refused with an error that names them.

    A model is loaded at the first question about its market, and again when another
    version is served: every question checks the market's link. Each answer comes from one
    version alone. A version that learnt from simulated bars and is asked about others is named once
    in a warning. Threads may share a predictor.

    Args:
        models_dir: The models folder.
        device: In torch's words, for example ``cpu`` or ``cuda:0``.
        backend: The library that computes the networks; None is ONNX Runtime where it is
            installed, the device is the CPU and the version has a file for it, else PyTorch.
        workers: Threads that ask about many markets and the windows of a range; None is one a
            core.

    Raises:
        ConfigError: This machine has no such device or library.
    """

    def __init__(
        self,
        models_dir: Path | str,
        device: str = "cpu",
        backend: Backend | str | None = None,
        workers: int | None = None,
    ) -> None:
        self._models_dir = Path(models_dir)
        self._load_artifact = _loader(None if backend is None else Backend(backend), device)
        self._workers = workers or os.cpu_count() or 1
        self._shared = SharedForecasters(device)
        self._pool: ThreadPoolExecutor | None = None
        self._held: dict[tuple[str, Timeframe], _Held] = {}
        self._loading: defaultdict[tuple[str, Timeframe], Lock] = defaultdict(Lock)
        self._lock = Lock()
        self._warned_of: set[str] = set()

    @property
    def models_dir(self) -> Path:
        """The registry that the models are read from."""
        return self._models_dir

    def model(self, symbol: str, timeframe: Timeframe) -> ServedModel:
        """The model that is served for a market now.

        Raises:
            ModelNotFoundError: None has been exported, or not for this backend.
            InvalidArtifactError: It cannot be trusted.
            ConfigError: The symbol is none.
        """
        key = (symbol, timeframe)
        held = self._held_if_served(key)
        if held is not None:
            return held.model
        with self._lock:
            loading = self._loading[key]
        with loading:
            # Another thread may have loaded it in the meantime.
            held = self._held_if_served(key) or self._load(key)
            self._held[key] = held
        return held.model

    def preload(self, markets: Iterable[tuple[str, Timeframe]]) -> None:
        """Load the models of many markets that were not asked yet, by several threads.

        A model that cannot be loaded is left out, and not tried here again: ``model`` raises why.
        """
        missing = [key for key in markets if key not in self._loading]
        if len(missing) > 1:
            # Reading, hashing and ONNX Runtime leave the interpreter to other threads.
            with ThreadPoolExecutor(os.cpu_count(), "percoin-load") as threads:
                list(threads.map(self._try_to_load, missing))

    def _try_to_load(self, key: tuple[str, Timeframe]) -> None:
        with suppress(ConfigError, RegistryError):
            self.model(*key)

    def predict(
        self,
        bars: Bars | Table,
        now: datetime | None = None,
        *,
        symbol: str | None = None,
        tf: Timeframe | str | None = None,
    ) -> Prediction:
        """Answer for the newest bar of a market that has closed.

        Args:
            bars: Of one market, with the history that ``Manifest.bars_to_load`` asks for: bars,
                or a table as ``percoin.bars.given.as_bars`` takes it. With the bars of
                ``Manifest.references`` too (``percoin.bars.panel.with_panel``).
            now: The current time, with a zone; None is this machine's clock.
            symbol: The market of a table, such as ``BTCUSDT``.
            tf: The length of a table's bars, such as ``15m``.

        Raises:
            RegistryError: There is no model, or none that can be trusted.
            NotEnoughBarsError: No whole window ends on the newest bar.
            BarsNotFoundError: A market that the model compares it with is missing.
            InvalidBarsError: The bars break the schema or lie in the future.
            ConfigError: What was given is no table of bars, or its market is missing.
        """
        bars = as_bars(bars, symbol, tf)
        model = self.model(bars.symbol, bars.timeframe)
        self._warn_of_simulated(model, bars)
        return model.predict(closed_bars(bars, now))

    def predict_many(self, bars_of_markets: Iterable[Bars], now: datetime | None = None) -> Answers:
        """Answer for the newest closed bar of many markets, each as ``predict`` would.

        Their features are computed together. A network that several of them share, as markets
        trained as a pool do, is asked once about all of them; others are asked by several
        threads. So this is faster than one call a market. An error that ``predict`` would raise is
        that market's answer here; the others are not affected.

        Args:
            bars_of_markets: Of any symbols and timeframes. A market without a panel is compared
                with the others, if its model compares it.
            now: As for ``predict``.
        """
        return self._answers(bars_of_markets, lambda bars: closed_bars(bars, now))

    def predict_closed(self, bars_of_markets: Iterable[Bars]) -> Answers:
        """As ``predict_many``, of bars that are known to be sound and to have closed."""
        return self._answers(bars_of_markets, lambda bars: bars)

    def _answers(self, bars_of_markets: Iterable[Bars], close: Callable[[Bars], Bars]) -> Answers:
        asked = list(bars_of_markets)
        answers: dict[int, Answer] = {}
        models: dict[int, ServedModel] = {}
        # Of markets without a model too: the model of another may compare it with them.
        closed: dict[int, Bars] = {}
        self.preload((bars.symbol, bars.timeframe) for bars in asked)
        for position, bars in enumerate(asked):
            try:
                models[position] = self.model(bars.symbol, bars.timeframe)
                self._warn_of_simulated(models[position], bars)
            except (ConfigError, DataError, RegistryError) as error:
                answers[position] = NoPrediction(bars.symbol, bars.timeframe, error)
            try:
                closed[position] = close(bars)
            except (ConfigError, DataError) as error:
                models.pop(position, None)
                answers.setdefault(position, NoPrediction(bars.symbol, bars.timeframe, error))
        shown = newest_windows(
            [
                (model, _beside(closed[position], model, closed.values()))
                for position, model in models.items()
            ]
        )
        predicted = self._ask(list(models.values()), shown)
        answers |= zip(models, predicted, strict=True)
        return Answers(tuple(answers[position] for position in range(len(asked))))

    def predict_range(
        self,
        bars: Bars | Table,
        first: date | str | None = None,
        last: date | str | None = None,
        now: datetime | None = None,
        *,
        symbol: str | None = None,
        tf: Timeframe | str | None = None,
        in_sample: bool = False,
    ) -> RangeAnswers:
        """Answer for every bar of a range, as ``predict`` would have when it closed.

        The model was trained on some bars and its settings were chosen on others: answers
        for these are no forecasts and are NaN unless ``in_sample`` asks for them; a warning says
        how many, another that no bar lies in the range. ``RangeAnswers.part`` gives the part that
        each bar belongs to. A backtest uses only the part ``live``, and ``test`` too if nothing
        was chosen on test rows.

        Args:
            bars: Of one market, with the history before the range; as for ``predict``.
            first: Open time of the first bar, UTC where it has no zone; None is the
                first there is.
            last: Open time of the last bar, included; a day, a date or "2025-08-31", is
                all of it; None is the newest that has closed.
            now: As for ``predict``.
            symbol: As for ``predict``.
            tf: As for ``predict``.
            in_sample: Also answer for train, validation and purged bars and those before.

        Raises:
            RegistryError: There is no model, or none that can be trusted.
            InvalidBarsError: The bars break the schema or lie in the future.
            ConfigError: As for ``predict``.
            ValueError: ``last`` lies before ``first``.
        """
        bars = as_bars(bars, symbol, tf)
        model = self.model(bars.symbol, bars.timeframe)
        self._warn_of_simulated(model, bars)
        closed = closed_bars(bars, now)
        answers = model.predict_range(closed, first, last, self._threads().map)
        if len(closed) and not len(answers):
            _warn_of_empty(closed)
        n_seen = int((~np.isin(answers.part, FORECAST_PARTS)).sum())
        if n_seen:
            log.warning(
                "%s %s: %d of %d bars are among those that version %s was made from, or older: its "
                "answers there are no forecasts and are %s; see the column part",
                answers.symbol,
                answers.timeframe,
                n_seen,
                len(answers),
                answers.version_id,
                "shown as in_sample=True asks"
                if in_sample
                else "hidden (in_sample=True shows them)",
            )
        return answers if in_sample else answers.forecasts_only()

    def _warn_of_simulated(self, model: ServedModel, bars: Bars) -> None:
        """Warn once of each version that learnt from simulated bars and is asked about others."""
        manifest, version_id = model.manifest, model.manifest.version_id
        origin = manifest.bars.origin
        if is_simulated(bars.origin) or not is_simulated(origin) or version_id in self._warned_of:
            return
        self._warned_of.add(version_id)
        log.warning(
            "%s %s: version %s learnt from simulated bars (%s), and these do not say that they are "
            "(%s): on a real market its answers mean nothing; train it on real bars",
            *(bars.symbol, bars.timeframe, version_id, printable(origin), printable(bars.origin)),
        )

    def _held_if_served(self, key: tuple[str, Timeframe]) -> _Held | None:
        mark = served_mark(self._models_dir, *key)
        held = self._held.get(key)
        is_served = held is not None and mark is not None and held.mark == mark
        return held if is_served else None

    def _load(self, key: tuple[str, Timeframe]) -> _Held:
        # Read before the files: a change in between is noticed the next time.
        mark = served_mark(self._models_dir, *key)
        artifact = self._load_artifact(self._models_dir, *key)
        version_id = artifact.manifest.version_id
        is_version = artifact.folder.name == version_id
        return _Held(version_id if is_version else mark, ServedModel(artifact, self._shared))

    def _ask(
        self, models: Sequence[ServedModel], shown: Sequence[NewestWindow | MarketError]
    ) -> list[Answer]:
        """Each model about its window; where none is there, why."""
        ready = {k: window for k, window in enumerate(shown) if isinstance(window, NewestWindow)}
        said: dict[int, FloatArray | None] = {}
        if ready:
            asked = [(models[k].parts, window.inputs) for k, window in ready.items()]
            share_out = map if self._workers < 2 or len(ready) < 2 else self._threads().map
            said |= zip(ready, ask_together(asked, self._workers, share_out), strict=True)
        return [
            _answer(model, window, said.get(k))
            for k, (model, window) in enumerate(zip(models, shown, strict=True))
        ]

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._workers, "percoin-predict")
        return self._pool


def _loader(
    backend: Backend | None, device: str
) -> Callable[[Path, str, Timeframe], Artifact | OnnxArtifact]:
    """What reads the served version of a market, checked against this machine."""
    if backend is None and device == "cpu" and find_spec("onnxruntime") is not None:
        return load_fastest
    check_backend(backend or Backend.TORCH, device)
    return load_onnx if backend is Backend.ONNX else load_artifact


def _beside(bars: Bars, model: ServedModel, asked: Iterable[Bars]) -> Bars:
    """The bars with those of the others that the model compares with, unless they have them."""
    references = model.manifest.references
    if not references or bars.panel is not None:
        return bars
    others = (other for other in asked if other.symbol in references)
    return with_panel(bars, (other for other in others if other.timeframe is bars.timeframe))


def _answer(
    model: ServedModel, shown: NewestWindow | MarketError, said: FloatArray | None
) -> Answer:
    error: PercoinError
    if isinstance(shown, NewestWindow):
        try:
            return model.predict_window(shown) if said is None else model.prediction(shown, said)
        except InvalidArtifactError as failure:
            error = failure
    else:
        error = shown
    return NoPrediction(model.manifest.symbol, model.manifest.timeframe, error)


def _warn_of_empty(closed: Bars) -> None:
    index = closed.frame.index
    log.warning(
        "%s %s: no bar opens in the asked range; those that were given and have closed go from %s "
        "to %s",
        closed.symbol,
        closed.timeframe.value,
        index[0],
        index[-1],
    )

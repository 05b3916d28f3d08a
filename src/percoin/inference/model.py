"""One loaded model: from bars to windows, and from logits to answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

import numpy as np
import pandas as pd

from percoin.bars.schema import COLUMNS, Bars, format_time
from percoin.bars.silence import describe_silence
from percoin.bars.stacked import StackedBars
from percoin.bars.tick import newest_tick
from percoin.errors import (
    ConfigError,
    DataError,
    InvalidArtifactError,
    MarketError,
    NotEnoughBarsError,
    OwnCodeError,
)
from percoin.evaluation.last_row import InputColumns, newest_beside
from percoin.expected_move.inputs import bars_needed
from percoin.expected_move.model import newest_moves
from percoin.features.feature_set import (
    FEATURE_NAMES,
    FeatureDefinition,
    FeatureSet,
    compute_features,
    compute_newest_features,
)
from percoin.features.levels import levels_at
from percoin.features.market import late_reference
from percoin.features.volatility import newest_volatility
from percoin.inference.forecasters import SharedForecasters
from percoin.inference.parts import ModelInputs, ServedParts, log_ranges_together
from percoin.inference.results import RangeAnswers, find_parts
from percoin.labels import known_horizon
from percoin.registry.artifact import Artifact, OnnxArtifact
from percoin.registry.manifest import Manifest
from percoin.types import (
    BoolArray,
    ExpectedMove,
    FloatArray,
    IntArray,
    Levels,
    Prediction,
    Signal,
    Source,
    Timeframe,
)
from percoin.windows import eligible_rows, make_windows

# On a CPU a window costs as much among 16 as among 512; smaller batches can be shared out.
_BATCH_SIZE = 64
_CLOSE = COLUMNS.index("close")
_ATR = FEATURE_NAMES.index("atr_14")


MapBatches = Callable[[Callable[[IntArray], FloatArray], Iterable[IntArray]], Iterable[FloatArray]]


@dataclass(frozen=True, eq=False)
class NewestWindow:
    """The newest window of a market, as a model takes it.

    Attributes:
        bars: Of the market; the window ends on the newest.
        inputs: Of that one window.
        close: Of the newest bar.
        atr: ATR(14) at the newest bar, in price units.
        expected_move: Of the model, from the newest close; None if it has none.
    """

    bars: Bars
    inputs: ModelInputs
    close: float
    atr: float
    expected_move: ExpectedMove | None = None


class ServedModel:
    """One loaded model; it never changes and may be asked from several threads at once.

    Args:
        artifact: Checked by the registry.
        shared: The forecasters of other models, some of which may be this one's too.

    Raises:
        InvalidArtifactError: The weights do not fit the network the manifest describes, or code
            of the user's own is not allowed here, or is not that of the training.
    """

    def __init__(
        self, artifact: Artifact | OnnxArtifact, shared: SharedForecasters | None = None
    ) -> None:
        self.manifest = artifact.manifest
        try:
            self.manifest.features.feature_set.check_code()
        except ConfigError as error:
            raise _invalid(self.manifest, f"cannot be asked: {error}", "then ask again") from error
        self.scaling = self.manifest.scaling.fitted()
        self.parts = ServedParts(artifact, shared or SharedForecasters())
        self.move = artifact.move
        beside = None if self.move is None else self.move.range_forecast
        self.range_model = None if beside is None else self.parts.last_row(beside.part)
        rule = self.manifest.label_rule
        self._horizon = known_horizon(rule)
        self._labels = str(rule["kind"])
        markets = rule.get("markets")
        self._compared_with = tuple(markets) if isinstance(markets, list) else ()

    def probabilities(
        self, bars: Bars, first: int = 0, map_batches: MapBatches = map
    ) -> tuple[IntArray, FloatArray]:
        """Answer for every bar on which a whole window ends, with all inputs known.

        Args:
            bars: Of the model's market, oldest first. The first rows of a history
                shorter than ``Manifest.history_bars`` still remember its start.
            first: Position of the first bar to answer for; those before it are history.
            map_batches: As ``map``, perhaps by several threads.

        Returns:
            Positions of the bars, shape (n_rows,), and the calibrated
            probabilities in the order of ``Signal``, shape (n_rows, C).
        """
        manifest = self.manifest
        features = compute_features(bars, manifest.features.feature_set)
        rows = eligible_rows(features, bars.open_time, bars.timeframe, manifest.lookback)
        newest = self.parts.newest(bars)
        rows = rows[(rows >= first) & _all_known(newest, len(bars))[rows]]
        if len(rows) == 0:
            return rows, np.empty((0, len(Signal)))
        windows = make_windows(self.scaling.transform(features), manifest.lookback)

        def ask(batch: IntArray) -> FloatArray:
            known = {columns: values[batch] for columns, values in newest.items()}
            return self._ask(ModelInputs(windows[batch - manifest.lookback + 1], known))

        batches = np.array_split(rows, -(-len(rows) // _BATCH_SIZE))
        return rows, np.concatenate(list(map_batches(ask, batches)))

    def newest(self, bars: Bars) -> FloatArray:
        """Answer for the newest bar: its probabilities, shape (C,).

        Raises:
            NotEnoughBarsError: The history is too short for the features to equal
                those of training, or no whole window ends on the newest bar because
                a gap or a zero-volume bar is too recent.
            InvalidArtifactError: The network answers with no number.
        """
        probabilities: FloatArray = self._ask(self._show(bars).inputs)[0]
        return probabilities

    def predict(self, bars: Bars) -> Prediction:
        """The same as a prediction, with entry, stop and targets where there is a direction.

        Raises:
            NotEnoughBarsError, InvalidArtifactError: As ``newest``.
        """
        return self.predict_window(self._show(bars))

    def predict_window(self, newest: NewestWindow) -> Prediction:
        """The same for bars that are ready.

        Raises:
            InvalidArtifactError: The network answers with no number.
        """
        return self.prediction(newest, self._ask(newest.inputs))

    def prediction(self, newest: NewestWindow, said: FloatArray) -> Prediction:
        """The same of probabilities that are known, shape (1, C)."""
        [[short, no_trade, long]] = said.tolist()
        probabilities = (short, no_trade, long)
        signal = Signal(int(np.argmax(probabilities)))
        bars = newest.bars
        return Prediction(
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            signal=signal,
            confidence=probabilities[signal],
            probabilities=probabilities,
            source=Source.MODEL,
            model_version=self.manifest.model_version,
            version_id=self.manifest.version_id,
            ts=bars.close_time().to_pydatetime(),
            expected_move=newest.expected_move,
            # No price of the market alone ends a position against a basket.
            levels=None if self._compared_with else _levels(newest, signal),
            horizon_bars=self._horizon,
            labels=self._labels,
            compared_with=self._compared_with,
        )

    def expected_move(self, bars: Bars) -> ExpectedMove | None:
        """How far the price is expected to move from the newest close.

        None if the version has no such forecast, or the bars are too few for it. If trees of the
        classifier are a part of it, they need what ``predict`` needs.
        """
        if self.move is None:
            return None
        if self.range_model is None:
            return self.move.newest(bars)
        [shown] = newest_windows([(self, bars)])
        return None if isinstance(shown, MarketError) else shown.expected_move

    def predict_range(
        self,
        bars: Bars,
        first: date | str | None = None,
        last: date | str | None = None,
        map_batches: MapBatches = map,
    ) -> RangeAnswers:
        """Answer for every bar of a range, as ``predict`` would have when it closed.

        Args:
            bars: Of the model's market, with the history before the range.
            first: Open time of the first bar, UTC where it has no zone; None is the
                first there is.
            last: Open time of the last bar, included; a day, a date or "2025-08-31", is
                all of it; None is the newest there is.
            map_batches: As ``map``, perhaps by several threads.

        Raises:
            ValueError: ``last`` lies before ``first``.
        """
        index = pd.DatetimeIndex(bars.frame.index)
        start = 0 if first is None else int(index.searchsorted(_utc(first)))
        stop = len(index) if last is None else int(index.searchsorted(_end(last), side="right"))
        if first is not None and last is not None and _end(last) < _utc(first):
            raise ValueError(f"the range ends on {last}, before it begins on {first}")
        n_before = self.manifest.history_bars - 1
        begin = max(0, start - n_before)
        answerable = start if _reaches_back(self.manifest, bars) else max(start, n_before)
        rows, answers = self.probabilities(
            bars.slice(begin, max(begin, stop)), answerable - begin, map_batches
        )
        probabilities = np.full((max(0, stop - start), len(Signal)), np.nan)
        probabilities[rows + begin - start] = answers
        return RangeAnswers(
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            open_time=index[start : max(start, stop)],
            probabilities=probabilities,
            model_version=self.manifest.model_version,
            version_id=self.manifest.version_id,
            part=find_parts(index[start : max(start, stop)], self.manifest),
        )

    def _show(self, bars: Bars) -> NewestWindow:
        [shown] = newest_windows([(self, bars)])
        if isinstance(shown, MarketError):
            raise shown
        return shown

    def _ask(self, inputs: ModelInputs) -> FloatArray:
        try:
            if not np.isfinite(inputs.windows).all():
                raise ValueError("its scaling gives values that are not finite on these bars")
            return self.parts.probabilities(inputs)
        except ValueError as error:
            raise _invalid(
                self.manifest, f"gives no valid answer: {error}", "train the model again"
            ) from error


def _invalid(manifest: Manifest, found: str, action: str) -> InvalidArtifactError:
    found = f"version {manifest.version_id} {found}"
    return InvalidArtifactError(manifest.symbol, manifest.timeframe, found, action)


def _levels(newest: NewestWindow, signal: Signal) -> Levels | None:
    if signal is Signal.NO_TRADE:
        return None
    return levels_at(signal, newest.close, newest.atr, newest_tick(newest.bars))


def _all_known(newest: Mapping[InputColumns, FloatArray], n_bars: int) -> BoolArray:
    """Whether all that the parts take of a bar is known when it closes, shape (n_bars,)."""
    known = np.ones(n_bars, dtype=bool)
    for values in newest.values():
        known &= np.isfinite(values).all(axis=1)
    return known


def newest_windows(
    asked: Sequence[tuple[ServedModel, Bars]],
) -> list[NewestWindow | MarketError]:
    """The newest window of each market, or why there is none.

    Histories of the same length and features, the usual case, go through the feature code
    together.
    """
    found: dict[int, NewestWindow | MarketError] = {}
    recent: dict[int, Bars] = {}
    alike: dict[tuple[FeatureSet, Timeframe, int], list[int]] = {}
    for position, (model, bars) in enumerate(asked):
        try:
            recent[position] = _recent_bars(model.manifest, bars)
        except DataError as error:
            found[position] = error
        else:
            key = (model.manifest.features.feature_set, bars.timeframe, len(recent[position]))
            alike.setdefault(key, []).append(position)
    for positions in alike.values():
        models, given = zip(*(asked[position] for position in positions), strict=True)
        windows = _windows_together(models, given, [recent[position] for position in positions])
        found |= zip(positions, windows, strict=True)
    return [found[position] for position in range(len(asked))]


def _windows_together(
    models: Sequence[ServedModel], given: Sequence[Bars], recent: Sequence[Bars]
) -> list[NewestWindow | MarketError]:
    """The newest window of markets with the same features, bar length and number of bars.

    Args:
        models: One of each market.
        given: All bars at hand.
        recent: The newest of them, which the features depend on.
    """
    features, n_bars = models[0].manifest.features.feature_set, len(recent[0])
    n_rows = min(n_bars, max(model.manifest.lookback for model in models))
    stacked = StackedBars.of(recent)
    try:
        rows = compute_newest_features(recent, features, n_rows, stacked)
    except OwnCodeError as error:
        if len(models) > 1:
            # It may fail on the bars of one market alone.
            each = zip(models, given, recent, strict=True)
            return [_windows_together([m], [g], [r])[0] for m, g, r in each]
        return [_invalid(models[0].manifest, f"has no features: {error}", error.action)]
    if n_bars == 0:
        each_alone = zip(models, given, strict=True)
        return [_unfinished_window(bars, model.manifest.lookback) for model, bars in each_alone]
    volatility, beside = _beside_features(models, stacked)
    windows = [
        _newest_window(
            model, bars, rows[k], {name: beside[name][k : k + 1] for name in model.parts.columns}
        )
        for k, (model, bars) in enumerate(zip(models, given, strict=True))
    ]
    if volatility is None:
        return windows
    return _with_moves(models, windows, given, stacked, volatility)


def _beside_features(
    models: Sequence[ServedModel], recent: StackedBars
) -> tuple[FloatArray | None, dict[InputColumns, FloatArray]]:
    """What the models take beside the features.

    Args:
        models: One of each market.
        recent: The newest bars, side by side; all of one bar length.

    Returns:
        ``newest_volatility``, None if nobody needs it, and the inputs of the parts, shape
        (n_markets, D) each.
    """
    needed = dict.fromkeys(columns for model in models for columns in model.parts.columns)
    if not needed and all(model.move is None for model in models):
        return None, {}
    # Bars that break the schema give NaN without a warning.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        volatility = newest_volatility(recent)
        return volatility, newest_beside(needed, recent, volatility)


def _with_moves(
    models: Sequence[ServedModel],
    windows: Sequence[NewestWindow | MarketError],
    given: Sequence[Bars],
    recent: StackedBars,
    volatility: FloatArray,
) -> list[NewestWindow | MarketError]:
    """The windows with what the models say of how far the price moves from the newest close.

    Args:
        models: One of each market.
        windows: Of the same.
        given: All bars at hand.
        recent: The newest of them, side by side; all of one bar length.
        volatility: Their ``newest_volatility``.
    """
    asked = {
        row: (model.range_model, window.inputs)
        for row, (model, window) in enumerate(zip(models, windows, strict=True))
        if model.range_model is not None and isinstance(window, NewestWindow)
    }
    log_range: FloatArray = np.full(len(models), np.nan)
    log_range[list(asked)] = log_ranges_together(list(asked.values()))
    forecasts = [model.move for model in models]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if len(recent.values) >= bars_needed(recent.timeframes[0]):
            moves = newest_moves(forecasts, recent, volatility, log_range)
        else:
            # Of bars of a few minutes a week is more than the features look back at.
            each = zip(forecasts, given, log_range.tolist(), strict=True)
            moves = [None if m is None else m.newest(bars, found) for m, bars, found in each]
    return [
        replace(window, expected_move=move) if isinstance(window, NewestWindow) else window
        for window, move in zip(windows, moves, strict=True)
    ]


def _newest_window(
    model: ServedModel,
    bars: Bars,
    rows: FloatArray,
    known: Mapping[InputColumns, FloatArray],
) -> NewestWindow | MarketError:
    manifest = model.manifest
    lookback = manifest.lookback
    rows = rows[-lookback:]
    # A gap shows here too: the first bar after it has no return.
    if len(rows) < lookback or not np.isfinite(rows).all():
        return _unfinished_window(bars, lookback)
    close = float(bars.values[-1, _CLOSE])
    is_relative = manifest.features.definition is FeatureDefinition.RELATIVE
    unit = float(rows[-1, _ATR]) * (close if is_relative else 1.0)
    if not _all_known(known, 1)[0]:
        return _unknown_volatility(bars, manifest)
    inputs = ModelInputs(model.scaling.transform(rows)[np.newaxis], known)
    return NewestWindow(bars, inputs, close, unit)


def _unknown_volatility(bars: Bars, manifest: Manifest) -> NotEnoughBarsError:
    return NotEnoughBarsError(
        bars.symbol,
        bars.timeframe.value,
        f"the volatility that the model takes is not known from {len(bars)} bars",
        f"load {manifest.history_bars} bars or more",
    )


def _unfinished_window(bars: Bars, lookback: int) -> NotEnoughBarsError:
    found = (
        f"the newest of {len(bars)} bars does not end a full window of {lookback} bars with all "
        "indicators"
    )
    action = "load more history, or wait until the last gap is far enough back"
    # A bar without volume leaves the change to the next one unknown.
    silence = describe_silence(bars.slice(max(0, len(bars) - lookback - 1)))
    if silence:
        found = f"{found}: of the last {lookback + 1}, {silence}"
        action = f"wait until the last of them is {lookback} bars back, or ask for a longer tf"
    return NotEnoughBarsError(bars.symbol, bars.timeframe.value, found, action)


def _recent_bars(manifest: Manifest, bars: Bars) -> Bars:
    """The bars that the newest window depends on.

    Bars from the first one of training on are enough, however few: training saw the
    indicators start there too.

    Raises:
        NotEnoughBarsError: They start so late that the recursive indicators still know it. Or:
            a market that the features compare with has no newest bar.
        BarsNotFoundError: Such a market is not in ``bars.panel``.
    """
    needed = manifest.history_bars
    if len(bars) < needed and not _reaches_back(manifest, bars):
        raise NotEnoughBarsError(
            bars.symbol,
            bars.timeframe.value,
            f"{len(bars)} bars are too few for indicators that do not depend on the first bar",
            f"load {needed} bars or more, or all since {manifest.bars.first_open_time}, where "
            "those of its training begin",
        )
    if late := late_reference(bars, manifest.references):
        raise NotEnoughBarsError(
            bars.symbol,
            bars.timeframe.value,
            f"the market {late}, which the model compares it with, has no bar that closed at "
            f"{format_time(bars.close_time())} UTC",
            f"bring the newest bars of {late} too",
        )
    return bars.slice(max(0, len(bars) - needed))


def _reaches_back(manifest: Manifest, bars: Bars) -> bool:
    """Whether the bars begin where those of the training began, or earlier."""
    first = pd.Timestamp(manifest.bars.first_open_time)
    return len(bars) > 0 and bool(bars.frame.index[0] <= first)


def _end(moment: date | str) -> pd.Timestamp:
    """The time itself, or the last second of a day that is given without a time."""
    if isinstance(moment, str):
        is_day = re.fullmatch(r"\d{4}-\d\d-\d\d", moment.strip()) is not None
    else:
        is_day = not isinstance(moment, datetime)
    return _utc(moment) + pd.Timedelta(days=1, seconds=-1) if is_day else _utc(moment)


def _utc(moment: date | str) -> pd.Timestamp:
    timestamp = pd.Timestamp(moment)
    return timestamp.tz_localize("UTC") if timestamp.tz is None else timestamp

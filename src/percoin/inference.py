"""From bars to a prediction, by the very feature code that training used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from percoin.bars.schema import Bars
from percoin.errors import ConfigError, InvalidArtifactError, NotEnoughBarsError
from percoin.evaluation.calibration import apply_calibration
from percoin.features.feature_set import compute_features, history_bars
from percoin.features.indicators import atr
from percoin.network import CnnLstm
from percoin.registry.artifact import Artifact, load_artifact
from percoin.registry.manifest import Manifest
from percoin.types import FloatArray, IntArray, Levels, Prediction, Signal, Source, Timeframe
from percoin.windows import eligible_rows, make_windows

_BATCH_SIZE = 512

# Stop and targets in units of ATR(14).
_STOP_ATR = 1.5
_TARGETS_ATR = (1.0, 2.0, 3.0)


class ServedModel:
    """One loaded model.

    Args:
        artifact: Checked by the registry.
        device: In torch's words, for example ``cpu`` or ``cuda:0``.

    Raises:
        InvalidArtifactError: The weights do not fit the network the manifest describes.
    """

    def __init__(self, artifact: Artifact, device: str = "cpu") -> None:
        self.manifest = artifact.manifest
        self._device = torch.device(device)
        self._scaling = self.manifest.scaling.fitted()
        self._network = _build_network(artifact).to(self._device).eval()

    def probabilities(self, bars: Bars) -> tuple[IntArray, FloatArray]:
        """Answer for every bar on which a whole window ends.

        Args:
            bars: Of the model's market, oldest first. The first rows of a history
                shorter than ``history_bars(lookback)`` still remember its start.

        Returns:
            Positions of the bars, shape (n_rows,), and the calibrated
            probabilities in the order of ``Signal``, shape (n_rows, C).
        """
        manifest = self.manifest
        features = compute_features(bars, manifest.features.definition)
        rows = eligible_rows(features, bars.open_time, bars.timeframe, manifest.lookback)
        if len(rows) == 0:
            return rows, np.empty((0, len(Signal)))
        windows = make_windows(self._scaling.transform(features), manifest.lookback)
        starts = rows - manifest.lookback + 1
        batches = np.array_split(starts, -(-len(starts) // _BATCH_SIZE))
        logits = np.concatenate([self._logits(windows[batch]) for batch in batches])
        return rows, apply_calibration(logits, manifest.calibration.to_json())

    def newest(self, bars: Bars) -> FloatArray:
        """Answer for the newest bar: its probabilities, shape (C,).

        Raises:
            NotEnoughBarsError: The history is too short for the features to equal
                those of training, or no whole window ends on the newest bar because
                a gap or a zero-volume bar is too recent.
        """
        lookback = self.manifest.lookback
        self._check_history(bars)
        recent = bars.slice(max(0, len(bars) - history_bars(lookback)))
        features = compute_features(recent, self.manifest.features.definition)
        rows = eligible_rows(features, recent.open_time, recent.timeframe, lookback)
        if len(rows) == 0 or rows[-1] != len(recent) - 1:
            raise NotEnoughBarsError(
                bars.symbol,
                bars.timeframe.value,
                f"the newest of {len(bars)} bars does not end a whole window of {lookback} bars "
                "with all indicators known",
                "load more history, or wait until the last gap or silent bar is far enough back",
            )
        window = self._scaling.transform(features[-lookback:])
        logits = self._logits(window[np.newaxis])
        probabilities: FloatArray = apply_calibration(logits, self.manifest.calibration.to_json())[
            0
        ]
        return probabilities

    def _check_history(self, bars: Bars) -> None:
        """Refuse bars that start so late that the recursive indicators still know it.

        Bars from the first one of training on are enough, however few: training
        saw the indicators start there too.
        """
        needed = history_bars(self.manifest.lookback)
        first = pd.Timestamp(self.manifest.bars.first_open_time)
        if len(bars) < needed and (len(bars) == 0 or bars.frame.index[0] > first):
            raise NotEnoughBarsError(
                bars.symbol,
                bars.timeframe.value,
                f"{len(bars)} bars are too few for indicators that do not depend on the first bar",
                f"load {needed} bars or more",
            )

    @torch.inference_mode()
    def _logits(self, windows: np.ndarray[Any, np.dtype[np.float32]]) -> FloatArray:
        batch = torch.tensor(windows, device=self._device)
        return self._network(batch).double().cpu().numpy()  # type: ignore[no-any-return]


class Predictor:
    """Predictions of all markets of a registry; each model is loaded once.

    Args:
        models_dir: The models folder.
        device: In torch's words, for example ``cpu`` or ``cuda:0``.

    Raises:
        ConfigError: This machine has no such device.
    """

    def __init__(self, models_dir: Path, device: str = "cpu") -> None:
        self._models_dir = models_dir
        self._device = _check_device(device)
        self._models: dict[tuple[str, Timeframe], ServedModel] = {}

    def model(self, symbol: str, timeframe: Timeframe) -> ServedModel:
        """The served model of a market.

        Raises:
            ModelNotFoundError: None has been exported.
            InvalidArtifactError: It cannot be trusted.
        """
        key = (symbol, timeframe)
        if key not in self._models:
            artifact = load_artifact(self._models_dir, symbol, timeframe)
            self._models[key] = ServedModel(artifact, self._device)
        return self._models[key]

    def predict(self, bars: Bars) -> Prediction:
        """Answer for the newest bar of a market.

        Raises:
            RegistryError: There is no model, or none that can be trusted.
            NotEnoughBarsError: No whole window ends on the newest bar.
        """
        model = self.model(bars.symbol, bars.timeframe)
        probabilities = model.newest(bars)
        signal = Signal(int(probabilities.argmax()))
        short, no_trade, long = probabilities.tolist()
        return Prediction(
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            signal=signal,
            confidence=float(probabilities[signal]),
            probabilities=(short, no_trade, long),
            source=Source.MODEL,
            model_version=model.manifest.model_version,
            ts=bars.close_time().to_pydatetime(),
            levels=find_levels(bars, signal),
        )


def _check_device(device: str) -> str:
    # Asked of a GPU alone: on the CPU the question itself would take time.
    if torch.device(device).type == "cuda":
        n_gpus = torch.cuda.device_count()
        if (torch.device(device).index or 0) >= n_gpus:
            raise ConfigError(
                f"device={device} (or ML_DEVICE) needs a GPU that torch can use; it finds "
                f"{n_gpus}: use device=cpu"
            )
    return device


def find_levels(bars: Bars, signal: Signal) -> Levels | None:
    """Entry at the newest close, stop and targets in multiples of its ATR(14).

    None without a direction, where the history is too short for an ATR, and where the
    last target would lie below a price of 0.
    """
    if signal is Signal.NO_TRADE:
        return None
    recent = bars.slice(max(0, len(bars) - history_bars(1)))
    high, low, closes = (recent.column(name) for name in ("high", "low", "close"))
    unit = float(atr(high, low, closes)[-1])
    if not unit > 0:
        return None
    close = float(closes[-1])
    side = 1 if signal is Signal.LONG else -1
    first, second, third = (close + side * multiple * unit for multiple in _TARGETS_ATR)
    if third <= 0:
        return None
    return Levels(close, close - side * _STOP_ATR * unit, first, second, third)


def _build_network(artifact: Artifact) -> CnnLstm:
    manifest = artifact.manifest
    try:
        network = CnnLstm(manifest.num_features, **_network_kwargs(manifest))
        network.load_state_dict(artifact.state_dict)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InvalidArtifactError(
            manifest.symbol,
            manifest.timeframe,
            f"the weights do not fit the network: {str(error).splitlines()[0]}",
            "train the model again",
        ) from error
    return network


def _network_kwargs(manifest: Manifest) -> Mapping[str, Any]:
    return dict(manifest.model.kwargs)

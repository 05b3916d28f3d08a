"""Predictions and bars for the tests of the track record."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from percoin.bars.schema import Bars
from percoin.labels import FixedHorizon
from percoin.monitoring.resolution import make_entry
from percoin.types import Prediction, Signal, Source, Timeframe

M15 = Timeframe.M15
RULE = FixedHorizon(horizon=3, threshold=0.0025)
START = datetime(2025, 1, 1, tzinfo=UTC)


def bars_of(close, origin="binance spot: BTCUSDT", symbol="BTCUSDT", start=START) -> Bars:
    close = np.asarray(close, dtype=float)
    index = pd.date_range(start, periods=len(close), freq="15min").as_unit("ms")
    columns = dict.fromkeys(("open", "high", "low", "close"), close)
    frame = pd.DataFrame(columns | {"volume": 1.0}, index=index.rename("open_time"))
    return Bars(symbol, M15, frame, origin)


def walk(n_bars: int, seed: int = 0) -> np.ndarray:
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.003, n_bars)))


def prediction_on(
    bars: Bars,
    signal=Signal.LONG,
    probabilities=(0.2, 0.3, 0.5),
    source=Source.MODEL,
    version_id="20250101T000000000000Z-0123456789ab",
) -> Prediction:
    is_model = source is Source.MODEL
    return Prediction(
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        signal=signal,
        confidence=0.5,
        probabilities=probabilities if is_model else None,
        source=source,
        model_version="cnn_lstm_v1" if is_model else None,
        version_id=version_id if is_model else None,
        ts=bars.close_time().to_pydatetime(),
    )


def soon_after(bars: Bars, **span: float) -> datetime:
    return bars.close_time().to_pydatetime() + (timedelta(**span) if span else timedelta(seconds=5))


_SIXTY = bars_of(walk(60))
ENTRY = make_entry(prediction_on(_SIXTY), _SIXTY, RULE, soon_after(_SIXTY))

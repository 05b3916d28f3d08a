"""Two features and a label rule of your own, to copy and change (docs/FEATURES.md).

python train.py symbol=BTCUSDT tf=1h source=sample plugins=[examples/template_features.py] \
        'features.extra=[template_features:zscore]' labels._target_=template_features:Breakout
"""

import numpy as np
import pandas as pd


def zscore(bars: pd.DataFrame, span: int = 50) -> pd.Series:
    """How far the close is from its mean, in deviations; NaN until it can be known."""
    rolling = bars["close"].rolling(span)
    return (bars["close"] - rolling.mean()) / rolling.std()


def candle(bars: pd.DataFrame) -> dict[str, pd.Series]:
    """Several columns of one function: a dict or a DataFrame gives them names."""
    spread = (bars["high"] - bars["low"]).replace(0, np.nan)
    return {
        "body": (bars["close"] - bars["open"]) / spread,
        "upper shadow": (bars["high"] - bars[["open", "close"]].max(axis=1)) / spread,
    }


class Breakout:
    """LONG or SHORT if the return over the horizon is among the largest moves of train rows."""

    def __init__(self, horizon: int, share: float = 0.25, width: float | None = None):
        self.horizon, self.share, self.width = horizon, share, width

    def fit(self, bars: pd.DataFrame, train_rows: np.ndarray) -> dict[str, float]:
        """Numbers from the train rows; they become further arguments of the class."""
        sizes = self._change(bars).abs().to_numpy()[train_rows]
        return {"width": float(np.nanquantile(sizes, 1 - self.share))}

    def label(self, bars: pd.DataFrame) -> np.ndarray:
        """0 is SHORT, 1 NO_TRADE, 2 LONG, -1 unknown; one for each bar."""
        change = self._change(bars)
        return np.where(change > self.width, 2, np.where(change < -self.width, 0, 1))

    def _change(self, bars: pd.DataFrame) -> pd.Series:
        return bars["close"].shift(-self.horizon) / bars["close"] - 1

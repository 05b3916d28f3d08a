"""Files with features and label rules of a user's own, for tests."""

from pathlib import Path

FEATURES = """
import numpy as np


def zscore(bars, span=50):
    rolling = bars["close"].rolling(span)
    return (bars["close"] - rolling.mean()) / rolling.std()


def average(bars):
    return bars["close"].ewm(span=40, adjust=False).mean() / bars["close"]


def several(bars):
    return {"body": bars["close"] - bars["open"], "of three": bars["volume"].diff(3)}


def peek(bars):
    return bars["close"].shift(-1) / bars["close"] - 1


def of_all_bars(bars):
    return bars["volume"] / bars["volume"].mean()


def of_the_day(bars):
    return bars["close"].groupby(bars.index.floor("D")).transform("last") / bars["close"]


def balance(bars):
    return (np.sign(bars["close"].diff()) * bars["volume"]).cumsum()


def zeros(bars):
    return bars["close"].diff(5).fillna(0)


def filled(bars):
    return bars["close"].rolling(20).std().bfill()


def infinite(bars):
    return np.where(bars.index.hour == 5, np.inf, bars["close"].diff(2))


def constant(bars):
    return np.ones(len(bars))


def copy(bars):
    return bars["close"].pct_change()


def random(bars):
    return np.random.default_rng().normal(size=len(bars))


def unknown(bars):
    return bars["close"] * np.nan


def fails(bars):
    return bars["no_such_column"]


def short(bars):
    return bars["close"][1:]


def fails_later(bars):
    if len(bars) < 200:
        raise RuntimeError("the exchange is closed")
    return bars["close"].diff(7)
"""

LABELS = '''
import numpy as np


class Scaled:
    """Large for the last 30 returns; how large is learnt from the train rows."""

    def __init__(self, horizon, share=0.4, spans=(30,), width=None):
        self.horizon, self.share, self.span, self.width = horizon, share, spans[0], width

    def ratio(self, bars):
        close = bars["close"]
        spread = close.pct_change().rolling(self.span).std()
        return (close.shift(-self.horizon) / close - 1) / spread

    def fit(self, bars, train_rows):
        sizes = self.ratio(bars).abs().to_numpy()[train_rows]
        return {"width": float(np.nanquantile(sizes, self.share))}

    def label(self, bars):
        ratio = self.ratio(bars)
        label = np.where(ratio > self.width, 2, np.where(ratio < -self.width, 0, 1))
        return np.where(ratio.isna(), -1, label)


class UpOrDown:
    def __init__(self, horizon, width=0.002):
        self.horizon, self.width = horizon, width

    def label(self, bars):
        change = bars["close"].shift(-self.horizon) / bars["close"] - 1
        return np.where(change > self.width, 2, np.where(change < -self.width, 0, 1))


class TooFar(UpOrDown):
    def label(self, bars):
        return UpOrDown(self.horizon + 2, self.width).label(bars)


class Ranked(UpOrDown):
    def label(self, bars):
        change = bars["close"].shift(-self.horizon) / bars["close"] - 1
        rank = change.rank(pct=True)
        return np.where(rank > 0.7, 2, np.where(rank < 0.3, 0, 1))


class SinceTheStart(UpOrDown):
    def label(self, bars):
        change = bars["close"].shift(-self.horizon) / bars["close"] - 1
        usual = change.shift(self.horizon).abs().expanding().mean()
        return np.where(change > usual, 2, np.where(change < -usual, 0, 1))


class Strange(UpOrDown):
    def label(self, bars):
        return bars["close"]


class NoLabel:
    def __init__(self, horizon):
        pass


class SeesAll(UpOrDown):
    def fit(self, bars, train_rows):
        return {"width": float(len(bars))}


class LearnsNothing(UpOrDown):
    def fit(self, bars, train_rows):
        return {"width": float("nan")}
'''


def labels_file(folder: Path) -> Path:
    path = folder / "my_labels.py"
    path.write_text(LABELS)
    return path


def features_file(folder: Path) -> Path:
    path = folder / "my_features.py"
    path.write_text(FEATURES)
    return path

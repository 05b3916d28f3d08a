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


def features_file(folder: Path) -> Path:
    path = folder / "my_features.py"
    path.write_text(FEATURES)
    return path

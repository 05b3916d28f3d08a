from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from percoin.bars.gaps import find_gaps
from percoin.bars.schema import Bars
from percoin.bars.sources.simulated import MOMENTUM_BARS, SimulatedSource
from percoin.errors import ConfigError
from percoin.types import FloatArray, Timeframe


def _log_returns(bars: Bars) -> FloatArray:
    return np.diff(np.log(bars.column("close")))


def _momentum_and_next(returns: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sum of the last 12 returns, and the return that follows, for each bar."""
    momentum = np.convolve(returns, np.ones(MOMENTUM_BARS), "valid")[:-1]
    return momentum, returns[MOMENTUM_BARS:]


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**9),
    symbol=st.sampled_from(["BTCUSDT", "POLUSDT", "XLMUSDT"]),
    timeframe=st.sampled_from(list(Timeframe)),
    edge=st.floats(0, 1),
    n_bars=st.integers(1, 3000),
)
def test_any_arguments_give_valid_bars_without_gaps(
    seed: int, symbol: str, timeframe: Timeframe, edge: float, n_bars: int
) -> None:
    bars = SimulatedSource(seed=seed, edge=edge, n_bars=n_bars).load(symbol, timeframe)
    assert len(bars) == n_bars
    assert find_gaps(bars) == ()
    assert str(bars.close_time()) == "2025-09-01 00:00:00+00:00"
    assert (bars.column("open")[1:] == bars.column("close")[:-1]).all()


def test_same_arguments_give_the_same_bars_in_another_process() -> None:
    code = (
        "from percoin.bars.sources.simulated import SimulatedSource;"
        "from percoin.types import Timeframe;"
        "print(SimulatedSource(seed=3, n_bars=500).load('ETHUSDT', Timeframe.H1).sha256())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    here = SimulatedSource(seed=3, n_bars=500).load("ETHUSDT", Timeframe.H1)
    assert run.stdout.strip() == here.sha256()


def test_the_bars_of_a_seed_stay_what_they_were() -> None:
    newest = SimulatedSource(seed=0, n_bars=200, edge=0.5).load("BTCUSDT", Timeframe.M15).frame
    expected = [170.84137, 171.66692, 170.70905, 171.17014, 56.907087]
    np.testing.assert_allclose(newest.iloc[-1].to_numpy(), expected, rtol=2e-8)


def test_seed_symbol_and_timeframe_each_make_another_market() -> None:
    hashes = {
        SimulatedSource(seed=seed, n_bars=50).load(symbol, timeframe).frame.to_numpy().tobytes()
        for seed in (0, 1)
        for symbol in ("BTCUSDT", "ETHUSDT")
        for timeframe in (Timeframe.M15, Timeframe.H1)
    }
    assert len(hashes) == 8


def test_volatility_clusters_and_volume_follows_the_move() -> None:
    bars = SimulatedSource().load("BTCUSDT", Timeframe.M15)
    returns = _log_returns(bars)
    size = np.abs(returns)
    assert np.corrcoef(size[1:], size[:-1])[0, 1] > 0.1
    assert np.mean((returns / returns.std()) ** 4) > 3.5
    assert np.corrcoef(size, np.log(bars.column("volume")[1:]))[0, 1] > 0.3
    assert 0.02 < returns.std() * np.sqrt(96) < 0.04
    by_hour = pd.Series(size).groupby(bars.frame.index[1:].hour).mean()
    assert by_hour.idxmax() in range(12, 19)


def test_without_an_edge_past_returns_say_nothing_of_the_next() -> None:
    returns = _log_returns(SimulatedSource(n_bars=100_000).load("BTCUSDT", Timeframe.M15))
    momentum, following = _momentum_and_next(returns)
    noise = 1 / np.sqrt(len(following))
    assert abs(np.corrcoef(np.sign(momentum), np.sign(following))[0, 1]) < 4 * noise
    assert abs(np.corrcoef(returns[1:], returns[:-1])[0, 1]) < 6 * noise


def test_with_an_edge_past_returns_foretell_the_next() -> None:
    correlations = []
    for edge in (0.1, 0.3, 0.6, 1.0):
        bars = SimulatedSource(edge=edge).load("BTCUSDT", Timeframe.M15)
        momentum, following = _momentum_and_next(_log_returns(bars))
        correlations.append(np.corrcoef(momentum, following)[0, 1])
    assert correlations == sorted(correlations, reverse=True)
    assert correlations[0] < -0.04
    assert correlations[-1] < -0.35


def test_an_edge_does_not_let_prices_run_away() -> None:
    close = SimulatedSource(edge=1.0).load("BTCUSDT", Timeframe.M15).column("close")
    assert close.max() / close.min() < 10


def test_origin_holds_every_argument() -> None:
    bars = SimulatedSource(seed=4, n_bars=10, edge=0.25, end="2024-05-01").load(
        "BTCUSDT", Timeframe.H4
    )
    assert bars.origin == "simulated: seed=4 n_bars=10 edge=0.25 end=2024-05-01"
    assert bars.source == "simulated"
    assert str(bars.close_time()) == "2024-05-01 00:00:00+00:00"


@pytest.mark.parametrize(
    "arguments",
    [
        {"seed": -1},
        {"n_bars": 0},
        {"edge": -0.1},
        {"edge": 1.5},
        {"edge": float("nan")},
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        SimulatedSource(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("end", ["soon", "2024-05-01 12:00", "2024-05-01T00:00+02:00", ""])
def test_an_end_that_is_no_day_is_refused(end: str) -> None:
    with pytest.raises(ConfigError, match="is not a day"):
        SimulatedSource(end=end, n_bars=5).load("BTCUSDT", Timeframe.H1)


def test_an_old_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="use symbol=SUSDT"):
        SimulatedSource(n_bars=5).load("FTMUSDT", Timeframe.H1)

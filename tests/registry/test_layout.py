from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from percoin.errors import ConfigError
from percoin.registry.layout import VERSION_ID_PATTERN, MarketFolder
from percoin.types import Timeframe

ROOT = Path("models")
VERSION_ID = "20250901T000312482911Z-3fa9c14e07b2"

symbols = st.from_regex(r"[A-Z0-9]{2,20}", fullmatch=True)
timeframes = st.sampled_from(Timeframe)


@given(symbols, timeframes)
def test_every_path_lies_in_the_market_folder_below_the_root(symbol, timeframe):
    market = MarketFolder(ROOT, symbol, timeframe)
    paths = [market.link, market.lock, market.version(VERSION_ID), market.temporary("x")]
    for path in paths:
        assert path.is_relative_to(ROOT / "per_coin" / symbol)
        assert ".." not in path.parts


@given(symbols, timeframes)
def test_the_link_target_is_the_version_seen_from_the_link(symbol, timeframe):
    market = MarketFolder(ROOT, symbol, timeframe)
    assert market.link.parent / market.link_target(VERSION_ID) == market.version(VERSION_ID)


def test_the_link_lies_where_the_original_kept_its_models():
    assert MarketFolder(ROOT, "ETHUSDT", "4h").link == Path("models/per_coin/ETHUSDT/4h")


def test_128_markets_have_128_links_and_128_version_folders():
    names = (Path(__file__).parents[2] / "symbols").read_text().strip().split(",")
    timeframes = [Timeframe.M15, Timeframe.H1, Timeframe.H4, Timeframe.D1]
    markets = [MarketFolder(ROOT, name.strip(), tf) for name in names for tf in timeframes]
    assert len({market.link for market in markets}) == 128
    assert len({market.versions for market in markets}) == 128


@pytest.mark.parametrize("symbol", ["..", "../BTCUSDT", "A/B", "/etc", "", "BTCUSDT\n", "btcusdt"])
def test_a_symbol_that_is_no_market_has_no_path(symbol):
    with pytest.raises(ConfigError, match="is not a market"):
        MarketFolder(ROOT, symbol, Timeframe.M15)


@pytest.mark.parametrize("timeframe", ["..", "15m/..", "", "2w"])
def test_a_timeframe_that_is_none_has_no_path(timeframe):
    with pytest.raises(ConfigError, match="is not a timeframe"):
        MarketFolder(ROOT, "BTCUSDT", timeframe)


@pytest.mark.parametrize("name", [VERSION_ID + "/..", "..", VERSION_ID + "\n", VERSION_ID[1:]])
def test_a_version_id_is_time_and_hash_and_nothing_else(name):
    assert VERSION_ID_PATTERN.fullmatch(VERSION_ID)
    assert not VERSION_ID_PATTERN.fullmatch(name)

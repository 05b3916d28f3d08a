from dataclasses import replace

import pytest

from percoin import json_codec
from percoin.registry.pool_record import PooledMarket, PoolRecord

SHA = "0" * 64
MARKET = PooledMarket(SHA, "2025-01-01T00:00:00Z", "2025-08-31T23:45:00Z", is_seen=True)
RECORD = PoolRecord(
    "2025-01-02T00:00:00Z",
    "2025-06-01T00:00:00Z",
    "2025-07-15T00:00:00Z",
    {"BTCUSDT": MARKET, "ETHUSDT": MARKET, "SOLUSDT": replace(MARKET, is_seen=False)},
)


def test_the_markets_that_were_learnt_from_are_told_from_the_others():
    assert RECORD.seen == ("BTCUSDT", "ETHUSDT")


def test_moments_are_those_that_bars_count_in():
    assert RECORD.moments() == (1735776000000, 1748736000000, 1752537600000)


@pytest.mark.parametrize(
    "record", [RECORD, replace(RECORD, started_from="v", improved=False)], ids=["pool", "market"]
)
def test_a_record_survives_json(record):
    again = json_codec.decode(PoolRecord, json_codec.loads(json_codec.dumps(record)))
    assert again == record


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"validation_time": "2025-07-15T00:00:00Z"}, "the cuts are not in time order"),
        ({"first_time": "2025-01-02"}, "does not match format"),
        ({"markets": {"BTCUSDT": MARKET}}, "fewer than two markets"),
        ({"first_time": "9999-12-31T23:59:59Z"}, "lies in no year of a market"),
        ({"improved": True}, "belong together"),
        ({"started_from": "v"}, "belong together"),
    ],
)
def test_a_record_that_cannot_be_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        replace(RECORD, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sha256": "abc"}, "sha256 is not one"),
        ({"last_open_time": "2024-01-01T00:00:00Z"}, "last_open_time lies before"),
    ],
)
def test_a_market_that_cannot_be_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        replace(MARKET, **changes)


@pytest.mark.parametrize("symbol", ["../BTCUSDT", "BTC\x1b[2J", "b" * 1000, ""])
def test_a_pool_names_markets_and_nothing_else(symbol):
    with pytest.raises(ValueError, match="a name under markets is no market"):
        replace(RECORD, markets=dict(RECORD.markets) | {symbol: MARKET})

from __future__ import annotations

import logging

import pytest

from percoin.bars.renames import current_symbol, old_name_note, stored_names
from percoin.errors import ConfigError


def test_a_renamed_market_is_looked_for_under_both_names() -> None:
    assert stored_names("POLUSDT") == ("POLUSDT", "MATICUSDT")
    assert stored_names("SUSDT") == ("SUSDT", "FTMUSDT")
    assert stored_names("BTCUSDT") == ("BTCUSDT",)


def test_an_old_name_is_refused_with_todays_name() -> None:
    with pytest.raises(ConfigError, match="symbol=MATICUSDT is called POLUSDT today; use symbol="):
        current_symbol("MATICUSDT")


@pytest.mark.parametrize("symbol", ["", "btcusdt", "../BTCUSDT", "BTC/USDT"])
def test_what_is_no_market_is_refused(symbol: str) -> None:
    with pytest.raises(ConfigError, match="is not a market"):
        stored_names(symbol)


def test_an_old_name_is_logged_and_noted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert old_name_note("POLUSDT", "POLUSDT") == ""
        assert caplog.messages == []
        assert old_name_note("POLUSDT", "MATICUSDT") == " under their old name MATICUSDT"
    assert caplog.messages == ["POLUSDT: bars found under their old name MATICUSDT"]

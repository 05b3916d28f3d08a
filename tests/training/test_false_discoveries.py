"""Acceptances that do not stand among many models tried."""

import pytest
from test_results import RESULTS

from percoin.errors import MarketsError, RegistryWriteError
from percoin.training import false_discoveries
from percoin.training.false_discoveries import withdraw_false_discoveries
from percoin.types import Timeframe


def test_an_acceptance_that_cannot_be_withdrawn_saves_no_other_one(tmp_path, monkeypatch):
    withdrawn = []

    def withdraw(root, symbol, *args):
        if symbol == "AAA":
            raise RegistryWriteError(symbol, "1h", "no room", "make some")
        withdrawn.append(symbol)

    monkeypatch.setattr(false_discoveries, "withdraw_acceptance", withdraw)
    results = {entry.symbol: entry for entry in RESULTS}
    unknown = [f"market {number}" for number in range(1000)]
    with pytest.raises(MarketsError) as caught:
        withdraw_false_discoveries(results, tmp_path, Timeframe.H1, unknown)
    assert withdrawn == ["BBB", "CCC"]
    assert str(caught.value) == (
        "accepted models that are not significant among 1003 tried could not lose their "
        "acceptance: AAA (no room; make some); the same command with resume=true tries again"
    )

from datetime import timedelta

import pytest
from builders import make_bars

from percoin.signals.freshness import is_overdue
from percoin.signals.hold import HoldSource
from percoin.signals.market import SourcedBars
from percoin.signals.response import age_to_json, no_bars_to_json, to_json
from percoin.types import Source, Timeframe

BARS = make_bars(5)
CLOSED = BARS.close_time().to_pydatetime()


@pytest.mark.parametrize(("seconds", "expected"), [(0, False), (959.9, False), (960, True)])
def test_a_bar_is_overdue_a_minute_after_the_next_one_has_closed(seconds, expected):
    now = CLOSED + timedelta(seconds=seconds)
    assert is_overdue(CLOSED, Timeframe.M15, now) is expected
    assert age_to_json(CLOSED, Timeframe.M15, now) == {"age_secs": seconds, "stale": expected}


def test_an_answer_on_nothing_has_the_keys_of_any_other():
    answer = HoldSource().answer(SourcedBars(BARS))
    whole = to_json(answer, BARS, CLOSED)
    empty = no_bars_to_json("BTCUSDT", Timeframe.M15, [Source.MODEL], "nothing has come")
    assert list(empty) == list(whole)
    assert {key: empty[key] for key in ("pred", "source", "confidence")} == {
        "pred": "NO_TRADE",
        "source": "FALLBACK_NEUTRAL",
        "confidence": 0.0,
    }
    assert empty["stale"] is True
    assert empty["passed"] == [
        {"source": "ML_PER_COIN_V1", "reason": "insufficient_data", "detail": "nothing has come"}
    ]

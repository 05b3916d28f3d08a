from dataclasses import replace

import numpy as np
import pytest

from percoin import json_codec
from percoin.evaluation.daily import DailyLosses, sum_by_day

DAY = 86_400_000


def test_rows_are_summed_by_the_utc_day_of_their_bar():
    open_time = np.array([DAY - 1, DAY, 2 * DAY - 1, 5 * DAY])
    columns = [np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4), np.full(4, 0.5)]

    daily = sum_by_day(open_time, columns)

    assert daily == DailyLosses(
        days=("1970-01-01", "1970-01-02", "1970-01-06"),
        n_rows=(1, 2, 1),
        model=(1.0, 5.0, 4.0),
        train_prior=(1.0, 2.0, 1.0),
        best_baseline=(0.5, 1.0, 0.5),
    )
    assert np.diff(daily.ordinals()).tolist() == [1, 4]


@pytest.mark.parametrize(
    ("days", "n_rows", "prior"),
    [
        ((), (), ()),
        (("2025-01-02", "2025-01-01"), (1, 1), (1.0, 1.0)),
        (("2025-01-01", "2025-01-01"), (1, 1), (1.0, 1.0)),
        (("2025-01-01", "2025-13-01"), (1, 1), (1.0, 1.0)),
        (("2025-01-01",), (0,), (1.0,)),
        (("2025-01-01",), (1,), (0.0,)),
        (("2025-01-01",), (1, 1), (1.0,)),
    ],
)
def test_what_is_no_series_of_days_is_refused(days, n_rows, prior):
    with pytest.raises(ValueError, match=r"day|columns|month"):
        DailyLosses(days, n_rows, prior, prior, prior)


def test_columns_that_are_not_known_are_left_out_of_json():
    known = DailyLosses(("2025-01-01",), (2,), (1.0,), (1.0,), (1.0,))
    assert "rival" not in json_codec.loads(json_codec.dumps(known))
    told = json_codec.dumps(replace(known, rival=(0.5,)))
    assert json_codec.loads(told)["rival"] == [0.5]


@pytest.mark.parametrize("day", ["0001-01-01", "1969-12-31", "2262-01-01", "9999-12-31"])
def test_a_day_of_no_market_is_refused(day):
    days = tuple(sorted(["2025-01-01", day]))
    with pytest.raises(ValueError, match="a day lies in no year of a market"):
        DailyLosses(days, (1, 1), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0))

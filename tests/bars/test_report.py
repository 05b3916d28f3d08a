from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import bars_from_closes, drop_bars, make_bars

from percoin.bars.report import (
    is_silent,
    is_spike,
    make_report,
    to_details,
    to_json,
    to_table,
)
from percoin.bars.schema import Bars, check_bars
from percoin.bars.update import Segment
from percoin.types import Timeframe

BARS = make_bars(2000)


def with_values(bars: Bars, position: int, **values: float) -> Bars:
    frame = bars.frame.copy()
    for name, value in values.items():
        frame.iloc[position, frame.columns.get_loc(name)] = value
    return replace(bars, frame=frame)


def silenced(bars: Bars, first: int, stop: int) -> Bars:
    for position in range(first, stop):
        bars = with_values(bars, position, volume=0.0)
    return bars


def test_bars_without_a_flaw_are_good():
    report = make_report(BARS)

    assert report.quality == "good"
    assert (report.gaps, report.silent, report.spikes) == ((), (), ())
    assert (report.first, report.last) == (BARS.frame.index[0], BARS.close_time())
    assert report.n_bars == 2000
    assert report.sha256 == BARS.sha256()
    assert report.origin == "test: builders"


@pytest.mark.parametrize(
    ("n_missing", "quality"), [(2, "good"), (3, "fair"), (20, "fair"), (21, "poor")]
)
def test_the_mark_follows_the_share_of_doubtful_bars(n_missing, quality):
    assert make_report(drop_bars(BARS, range(50, 50 + n_missing))).quality == quality
    assert make_report(silenced(BARS, 50, 50 + n_missing)).quality == quality


def test_silent_runs_are_told_apart_with_their_dates():
    flat = with_values(silenced(BARS, 100, 114), 500, open=7.0, high=7.0, low=7.0, close=7.0)
    report = make_report(drop_bars(flat, [105, 106]))

    runs = [(run.first, run.last, run.n_bars) for run in report.silent]
    index = BARS.frame.index
    assert runs == [
        (index[100], index[104], 5),
        (index[107], index[113], 7),
        (index[500], index[500], 1),
    ]
    assert report.n_silent == 13
    assert np.flatnonzero(is_silent(flat)).tolist() == [*range(100, 114), 500]


def test_a_close_that_leaves_and_comes_back_is_a_spike_and_a_crash_is_none():
    walk = list(BARS.column("close")[:300])
    spike = bars_from_closes([*walk[:150], walk[150] * 1.2, *walk[151:]])
    crash = bars_from_closes([*walk[:150], *(0.8 * close for close in walk[150:])])

    assert np.flatnonzero(is_spike(spike)).tolist() == [150]
    assert not is_spike(crash).any()


def test_a_wick_that_reaches_far_is_a_spike():
    high = with_values(BARS, 700, high=2 * float(BARS.column("high")[700]))
    low = with_values(BARS, 700, low=0.5 * float(BARS.column("low")[700]))

    assert make_report(high).spikes == (BARS.frame.index[700],)
    assert make_report(low).spikes == (BARS.frame.index[700],)


def test_few_bars_and_bars_that_stand_still_have_no_spikes():
    assert not is_spike(BARS.slice(0, 1)).any()
    assert not is_spike(bars_from_closes([5.0] * 300)).any()
    assert make_report(bars_from_closes([5.0] * 300)).quality == "poor"


def test_the_report_for_programs_holds_every_date():
    start = int(BARS.open_time[0])
    stretches = [Segment(start, start + 86_400_000, "archive BTCUSDT")]
    bars = drop_bars(silenced(BARS, 9, 10), [20, 21])
    content = json.loads(json.dumps(to_json(make_report(bars, stretches))))

    assert content["gaps"] == [
        {
            "last_before": "2024-01-01T04:45:00+00:00",
            "first_after": "2024-01-01T05:30:00+00:00",
            "n_missing": 2,
        }
    ]
    assert content["silent"] == [
        {
            "first": "2024-01-01T02:15:00+00:00",
            "last": "2024-01-01T02:15:00+00:00",
            "n_bars": 1,
        }
    ]
    assert content["stretches"] == [
        {
            "start": "2024-01-01T00:00:00+00:00",
            "end": "2024-01-02T00:00:00+00:00",
            "via": "archive BTCUSDT",
        }
    ]
    assert (content["n_bars"], content["n_missing"], content["n_silent"]) == (1998, 2, 1)
    assert content["sha256"] == bars.sha256()


def test_the_table_has_a_line_for_each_market():
    reports = [make_report(BARS), make_report(make_bars(50, "ETHUSDT", Timeframe.H1))]
    header, first, second = to_table(reports).splitlines()

    assert header.split()[:3] == ["symbol", "tf", "quality"]
    assert first.split()[:3] == ["BTCUSDT", "15m", "good"]
    assert second.split()[:3] == ["ETHUSDT", "1h", "good"]
    assert BARS.sha256()[:12] in first


def test_the_details_name_the_longest_and_count_the_rest():
    bars = drop_bars(BARS, [*range(100, 104), *range(200, 1800, 200)])
    text = to_details(make_report(bars, [Segment(0, 86_400_000, "API BTCUSDT")]), n_shown=2)

    assert "  1970-01-01 00:00 to 1970-01-02 00:00  API BTCUSDT" in text
    assert "  2024-01-02 01:00 to 2024-01-02 02:00  4 missing" in text
    assert text.endswith("and 7 more: output=json")


def test_the_defects_that_are_known_in_real_bars_are_found(klines):
    table = pd.read_parquet(klines / "BTCUSDT" / "15m.parquet").set_index("open_time")
    bars = Bars(
        "BTCUSDT", Timeframe.M15, check_bars(table, "BTCUSDT", Timeframe.M15), "files: real"
    )
    report = make_report(bars)

    assert [(str(run.first), run.n_bars) for run in report.silent] == [
        ("2024-10-28 20:00:00+00:00", 4)
    ]
    assert report.gaps == ()
    assert len(report.spikes) < 20
    assert report.quality == "good"

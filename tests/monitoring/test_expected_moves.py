"""Expected moves in the record: written, settled and scored with the predictions they came with."""

import math
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from builders import make_bars
from made_up_predictions import ENTRY, RULE, prediction_on, soon_after

from percoin.monitoring.record import PredictionOutcome, TrackRecord, sqlite_url
from percoin.monitoring.resolution import make_entry, resolve
from percoin.monitoring.scoreboard import make_scoreboard
from percoin.types import Band, ExpectedMove

BARS = replace(make_bars(400), origin="binance spot: BTCUSDT")
CLOSE = BARS.column("close")
FACTOR = 1.25


def move_on(close: float, horizon: int = RULE.horizon) -> ExpectedMove:
    """Half a percent either way, with bands that are narrow, wide and certain."""
    reaches = {50: 1.001, 80: 1.004, 95: 2.0}
    bands = tuple(Band(k, close / reach, close * reach) for k, reach in reaches.items())
    return ExpectedMove(0.5, horizon, bands, FACTOR)


def play(record, rows, horizon=RULE.horizon):
    entries = []
    for n_bars in rows:
        seen = BARS.slice(0, n_bars)
        move = move_on(float(seen.column("close")[-1]), horizon)
        made = replace(prediction_on(seen), expected_move=move)
        entries.append(make_entry(made, seen, RULE, soon_after(seen)))
    record.write_all(entries)
    resolve(record, BARS, soon_after(BARS))
    return entries


@pytest.fixture
def record(tmp_path):
    return TrackRecord(sqlite_url(tmp_path / "record.sqlite"))


def test_a_move_is_read_as_it_was_written_and_only_once(record):
    entry = replace(ENTRY, expected_move=move_on(100.0))
    assert record.write(entry)
    assert not record.write(replace(entry, expected_move=move_on(101.0)))
    [kept] = record.predictions()
    assert kept.expected_move == move_on(100.0)
    assert kept.realized_variance is None


def test_what_came_is_the_variance_of_the_ranges_of_the_horizon(record):
    play(record, range(100, 102))
    high, low = BARS.column("high"), BARS.column("low")
    for kept, row in zip(record.predictions(), (99, 100), strict=True):
        ranges = [math.log(high[k] / low[k]) ** 2 for k in range(row + 1, row + 4)]
        assert kept.realized_variance == pytest.approx(FACTOR * sum(ranges) / (4 * math.log(2)))


def test_the_score_is_that_of_a_slow_loop(record):
    play(record, range(100, 300))
    [standing] = make_scoreboard(record)
    losses, held = [], {50: 0, 80: 0, 95: 0}
    for kept in record.predictions():
        ratio = kept.realized_variance / 0.005**2
        losses.append(ratio - math.log(ratio) - 1)
        row = round(kept.ts / 900_000) - BARS.open_time[0] // 900_000 - 1
        for level, reach in ((50, 1.001), (80, 1.004), (95, 2.0)):
            held[level] += CLOSE[row] / reach <= CLOSE[row + 3] <= CLOSE[row] * reach
    assert standing.move.n_rows == 200
    assert standing.move.qlike.value == pytest.approx(np.mean(losses))
    assert standing.move.qlike.lower < np.mean(losses) < standing.move.qlike.upper
    shares = {name: share.value for name, share in standing.move.coverage.items()}
    assert shares == {str(level): pytest.approx(count / 200) for level, count in held.items()}
    assert 0 < shares["50"] < shares["80"] < shares["95"] == 1
    assert set(standing.to_json()["move"]) == {"n_rows", "qlike", "coverage"}


def test_a_move_over_another_horizon_than_the_rule_is_not_written(record):
    [entry] = play(record, [100], horizon=RULE.horizon + 1)
    assert entry.expected_move is None
    assert make_scoreboard(record)[0].move is None


def test_a_record_from_before_the_moves_is_read_and_written(record, tmp_path):
    record.write(ENTRY)
    record.close()
    with sqlite3.connect(tmp_path / "record.sqlite") as connection:
        connection.execute("DROP TABLE percoin_moves")
    assert [kept.expected_move for kept in record.predictions()] == [None]
    later = replace(ENTRY, ts=ENTRY.ts + 900_000, expected_move=move_on(100.0))
    assert record.write(later)
    assert [kept.expected_move for kept in record.predictions()] == [None, move_on(100.0)]


@pytest.mark.parametrize(
    "changes",
    [
        {"percent": math.nan},
        {"percent": 0.0},
        {"percent": 1e200},
        {"percent": 1e-200},
        {"horizon_bars": 0},
        {"range_factor": -1.0},
        {"range_factor": 1e300},
        {"bands": (Band(50, math.inf, 1.0),)},
    ],
)
def test_a_move_that_cannot_be_meant_is_refused(record, changes):
    move = replace(move_on(100.0), **changes)
    with pytest.raises(ValueError, match="expected_move"):
        record.write(replace(ENTRY, expected_move=move))
    assert record.predictions() == []


@pytest.mark.parametrize(
    "change",
    [
        "move_percent = 1e200",
        "move_percent = 1e-200",
        "move_percent = 'much'",
        "move_horizon_bars = 'long'",
        "move_bands = '[[50, 1.0]]'",
        "move_bands = '7'",
        "move_range_factor = 9e999",
        "realized_variance = 1e300",
        "realized_variance = 0",
    ],
)
def test_a_move_that_another_program_spoilt_hides_its_row_alone(record, tmp_path, change):
    play(record, range(100, 150))
    database = sqlite3.connect(tmp_path / "record.sqlite", isolation_level=None)
    database.execute(f"UPDATE percoin_moves SET {change} WHERE prediction_id = 4")
    database.close()
    [standing] = make_scoreboard(record)
    assert (standing.n_resolved, standing.move.n_rows) == (49, 49)
    assert math.isfinite(standing.move.qlike.upper)


def test_an_outcome_that_comes_second_changes_no_move(record):
    [entry] = play(record, [100])
    [kept] = record.predictions()
    record.write(replace(entry, ts=entry.ts + 1))
    void = record.predictions()[1]
    assert record.resolve([PredictionOutcome(void.id, None, None, "a gap")], 5) == 1
    late = [PredictionOutcome(each.id, 2, 0.01, realized_variance=1e-4) for each in (kept, void)]
    assert record.resolve(late, 6) == 0
    realized = [each.realized_variance for each in record.predictions()]
    assert realized == [kept.realized_variance, None]


def test_after_rows_were_deleted_by_hand_the_next_ones_are_written(record, tmp_path):
    play(record, range(100, 103))
    database = sqlite3.connect(tmp_path / "record.sqlite", isolation_level=None)
    database.execute("DELETE FROM percoin_predictions")
    database.close()
    entry = replace(ENTRY, expected_move=move_on(101.0))
    assert record.write(entry)
    [kept] = record.predictions()
    assert (kept.id, kept.expected_move, kept.realized_variance) == (1, move_on(101.0), None)

"""Rows and entries that nobody can have meant: each is left out, and nothing else is."""

import json
import logging
import math
import sqlite3
from dataclasses import replace
from datetime import timedelta

import pytest
from made_up_predictions import ENTRY, RULE, bars_of, prediction_on, soon_after, walk

from percoin.errors import RecordError
from percoin.labels import FixedHorizon
from percoin.monitoring.record import BaselineForecast, TrackRecord, kind_of_bars, sqlite_url
from percoin.monitoring.resolution import make_entry, resolve, rule_text
from percoin.monitoring.scoreboard import make_scoreboard

BROKEN = [
    ("symbol", "'BTC\x1b[2J'"),
    ("symbol", "x'ff41'"),
    ("symbol", "CAST(x'ff41' AS TEXT)"),
    ("bars", "CAST(x'eda080' AS TEXT)"),
    ("baselines", "CAST(x'ff' AS TEXT)"),
    ("tf", "'7m'"),
    ("ts", "9223372036854775807"),
    ("ts", "-1"),
    ("ts", "'soon'"),
    ("bars", "'bin\nance'"),
    ("bars", "x'ed a0 80'".replace(" ", "")),
    ("source", "'<script>\x07'"),
    ("model_version", "'" + "v" * 65 + "'"),
    ("label_rule", "'{'"),
    ("label_rule", "'[]'"),
    ("label_rule", "'" + "[" * 5000 + "'"),
    ("label_rule", """'{"kind": "fixed_horizon"}'"""),
    ("label_rule", """'{"kind": "../../trap", "horizon": 3, "threshold": 0.01}'"""),
    ("signal", "7"),
    ("signal", "'LONG'"),
    ("confidence", "'high'"),
    ("confidence", "9e999"),
    ("close", "-9e999"),
    ("probabilities", "'[0.2, 0.3]'"),
    ("probabilities", "'[NaN, NaN, NaN]'"),
    ("probabilities", "'[2, -1, 0]'"),
    ("probabilities", "'{}'"),
    ("probabilities", "7"),
    ("baselines", "'null'"),
    ("baselines", """'{"prior": []}'"""),
    ("baselines", """'{"prior": [0, NaN, 0.5, 0.5]}'"""),
    ("baselines", "'" + "[" * 5000 + "'"),
    ("is_live", "'perhaps'"),
    ("written_at", "9e18"),
    ("label", "5"),
    ("label", "'LONG'"),
    ("forward_return", "9e999"),
    ("void", "x'00ff'"),
    ("resolved_at", "'never'"),
]


def seven(record: TrackRecord, symbol: str = "BTCUSDT") -> None:
    record.write_all([replace(ENTRY, symbol=symbol, ts=ENTRY.ts + n * 900_000) for n in range(7)])


def spoil(url: str, column: str, value: str) -> None:
    """Change one row of seven as another program could."""
    database = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    database.execute(f"UPDATE percoin_predictions SET {column} = {value} WHERE id = 4")
    database.close()


@pytest.fixture
def url(tmp_path) -> str:
    return sqlite_url(tmp_path / "record.sqlite")


@pytest.mark.parametrize(("column", "value"), BROKEN)
def test_one_row_that_cannot_be_meant_hides_no_other_one(url, caplog, column, value):
    record = TrackRecord(url)
    seven(record)
    spoil(url, column, value)
    kept = record.predictions()
    if column == "is_live":  # any value but 0 is true
        assert [row.id for row in kept] == [1, 2, 3, 4, 5, 6, 7]
        return
    if column == "void" and len(kept) == 7:
        return
    assert [row.id for row in kept] == [1, 2, 3, 5, 6, 7]
    assert len(record.open_predictions(ENTRY.symbol, ENTRY.tf, ENTRY.bars, ENTRY.ts * 2)) == 6
    assert [standing.n_written for standing in make_scoreboard(record)] == [6]
    record.predictions()
    [line] = [entry.getMessage() for entry in caplog.records]
    assert "row 4" in line
    assert line.isprintable()
    assert len(line) < 600
    record.close()


def test_only_predictions_up_to_a_moment_are_open_by_then(url):
    record = TrackRecord(url)
    seven(record)
    until = ENTRY.ts + 2 * 900_000
    found = record.open_predictions(ENTRY.symbol, ENTRY.tf, ENTRY.bars, until)
    assert [kept.ts for kept in found] == [ENTRY.ts, ENTRY.ts + 900_000, until]
    record.close()


def test_a_version_that_is_no_number_is_one_line(url):
    TrackRecord(url).open()
    database = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    database.execute("UPDATE percoin_record SET version = 'one'")
    database.close()
    with pytest.raises(RecordError, match="its version is no number"):
        TrackRecord(url).predictions()


@pytest.mark.parametrize(
    "changes",
    [
        {"confidence": math.nan},
        {"close": math.inf},
        {"probabilities": (math.nan, 0.5, 0.5)},
        {"baselines": {"prior": BaselineForecast(0, (math.nan, 0.5, 0.5))}},
        {"baselines": {"prior": BaselineForecast(9, (0.2, 0.3, 0.5))}},
        {"bars": "half \ud800"},
        {"bars": "nothing \x00"},
        {"model_version": "v" * 65},
        {"version_id": "\ud800"},
        {"label_rule": "{}"},
        {"ts": 2**70},
        {"written_at": -1},
        {"symbol": "BTC/USDT"},
    ],
)
def test_an_entry_that_no_database_could_keep_is_refused_before_any_is_written(url, changes):
    record = TrackRecord(url)
    with pytest.raises(ValueError, match=f"its {next(iter(changes))} is invalid"):
        record.write_all([replace(ENTRY, symbol="ETHUSDT"), replace(ENTRY, **changes)])
    assert record.revision() == (0, 0)
    assert record.write(replace(ENTRY, symbol="ETHUSDT"))


@pytest.mark.parametrize("origin", ["bin\ud800ance spot: BTCUSDT", "a\x00b\x1b: c", "x" * 500])
def test_bars_of_any_origin_are_recorded_and_resolved(url, origin):
    record, bars = TrackRecord(url), bars_of(walk(60), origin=origin)
    asked = bars.slice(0, 50)
    assert record.write(make_entry(prediction_on(asked), asked, RULE, soon_after(asked)))
    assert resolve(record, bars, soon_after(bars)) == 1
    assert record.predictions()[0].bars == kind_of_bars(origin)
    record.close()


def test_ordinary_origins_stay_as_they_were():
    assert kind_of_bars("binance spot: BTCUSDT, before it X") == "binance spot"
    assert kind_of_bars("files: Ordner/Börse 15m.csv") == "files"
    assert kind_of_bars("simulated: seed=0 n_bars=5") == "simulated: seed=0 n_bars=5"


def test_one_rule_that_cannot_be_meant_leaves_the_others_to_be_resolved(url, caplog):
    record, bars = TrackRecord(url), bars_of(walk(60))
    for n in (40, 45):
        asked = bars.slice(0, n)
        record.write(make_entry(prediction_on(asked), asked, RULE, soon_after(asked)))
    database = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    database.execute("UPDATE percoin_predictions SET label_rule = '{}' WHERE id = 1")
    database.close()
    with caplog.at_level(logging.WARNING):
        assert resolve(record, bars, soon_after(bars)) == 1
    assert "row 1" in caplog.text
    record.close()


def test_a_rule_that_looks_further_than_there_are_bars_takes_no_time(url, monkeypatch):
    record, bars = TrackRecord(url), bars_of(walk(60))
    far = FixedHorizon(horizon=10**12, threshold=0.01)
    record.write(replace(ENTRY, ts=ENTRY.ts - 20 * 900_000, label_rule=rule_text(far)))
    monkeypatch.setattr(FixedHorizon, "label", lambda *_: pytest.fail("asked for labels"))
    assert resolve(record, bars, soon_after(bars)) == 0
    record.close()


def test_baselines_that_only_some_rows_have_are_not_scored(url):
    record = TrackRecord(url)
    seven(record)
    said = json.dumps({"prior": [2, 0.2, 0.3, 0.5]})
    spoil(url, "baselines", f"'{said}'")
    database = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    database.execute("UPDATE percoin_predictions SET label = 2, resolved_at = 5")
    database.close()
    [standing] = make_scoreboard(record)
    assert (standing.n_resolved, list(standing.baselines)) == (7, ["prior"])
    spoil(url, "baselines", "'{}'")
    [standing] = make_scoreboard(TrackRecord(url))
    assert (standing.n_resolved, standing.skill, standing.baselines) == (7, None, {})


def test_a_clock_in_the_year_9998_writes_and_resolves(url):
    from datetime import UTC, datetime

    start = datetime(9998, 12, 1, tzinfo=UTC)
    record, bars = TrackRecord(url), bars_of(walk(60), start=start)
    asked = bars.slice(0, 50)
    record.write(make_entry(prediction_on(asked), asked, RULE, soon_after(asked)))
    assert resolve(record, bars, soon_after(bars) + timedelta(days=20)) == 1
    [standing] = make_scoreboard(record)
    assert standing.since.year == 9998
    record.close()

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_predictions import ENTRY

from percoin.errors import ConfigError, RecordError
from percoin.monitoring.record import PredictionOutcome, TrackRecord, sqlite_url

WRITER = """
import sys
from dataclasses import replace
sys.path.insert(0, sys.argv[3])
from made_up_predictions import ENTRY
from percoin.monitoring.record import TrackRecord
record = TrackRecord(sys.argv[1])
for n in range(int(sys.argv[2])):
    is_new = record.write(replace(ENTRY, ts=ENTRY.ts + n * 900_000))
    print(n, int(is_new), flush=True)
"""


@pytest.fixture
def url(tmp_path) -> str:
    return sqlite_url(tmp_path / "made" / "by itself" / "record.sqlite")


def start_writer(url: str, n: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, url, str(n), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_prediction_is_read_as_it_was_written(url):
    record = TrackRecord(url)
    assert record.write(ENTRY)
    [kept] = record.predictions()
    assert {name: getattr(kept, name) for name in vars(ENTRY)} == vars(ENTRY)
    assert (kept.label, kept.forward_return, kept.void, kept.resolved_at) == (None, None, "", None)
    record.close()


def test_it_is_written_once_however_often_and_the_first_counts(url):
    record, other = TrackRecord(url), TrackRecord(url)
    assert record.write(ENTRY)
    assert not other.write(replace(ENTRY, signal=0, written_at=ENTRY.written_at + 1))
    assert not record.write(ENTRY)
    assert [kept.signal for kept in record.predictions()] == [2]


@pytest.mark.parametrize(
    "other",
    [
        {"symbol": "ETHUSDT"},
        {"ts": ENTRY.ts + 1},
        {"bars": "files"},
        {"source": "PRO"},
        {"model_version": ""},
        {"version_id": ""},
        {"label_rule": ""},
    ],
)
def test_another_market_moment_source_model_or_rule_is_another_prediction(url, other):
    record = TrackRecord(url)
    assert record.write_all([ENTRY, replace(ENTRY, **other)]) == [True, True]
    assert record.revision() == (2, 0)


def test_an_outcome_is_written_once(url):
    record = TrackRecord(url)
    record.write(ENTRY)
    [kept] = record.predictions()
    assert record.resolve([PredictionOutcome(kept.id, 2, 0.01)], 5) == 1
    assert record.resolve([PredictionOutcome(kept.id, 0, -0.01)], 6) == 0
    [kept] = record.predictions()
    assert (kept.label, kept.forward_return, kept.resolved_at) == (2, 0.01, 5)


@settings(max_examples=12, deadline=None)
@given(
    turns=st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.booleans()), max_size=25),
)
def test_any_interleaving_of_two_servers_writes_each_once(tmp_path_factory, turns):
    url = sqlite_url(tmp_path_factory.mktemp("turns") / "r.sqlite")
    records = [TrackRecord(url), TrackRecord(url)]
    expected: set[int] = set()
    for is_second, moment, restarts in turns:
        record = records[is_second]
        is_new = record.write(replace(ENTRY, ts=moment))
        assert is_new == (moment not in expected)
        expected.add(moment)
        if restarts:
            record.close()
    assert [kept.ts for kept in records[0].predictions()] == sorted(expected)
    for record in records:
        record.close()


def test_two_processes_that_begin_together_double_nothing(url):
    writers = [start_writer(url, 40) for _ in range(2)]
    outputs = [writer.communicate(timeout=60)[0].splitlines() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    new = [[int(line.split()[1]) for line in output] for output in outputs]
    assert [a + b for a, b in zip(*new, strict=True)] == [1] * 40
    assert len(TrackRecord(url).predictions()) == 40


def test_kill_9_loses_nothing_that_was_written_and_a_restart_doubles_nothing(url):
    writer = start_writer(url, 100_000)
    told = [writer.stdout.readline() for _ in range(150)]
    os.kill(writer.pid, signal.SIGKILL)
    told += writer.stdout.readlines()
    writer.wait(10)
    writer.stdout.close()
    n_told = int([line for line in told if line.endswith("\n")][-1].split()[0]) + 1
    record = TrackRecord(url)
    n_kept = len(record.predictions())
    # One may have been written and not yet told of.
    assert n_told <= n_kept <= n_told + 1
    assert n_told >= 150

    again = start_writer(url, n_kept + 5)
    assert again.wait(60) == 0
    again.stdout.close()
    moments = [kept.ts for kept in record.predictions()]
    assert moments == [ENTRY.ts + n * 900_000 for n in range(n_kept + 5)]


def test_it_is_in_wal_mode_and_safe_through_a_loss_of_power(url, tmp_path):
    record = TrackRecord(url)
    record.write(ENTRY)
    with record._connected() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 5000


def test_a_relative_file_means_the_folder_it_was_named_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = TrackRecord("sqlite:///here/record.sqlite")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    record.write(ENTRY)
    assert (tmp_path / "here" / "record.sqlite").is_file()


def test_a_newer_record_is_refused_in_one_line(url):
    record = TrackRecord(url)
    record.open()
    record.close()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE percoin_record SET version = 2")
    database.close()
    with pytest.raises(ConfigError, match="version 2, newer than 1: upgrade percoin") as refused:
        TrackRecord(url).write(ENTRY)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "it is no URL"),
        ("mysql://localhost/x", "mysql is not supported"),
        ("sqlite://", "in memory would be lost"),
        ("sqlite:///:memory:", "in memory would be lost"),
        ("postgresql://me:secret@host:port/x", "it is no URL"),
    ],
)
def test_a_url_that_cannot_be_meant_is_one_line_without_the_password(url, words):
    with pytest.raises(ConfigError, match=words) as refused:
        TrackRecord(url)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_database_is_one_line_and_mends(tmp_path):
    path = tmp_path / "record.sqlite"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 50)
    record = TrackRecord(sqlite_url(path))
    with pytest.raises(
        RecordError, match=r"file is not a database\); move the file aside"
    ) as refused:
        record.write(ENTRY)
    assert "\n" not in str(refused.value)
    path.unlink()
    assert record.write(ENTRY)


def test_a_locked_database_is_told_and_writes_again_afterwards(url, monkeypatch):
    monkeypatch.setattr("percoin.monitoring.record._WAIT_SECS", 0.2)
    record = TrackRecord(url)
    record.write(ENTRY)
    later = replace(ENTRY, ts=ENTRY.ts + 1)
    holder = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(RecordError, match=r"database is locked\); another program holds it$"):
        record.write(later)
    assert len(record.predictions()) == 1
    holder.close()
    assert record.write(later)


def test_a_full_disk_writes_nothing_by_halves(url):
    record = TrackRecord(url)
    record.write(ENTRY)
    with record._connected() as connection:
        n_pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={n_pages}")
        connection.rollback()
    many = [replace(ENTRY, ts=ENTRY.ts + 1 + n) for n in range(500)]
    with pytest.raises(RecordError, match="full"):
        record.write_all(many)
    assert record.revision() == (1, 0)

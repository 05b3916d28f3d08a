"""What a folder says of its job, and what is not believed."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from percoin.run_record import check_result, read_result
from percoin.sweep.jobs import (
    RECORD_FILE,
    JobRecord,
    JobState,
    read_record,
    write_record,
)

RESULT = {"version": "v-1", "epochs": 3, "verdict": "accepted", "secs": 2.5, "reasons": ["x"]}
RECORD = JobRecord(
    state=JobState.FINISHED,
    key="a",
    host="here",
    pid=7,
    started_at=1.5,
    ended_at=2.0,
    epoch=3,
    max_epochs=4,
    val_loss=1.0,
    result=RESULT,
)


def planted(folder: Path, **changes: object) -> JobRecord | None:
    (folder / RECORD_FILE).write_text(json.dumps({**asdict(RECORD), **changes}))
    return read_record(folder)


def test_a_record_is_read_as_it_was_written(tmp_path):
    for record in (RECORD, JobRecord(), replace(RECORD, error="no bars; fetch some", result={})):
        write_record(tmp_path, record)
        assert read_record(tmp_path) == record


def test_a_record_of_an_earlier_version_lacks_what_came_later(tmp_path):
    content = asdict(RECORD)
    for name in ("resumed_from", "training_secs", "val_loss"):
        del content[name]
    (tmp_path / RECORD_FILE).write_text(json.dumps(content))
    assert read_record(tmp_path) == replace(RECORD, val_loss=None)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "flying"},
        {"state": ["running"]},
        {"epoch": "3"},
        {"epoch": -1},
        {"epoch": 10**30},
        {"epoch": True},
        {"started_at": "today"},
        {"ended_at": 1e300},
        {"training_secs": float("nan")},
        {"error": 5},
        {"unknown": 1},
        {"result": []},
        {"result": {"epochs": "3"}},
        {"result": {"epochs": 10**400}},
        {"result": {"version": "../../x"}},
        {"result": {"verdict": "\x1b[2J"}},
        {"result": {"markets": [1]}},
        {"result": {"markets": {"BTCUSDT": {"version": "v"}}}},
        {"result": {"refused": {"BTCUSDT": 5}}},
        {"result": {"refused": {"BTCUSDT": "a\nb"}}},
    ],
)
def test_a_record_that_no_job_could_have_written_is_none(tmp_path, changes):
    assert planted(tmp_path) == RECORD
    assert planted(tmp_path, **changes) is None


@pytest.mark.parametrize("text", ["", "[" * 100_000, "9" * 5000, "[]", "7", '{"state": 1e999}'])
def test_a_file_that_is_no_record_is_none(tmp_path, text):
    (tmp_path / RECORD_FILE).write_text(text)
    assert read_record(tmp_path) is None


def test_words_of_a_record_can_be_printed(tmp_path):
    # Half a surrogate pair is no text: such a record is none.
    assert planted(tmp_path, error="\ud800") is None
    record = planted(tmp_path, error="a\nb \x1b[2J", host="\x1b]0;t\x07")
    assert record is not None
    assert record.error == "a\\nb \\x1b[2J"
    assert record.host.isprintable()


def test_a_result_of_several_markets_is_believed(tmp_path):
    result = {"markets": {"BTCUSDT": RESULT}, "refused": {"ETHUSDT": "no bars"}}
    check_result(result)
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert read_result(tmp_path) == result

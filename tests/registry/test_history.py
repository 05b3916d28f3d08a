import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from artifact_builders import SYMBOL, TIMEFRAME, export, load
from hypothesis import given
from hypothesis import strategies as st

from percoin.errors import RegistryWriteError
from percoin.registry import publish
from percoin.registry.artifact import check_writable
from percoin.registry.catalogue import check_market
from percoin.registry.changes import promote, rollback
from percoin.registry.history import Action, Event, VersionHistory, append, read_history
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Gate, StoredVerdict

ACCEPTED = Gate(StoredVerdict.ACCEPTED, ("made for a test",))
NAMES = [f"2025010{day}T000000000000Z-0123456789ab" for day in range(1, 6)]


def market(root) -> MarketFolder:
    return MarketFolder(root, SYMBOL, TIMEFRAME)


def event(before: str | None, after: str | None, action: Action = Action.EXPORT) -> Event:
    return Event(
        time="2025-01-01T00:00:00.000000Z",
        action=action,
        versions=(after or NAMES[4],),
        why="by a test",
        before=before,
        after=after,
    )


def test_each_export_leaves_a_line_that_says_what_was_served_before_and_after(tmp_path):
    first = export(tmp_path, gate=ACCEPTED).name
    second = export(tmp_path, gate=Gate(StoredVerdict.REJECTED, ("no",))).name
    lines = [json.loads(line) for line in market(tmp_path).history.read_text().splitlines()]

    assert [line["why"] for line in lines] == [
        "trained; the gate says accepted",
        "trained; the gate says rejected",
    ]
    assert [line["versions"] for line in lines] == [[first], [second]]
    assert "before" not in lines[0]
    assert lines[0]["after"] == lines[1]["before"] == lines[1]["after"] == first
    assert lines[0]["time"].endswith("Z")


def test_what_was_written_stays_to_the_last_byte(tmp_path):
    texts = []
    for value in range(4):
        export(tmp_path, float(value))
        texts.append(market(tmp_path).history.read_bytes())
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert texts[-1].count(b"\n") == 4


def test_a_link_that_other_hands_have_moved_is_noticed(tmp_path):
    first, second = (export(tmp_path, value, gate=ACCEPTED).name for value in (0.0, 1.0))
    market(tmp_path).link.unlink()
    market(tmp_path).link.symlink_to(market(tmp_path).link_target(first))
    third = export(tmp_path, 2.0, gate=ACCEPTED).name
    noticed, exported = read_history(market(tmp_path)).events[-2:]

    assert (noticed.action, noticed.before, noticed.after) == (Action.NOTICE, second, first)
    assert (exported.action, exported.before, exported.after) == (Action.EXPORT, first, third)
    assert rollback(market(tmp_path), "").after == first


def test_a_line_cut_short_is_ignored_and_then_cleared_away(tmp_path):
    name = export(tmp_path, gate=ACCEPTED).name
    path = market(tmp_path).history
    path.write_bytes(path.read_bytes() + b'{"time": "2025-01-01T00')
    history = read_history(market(tmp_path))
    assert [entry.after for entry in history.events] == [name]
    assert history.damaged_lines == ()
    export(tmp_path)
    assert [json.loads(line)["action"] for line in path.read_text().splitlines()] == ["export"] * 2


@pytest.mark.parametrize("line", [b"", b"{}", b"\xff", b"[1]", b'{"time": NaN}', b"[" * 10_000])
def test_a_damaged_line_stops_nothing_and_is_told_by_its_number(tmp_path, line):
    first = export(tmp_path, 0.0, gate=ACCEPTED).name
    path = market(tmp_path).history
    path.write_bytes(path.read_bytes() + line + b"\n")
    export(tmp_path, 1.0, gate=ACCEPTED)
    history = read_history(market(tmp_path))
    assert history.damaged_lines == (2,)
    assert len(history.events) == 2
    assert rollback(market(tmp_path), "").after == first


def make_pipe(path):
    os.mkfifo(path)


def make_link(path):
    path.with_name("elsewhere").write_text("mine")
    path.symlink_to(path.with_name("elsewhere"))


def make_folder(path):
    path.mkdir()


@pytest.mark.parametrize("spoil", [make_pipe, make_link, make_folder])
def test_a_history_that_is_no_file_is_refused_before_and_after_training(tmp_path, spoil):
    name = export(tmp_path, gate=ACCEPTED).name
    path = market(tmp_path).history
    path.unlink()
    spoil(path)
    with pytest.raises(RegistryWriteError, match=r"BTCUSDT 15m: cannot write to .*history\.jsonl"):
        check_writable(tmp_path, SYMBOL, TIMEFRAME)
    with pytest.raises(RegistryWriteError, match=r"history\.jsonl"):
        export(tmp_path)
    assert load(tmp_path).folder.name == name
    assert publish.served_id(market(tmp_path)) == name
    if spoil is make_link:
        assert path.with_name("elsewhere").read_text() == "mine"


def test_no_market_has_a_history_before_its_first_version(tmp_path):
    assert read_history(market(tmp_path)) == VersionHistory()


@given(st.text(), st.sampled_from(Action), st.lists(st.sampled_from(NAMES)))
def test_whatever_the_reason_an_event_is_one_line_and_comes_back(
    tmp_path_factory, why, action, versions
):
    where = market(tmp_path_factory.mktemp("models"))
    where.versions.mkdir(parents=True)
    written = Event(
        time="2025-01-01T00:00:00.000000Z", action=action, versions=tuple(versions), why=why
    )
    append(where, written)
    append(where, written)
    assert read_history(where).events == (written, written)


def test_the_trail_leaves_out_what_was_undone():
    a, b, c, d = NAMES[:4]
    exports = [event(None, a), event(a, b), event(b, c)]
    assert VersionHistory(tuple(exports)).served_before(c) == [b, a]
    back = [*exports, event(c, b, Action.ROLLBACK)]
    assert VersionHistory(tuple(back)).served_before(b) == [a]
    assert VersionHistory((*back, event(b, d))).served_before(d) == [b, a]
    promoted = [*exports, event(c, a, Action.PROMOTE)]
    assert VersionHistory(tuple(promoted)).served_before(a) == [c, b, a]


def test_the_trail_begins_with_what_was_served_before_the_first_line():
    a, b, c = NAMES[:3]
    assert VersionHistory((event(a, b),)).served_before(b) == [a]
    # Further back than any line: nothing is known of what was served before that.
    assert VersionHistory((event(b, c), event(c, a, Action.ROLLBACK))).served_before(a) == []


def test_an_export_that_was_not_served_is_no_step_of_the_trail():
    a, b = NAMES[:2]
    assert VersionHistory((event(None, a), event(a, a), event(a, b))).served_before(b) == [a]


def test_a_change_that_was_cut_short_is_no_step_of_the_trail():
    a, b = NAMES[:2]
    assert VersionHistory((event(None, a), event(a, b))).served_before(a) == []


def test_promotions_can_be_undone_one_by_one(tmp_path):
    names = [export(tmp_path, float(value), gate=ACCEPTED).name for value in range(3)]
    promote(market(tmp_path), names[0], "")
    promote(market(tmp_path), names[1], "")
    assert rollback(market(tmp_path), "").after == names[0]
    assert rollback(market(tmp_path), "").after == names[2]


def test_a_line_is_on_the_disk_before_what_it_tells_of_is_done(tmp_path, monkeypatch):
    """A promotion: the whole line is synced, and its folder, before the link is replaced."""
    first = export(tmp_path, 0.0, gate=ACCEPTED).name
    export(tmp_path, 1.0, gate=ACCEPTED)
    where, synced = market(tmp_path), []
    fsync, replace = os.fsync, Path.replace

    def recording_fsync(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path.name, path.read_text() if path.is_file() else ""))
        fsync(descriptor)

    def checking_replace(path, target):
        contents = [content for name, content in synced if name == "history.jsonl"]
        assert contents == [where.history.read_text()]
        assert f'"after": "{first}"' in contents[0].splitlines()[-1]
        assert [name for name, _ in synced] == ["history.jsonl", where.versions.name]
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(Path, "replace", checking_replace)
    promote(where, first, "why")
    assert publish.served_id(where) == first


@pytest.mark.parametrize(
    "line", [b"[" * 10_000 + b"]" * 10_000, b'{"time": "\\ud800"}', b"9" * 5_000, b"NaN"]
)
def test_a_hostile_line_is_a_damaged_one(tmp_path, line):
    export(tmp_path)
    where = market(tmp_path)
    where.history.write_bytes(where.history.read_bytes() + line + b"\n")
    history = read_history(where)
    assert (len(history.events), history.damaged_lines) == (1, (2,))


def test_a_history_of_50_gb_is_refused_by_its_size(tmp_path):
    export(tmp_path)
    os.truncate(market(tmp_path).history, 50 * 10**9)
    with pytest.raises(OSError, match="too large for a history"):
        read_history(market(tmp_path))
    [problem] = [c.problem for c in check_market(market(tmp_path)) if c.subject == "history"]
    assert problem == "history.jsonl cannot be read: too large for a history"

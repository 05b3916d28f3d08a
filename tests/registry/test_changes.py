import errno
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from artifact_builders import (
    SYMBOL,
    TIMEFRAME,
    check_whole,
    draft,
    export,
    forge,
    load,
)

from percoin.errors import (
    InvalidArtifactError,
    ModelNotFoundError,
    RegistryWriteError,
    VersionRefusedError,
)
from percoin.registry import publish
from percoin.registry.catalogue import read_versions, version_ids
from percoin.registry.changes import (
    Pruning,
    promote,
    prunable,
    prune,
    rollback,
    rollback_target,
)
from percoin.registry.history import Action, read_history
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Gate, StoredVerdict
from percoin.registry.revision import withdraw_acceptance

ACCEPTED = Gate(StoredVerdict.ACCEPTED, ("made for a test",))
REJECTED = Gate(StoredVerdict.REJECTED, ("no better than knowing nothing",))
KILLER = Path(__file__).with_name("killed_changes.py")


def market(root) -> MarketFolder:
    return MarketFolder(root, SYMBOL, TIMEFRAME)


def export_all(root, *gates: Gate) -> list[str]:
    """One version for each verdict; its value is its number, from 0."""
    return [export(root, float(number), gate=gate).name for number, gate in enumerate(gates)]


def served(root) -> str | None:
    return publish.served_id(market(root))


def damage(root, version_id: str) -> None:
    path = market(root).version(version_id) / "cnn_lstm_v1.pth"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def test_a_promoted_version_is_served_and_the_history_says_why(tmp_path):
    first, second, third = export_all(tmp_path, ACCEPTED, ACCEPTED, ACCEPTED)
    event = promote(market(tmp_path), first, "the newer ones lose money")

    assert check_whole(load(tmp_path)) == 0.0
    assert read_history(market(tmp_path)).events[-1] == event
    assert (event.action, event.before, event.after) == (Action.PROMOTE, third, first)
    assert (event.versions, event.why) == ((first,), "the newer ones lose money")
    promote(market(tmp_path), second, "")
    assert check_whole(load(tmp_path)) == 1.0


@pytest.mark.parametrize("force", [False, True])
def test_a_broken_version_is_never_promoted(tmp_path, force):
    first, second = export_all(tmp_path, ACCEPTED, ACCEPTED)
    damage(tmp_path, first)
    with pytest.raises(InvalidArtifactError, match=r"cnn_lstm_v1\.pth was changed"):
        promote(market(tmp_path), first, "", force)
    assert served(tmp_path) == second
    assert len(read_history(market(tmp_path)).events) == 2


@pytest.mark.parametrize("force", [False, True])
def test_a_version_with_right_hashes_over_code_is_never_promoted(tmp_path, force):
    folder = export(tmp_path, 0.0, gate=ACCEPTED)
    forge(folder, weights=pickle.dumps({"head.weight": os.getpid}))
    forged = served(tmp_path)
    newer = export(tmp_path, 1.0, gate=ACCEPTED).name
    with pytest.raises(InvalidArtifactError, match="no weights that are safe to load"):
        promote(market(tmp_path), forged, "", force)
    assert served(tmp_path) == newer


@pytest.mark.parametrize(
    "gate",
    [REJECTED, Gate(StoredVerdict.UNTESTABLE, ("few rows",)), Gate(StoredVerdict.NOT_JUDGED)],
)
def test_a_version_that_was_not_accepted_needs_force(tmp_path, gate):
    accepted, other = export_all(tmp_path, ACCEPTED, gate)
    with pytest.raises(
        VersionRefusedError,
        match=rf"BTCUSDT 15m: {other}: the gate says {gate.verdict}.*force=true",
    ):
        promote(market(tmp_path), other, "")
    assert served(tmp_path) == accepted
    promote(market(tmp_path), other, "", force=True)
    assert served(tmp_path) == other


def test_a_model_of_simulated_bars_needs_force_to_replace_one_of_real_bars(tmp_path):
    simulated = export(tmp_path, 0.0, gate=ACCEPTED).name
    export(tmp_path, 1.0, gate=ACCEPTED, bars=replace(draft().bars, origin="files: 15m.parquet"))
    with pytest.raises(VersionRefusedError, match="it learnt from simulated bars"):
        promote(market(tmp_path), simulated, "")
    assert rollback_target(market(tmp_path)) is None
    promote(market(tmp_path), simulated, "", force=True)
    assert served(tmp_path) == simulated


@pytest.mark.parametrize("name", ["..", "20250101T000000000000Z-0123456789ab", "", "/etc"])
def test_a_version_that_is_none_is_refused(tmp_path, name):
    (only,) = export_all(tmp_path, ACCEPTED)
    with pytest.raises(InvalidArtifactError, match="there is no version"):
        promote(market(tmp_path), name, "")
    with pytest.raises(VersionRefusedError, match="is served already"):
        promote(market(tmp_path), only, "")


def test_a_version_behind_a_link_that_leads_out_is_not_promoted(tmp_path):
    first, second = export_all(tmp_path / "models", ACCEPTED, ACCEPTED)
    folder = market(tmp_path / "models").version(first)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidArtifactError, match="leads out of the models folder"):
        promote(market(tmp_path / "models"), first, "", force=True)
    assert served(tmp_path / "models") == second


def test_a_market_without_versions_is_told_and_no_folder_made(tmp_path):
    for change in (
        lambda: promote(market(tmp_path), "x", ""),
        lambda: rollback(market(tmp_path), ""),
        lambda: prune(market(tmp_path), Pruning(1), ""),
    ):
        with pytest.raises(ModelNotFoundError, match=r"no versions in .*; train one"):
            change()
    assert list(tmp_path.iterdir()) == []


def test_going_back_twice_leads_further_back(tmp_path):
    first, second, third = export_all(tmp_path, ACCEPTED, ACCEPTED, ACCEPTED)
    assert rollback(market(tmp_path), "").after == second
    event = rollback(market(tmp_path), "both are bad")
    assert (event.action, event.before, event.after) == (Action.ROLLBACK, second, first)
    with pytest.raises(VersionRefusedError, match=r"no earlier version .*there is none"):
        rollback(market(tmp_path), "")
    assert check_whole(load(tmp_path)) == 0.0
    assert third in version_ids(market(tmp_path))


def test_a_rollback_undoes_a_promotion_of_an_older_version(tmp_path):
    first, _, third = export_all(tmp_path, ACCEPTED, ACCEPTED, ACCEPTED)
    promote(market(tmp_path), first, "")
    assert rollback(market(tmp_path), "").after == third


def test_a_rollback_passes_over_what_is_broken_rejected_or_gone(tmp_path):
    names = export_all(tmp_path, ACCEPTED, ACCEPTED, ACCEPTED, REJECTED, ACCEPTED)
    damage(tmp_path, names[2])
    for file in market(tmp_path).version(names[1]).iterdir():
        file.unlink()
    market(tmp_path).version(names[1]).rmdir()
    assert rollback_target(market(tmp_path)) == names[0]
    assert rollback(market(tmp_path), "").after == names[0]


def test_a_rollback_leaves_a_served_version_that_is_broken_or_gone(tmp_path):
    names = export_all(tmp_path, ACCEPTED, ACCEPTED, ACCEPTED)
    damage(tmp_path, names[2])
    with pytest.raises(InvalidArtifactError):
        load(tmp_path)
    assert rollback(market(tmp_path), "").after == names[1]
    market(tmp_path).version(names[1]).rename(tmp_path / "away")
    assert rollback(market(tmp_path), "").after == names[0]
    assert check_whole(load(tmp_path)) == 0.0


def test_a_rollback_to_a_rejected_version_needs_force(tmp_path):
    first, second = export_all(tmp_path, REJECTED, ACCEPTED)
    with pytest.raises(VersionRefusedError, match=rf"{first}: the gate says rejected: no better"):
        rollback(market(tmp_path), "")
    assert served(tmp_path) == second
    assert rollback(market(tmp_path), "", force=True).after == first


def test_versions_from_before_there_was_a_history_can_be_rolled_back_to(tmp_path):
    names = export_all(tmp_path, ACCEPTED, ACCEPTED, ACCEPTED)
    market(tmp_path).history.unlink()
    assert rollback(market(tmp_path), "").after == names[1]
    assert rollback(market(tmp_path), "").after == names[0]


def test_pruning_keeps_the_newest_the_served_and_what_a_rollback_takes(tmp_path):
    names = export_all(tmp_path, *[ACCEPTED] * 6)
    promote(market(tmp_path), names[2], "")
    promote(market(tmp_path), names[1], "")
    gone = prune(market(tmp_path), Pruning(keep=1), "tidy")

    assert gone == (names[0], names[3], names[4])
    assert version_ids(market(tmp_path)) == [names[1], names[2], names[5]]
    assert check_whole(load(tmp_path)) == 1.0
    assert rollback_target(market(tmp_path)) == names[2]
    event = read_history(market(tmp_path)).events[-1]
    assert (event.action, event.versions, event.why) == (Action.PRUNE, gone, "tidy")
    assert (event.before, event.after) == (names[1], names[1])


@pytest.mark.parametrize(("keep", "n_gone"), [(0, 3), (1, 3), (2, 3), (3, 2), (5, 0), (99, 0)])
def test_as_many_as_asked_for_are_kept(tmp_path, keep, n_gone):
    names = export_all(tmp_path, *[ACCEPTED] * 5)
    assert prunable(market(tmp_path), Pruning(keep)) == tuple(names[:n_gone])


def test_only_versions_older_than_asked_for_are_removed(tmp_path):
    names = export_all(tmp_path, *[ACCEPTED] * 5)
    created = [version.created_at for version in read_versions(market(tmp_path))]
    rule = Pruning(keep=0, older_than_days=10)
    assert prunable(market(tmp_path), rule) == ()
    later = created[1] + timedelta(days=10)
    assert prunable(market(tmp_path), rule, later) == tuple(names[:2])
    # Before the first day of any calendar.
    assert prunable(market(tmp_path), Pruning(keep=0, older_than_days=1e10)) == ()


def test_pruning_twice_removes_nothing_more_and_writes_no_line(tmp_path):
    export_all(tmp_path, *[ACCEPTED] * 4)
    assert len(prune(market(tmp_path), Pruning(1), "")) == 2
    n_events = len(read_history(market(tmp_path)).events)
    assert prune(market(tmp_path), Pruning(1), "") == ()
    assert len(read_history(market(tmp_path)).events) == n_events


def test_nothing_is_pruned_where_nothing_is_served(tmp_path):
    export_all(tmp_path, *[ACCEPTED] * 4)
    market(tmp_path).link.unlink()
    assert prunable(market(tmp_path), Pruning(0)) == ()


def test_a_withdrawal_stays_as_long_as_what_it_withdrew(tmp_path):
    names = export_all(tmp_path, ACCEPTED, ACCEPTED, ACCEPTED)
    revised = withdraw_acceptance(tmp_path, SYMBOL, TIMEFRAME, names[2], "found by luck")
    promote(market(tmp_path), names[2], "all the same", force=True)
    newer = export_all(tmp_path, REJECTED)
    gone = prune(market(tmp_path), Pruning(1), "")

    assert gone == (names[0],)
    assert version_ids(market(tmp_path)) == [names[1], names[2], revised.folder.name, *newer]


def test_pruning_removes_a_link_and_not_what_it_leads_to(tmp_path):
    names = export_all(tmp_path / "models", ACCEPTED, ACCEPTED, ACCEPTED)
    folder = market(tmp_path / "models").version(names[0])
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert prune(market(tmp_path / "models"), Pruning(0), "") == (names[0],)
    assert len(list((tmp_path / "elsewhere").iterdir())) == 5


@pytest.mark.parametrize("call", [1, 2])
def test_a_disk_that_fails_before_a_promotion_leaves_the_served_version(
    tmp_path, monkeypatch, call
):
    first, second = export_all(tmp_path, ACCEPTED, ACCEPTED)
    fsync, calls = os.fsync, iter(range(1, 100))

    def fail(descriptor):
        if next(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(RegistryWriteError, match="free some space"):
            promote(market(tmp_path), first, "")
    assert served(tmp_path) == second
    promote(market(tmp_path), first, "again")
    actions = [event.action for event in read_history(market(tmp_path)).events]
    assert actions == [
        Action.EXPORT,
        Action.EXPORT,
        Action.PROMOTE,
        Action.NOTICE,
        Action.PROMOTE,
    ]


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("killed")
    result = subprocess.run(
        [sys.executable, KILLER, folder], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("action", "after"), [("promote", 0.0), ("rollback", 0.5)])
def test_a_process_killed_at_any_step_leaves_the_old_version_or_the_new(reports, action, after):
    outcomes = reports[action]["outcomes"]
    n_before = outcomes.count(0.75)
    assert n_before > 10
    assert outcomes == [0.75] * n_before + [after] * (len(outcomes) - n_before)
    assert outcomes[-1] == after
    assert reports[action]["leftovers"] > 0


@pytest.mark.slow
def test_a_withdrawal_killed_at_any_step_can_be_repeated(reports):
    outcomes, n_versions = reports["withdraw"]["outcomes"], reports["withdraw"]["versions"]
    assert set(zip(outcomes, n_versions, strict=True)) == {(0.75, 4), (0.75, 5), (0.5, 5)}
    assert outcomes == sorted(outcomes, reverse=True)


@pytest.mark.slow
def test_a_pruning_killed_at_any_step_leaves_the_served_version_and_can_be_repeated(reports):
    assert set(reports["prune"]["outcomes"]) == {0.75}
    assert set(reports["prune"]["versions"]) == {4, 3, 2}
    assert reports["prune"]["leftovers"] > 0

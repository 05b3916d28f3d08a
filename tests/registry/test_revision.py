import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from artifact_builders import SYMBOL, TIMEFRAME, check_whole, draft, export, load

from percoin.errors import InvalidArtifactError, VersionRefusedError
from percoin.registry import publish
from percoin.registry.catalogue import check_market, read_versions, version_ids
from percoin.registry.changes import promote, rollback
from percoin.registry.history import Action, read_history
from percoin.registry.layout import HASHED_FILES, MANIFEST_FILE, MarketFolder
from percoin.registry.manifest import Gate, StoredVerdict
from percoin.registry.revision import demote, withdraw_acceptance

ACCEPTED = Gate(StoredVerdict.ACCEPTED, ("skill +0.02 [+0.01, +0.03]",))
REJECTED = Gate(StoredVerdict.REJECTED, ("no skill",))
REASON = "luck cannot be ruled out among 128 models"


def market(root) -> MarketFolder:
    return MarketFolder(root, SYMBOL, TIMEFRAME)


def withdraw(root, version_id: str):
    return withdraw_acceptance(root, SYMBOL, TIMEFRAME, version_id, REASON)


def served(root) -> str | None:
    return publish.served_id(market(root))


def test_the_revised_version_has_the_same_files_and_another_verdict(tmp_path):
    folder = export(tmp_path, 0.25, gate=ACCEPTED)
    revised = withdraw(tmp_path, folder.name)
    before, after = (
        json.loads((path / MANIFEST_FILE).read_text()) for path in (folder, revised.folder)
    )

    for name in HASHED_FILES:
        assert (revised.folder / name).read_bytes() == (folder / name).read_bytes()
    assert after.pop("gate") == {
        "verdict": "rejected",
        "reasons": [REASON, "judged alone it was accepted: skill +0.02 [+0.01, +0.03]"],
    }
    assert after.pop("revised_from") == before.pop("version_id") == folder.name
    assert after.pop("version_id") == revised.folder.name > folder.name
    del before["gate"], before["created_at"], after["created_at"]
    assert after == before


def test_the_newest_earlier_accepted_version_is_served_again(tmp_path):
    export(tmp_path, 0.0, gate=ACCEPTED)
    second = export(tmp_path, 1.0, gate=ACCEPTED).name
    export(tmp_path, 2.0, gate=REJECTED)
    third = export(tmp_path, 3.0, gate=ACCEPTED).name
    revised = withdraw(tmp_path, third)

    assert not revised.is_served
    assert served(tmp_path) == second
    assert check_whole(load(tmp_path)) == 1.0
    event = read_history(market(tmp_path)).events[-1]
    assert (event.action, event.before, event.after) == (Action.WITHDRAW, third, second)
    assert (event.versions, event.why) == ((third, revised.folder.name), REASON)


def test_without_an_earlier_accepted_version_the_revised_one_is_shown(tmp_path):
    export(tmp_path, 0.0, gate=REJECTED)
    folder = export(tmp_path, 1.0, gate=ACCEPTED)
    revised = withdraw(tmp_path, folder.name)

    assert revised.is_served
    loaded = load(tmp_path)
    assert loaded.folder == revised.folder
    assert loaded.manifest.gate.verdict is StoredVerdict.REJECTED
    assert loaded.manifest.revised_from == folder.name


def test_an_earlier_version_that_is_broken_withdrawn_or_simulated_is_passed_over(tmp_path):
    real = replace(draft().bars, origin="files: 15m.parquet")
    names = [export(tmp_path, value, gate=ACCEPTED, bars=real).name for value in (0.0, 1.0, 2.0)]
    export(tmp_path, 3.0, gate=ACCEPTED, bars=draft().bars)
    newest = export(tmp_path, 4.0, gate=ACCEPTED, bars=real).name
    withdraw(tmp_path, names[2])
    (market(tmp_path).version(names[1]) / "scaler.pkl").write_bytes(b"")
    withdraw(tmp_path, newest)
    assert served(tmp_path) == names[0]


def test_a_version_that_is_not_served_is_revised_behind_the_served_one(tmp_path):
    first = export(tmp_path, 0.0, gate=ACCEPTED).name
    second = export(tmp_path, 1.0, gate=ACCEPTED).name
    revised = withdraw(tmp_path, first)
    assert not revised.is_served
    assert served(tmp_path) == second
    assert read_versions(market(tmp_path))[0].withdrawn_by == revised.folder.name


def test_a_second_call_changes_nothing(tmp_path):
    name = export(tmp_path, gate=ACCEPTED).name
    first = withdraw(tmp_path, name)
    history = market(tmp_path).history.read_bytes()
    assert withdraw(tmp_path, name) == first
    assert version_ids(market(tmp_path)) == [name, first.folder.name]
    assert market(tmp_path).history.read_bytes() == history


def test_calls_at_once_make_one_revised_version(tmp_path):
    name = export(tmp_path, gate=ACCEPTED).name
    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda _: withdraw(tmp_path, name), range(8)))
    assert len(made) == 1
    assert len(version_ids(market(tmp_path))) == 2
    assert [event.action for event in read_history(market(tmp_path)).events] == [
        Action.EXPORT,
        Action.WITHDRAW,
    ]


def test_a_withdrawn_version_is_not_served_again_without_force(tmp_path):
    name = export(tmp_path, 0.25, gate=ACCEPTED).name
    revised = withdraw(tmp_path, name).folder.name
    with pytest.raises(VersionRefusedError, match=f"acceptance was withdrawn by {revised}"):
        promote(market(tmp_path), name, "")
    promote(market(tmp_path), name, "", force=True)
    assert load(tmp_path).manifest.version_id == name


def test_a_withdrawal_whose_manifest_breaks_is_not_forgotten(tmp_path):
    older = export(tmp_path, 0.0, gate=ACCEPTED).name
    newer = export(tmp_path, 1.0, gate=ACCEPTED).name
    revised = withdraw(tmp_path, older).folder
    (revised / MANIFEST_FILE).write_text("{}")
    found = {v.version_id: v.withdrawn_by for v in read_versions(market(tmp_path))}
    assert found == {older: revised.name, newer: "", revised.name: ""}
    with pytest.raises(VersionRefusedError, match=f"acceptance was withdrawn by {revised.name}"):
        promote(market(tmp_path), older, "")
    # Nor is it what another withdrawal falls back on.
    assert withdraw(tmp_path, newer).is_served


def test_a_withdrawal_whose_manifest_broke_is_made_once_more(tmp_path):
    name = export(tmp_path, gate=ACCEPTED).name
    broken = withdraw(tmp_path, name).folder
    (broken / MANIFEST_FILE).write_text("{}")
    again = withdraw(tmp_path, name).folder
    assert again != broken
    assert read_versions(market(tmp_path))[0].withdrawn_by == again.name
    assert withdraw(tmp_path, name).folder == again


def test_a_promotion_after_the_withdrawal_outlives_a_second_call(tmp_path):
    name = export(tmp_path, gate=ACCEPTED).name
    withdraw(tmp_path, name)
    promote(market(tmp_path), name, "", force=True)
    withdraw(tmp_path, name)
    assert served(tmp_path) == name


def test_what_is_trained_next_takes_the_place_of_a_revised_version(tmp_path):
    withdraw(tmp_path, export(tmp_path, 0.0, gate=ACCEPTED).name)
    newer = export(tmp_path, 1.0, gate=REJECTED).name
    assert served(tmp_path) == newer


@pytest.mark.parametrize(
    "gate", [REJECTED, Gate(StoredVerdict.UNTESTABLE), Gate(StoredVerdict.NOT_JUDGED)]
)
def test_a_version_that_was_not_accepted_has_nothing_to_withdraw(tmp_path, gate):
    name = export(tmp_path, gate=gate).name
    with pytest.raises(VersionRefusedError, match=f"no acceptance to withdraw: {gate.verdict}"):
        withdraw(tmp_path, name)
    assert version_ids(market(tmp_path)) == [name]


def test_a_broken_version_cannot_be_revised(tmp_path):
    folder = export(tmp_path, gate=ACCEPTED)
    (folder / "cnn_lstm_best.pth").write_bytes(b"")
    with pytest.raises(InvalidArtifactError, match=r"cnn_lstm_best\.pth was changed"):
        withdraw(tmp_path, folder.name)
    with pytest.raises(InvalidArtifactError, match="there is no version"):
        withdraw(tmp_path, "20250101T000000000000Z-0123456789ab")
    assert version_ids(market(tmp_path)) == [folder.name]


def test_a_revised_version_is_as_well_sealed_as_any(tmp_path):
    revised = withdraw(tmp_path, export(tmp_path, gate=ACCEPTED).name).folder
    assert not [check for check in check_market(market(tmp_path)) if check.problem]
    path = revised / MANIFEST_FILE
    text = path.read_text()
    other = "20250101T000000000000Z-0123456789ab"
    origin = json.loads(text)["revised_from"]
    for old, new in [('"rejected"', '"accepted"'), (f'"{origin}"', f'"{other}"')]:
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(InvalidArtifactError, match="changed after the export"):
            load(tmp_path)
    digest = json.loads(text)["files"]["scaler.pkl"]
    assert hashlib.sha256((revised / "scaler.pkl").read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("origin", ["..", "", 3, None])
def test_a_revised_version_names_a_version(tmp_path, origin):
    revised = withdraw(tmp_path, export(tmp_path, gate=ACCEPTED).name).folder
    path = revised / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"revised_from": origin}))
    with pytest.raises(InvalidArtifactError, match=r"revised_from(: Expected| names no|')"):
        load(tmp_path)


def test_a_demotion_falls_back_on_no_older_model(tmp_path):
    older = export(tmp_path, 0.0, gate=ACCEPTED).name
    newer = export(tmp_path, 1.0, gate=ACCEPTED).name
    demoted = demote(tmp_path, SYMBOL, TIMEFRAME, newer, "its skill did not last")

    assert demoted.is_served
    assert served(tmp_path) == demoted.folder.name
    assert served(tmp_path) != older
    gate = load(tmp_path).manifest.gate
    assert gate.verdict is StoredVerdict.REJECTED
    assert gate.reasons == (
        "its skill did not last",
        "on its test rows it was accepted: skill +0.02 [+0.01, +0.03]",
    )
    event = read_history(market(tmp_path)).events[-1]
    assert (event.before, event.after) == (newer, demoted.folder.name)


def test_a_withdrawal_never_goes_to_a_newer_version(tmp_path):
    oldest = export(tmp_path, 0.0, gate=ACCEPTED).name
    middle = export(tmp_path, 1.0, gate=ACCEPTED).name
    newest = export(tmp_path, 2.0, gate=ACCEPTED).name
    promote(market(tmp_path), middle, "the newest loses more")
    withdraw(tmp_path, middle)
    assert served(tmp_path) == oldest

    # Nor where the newer one is all that there is.
    revised = withdraw(tmp_path, oldest)
    assert served(tmp_path) == revised.folder.name != newest


def test_a_withdrawal_does_not_undo_a_rollback(tmp_path):
    kept = export(tmp_path, 0.0, gate=ACCEPTED).name
    export(tmp_path, 1.0, gate=ACCEPTED)
    rollback(market(tmp_path), "the newer one loses more")
    assert served(tmp_path) == kept
    withdraw(tmp_path, export(tmp_path, 2.0, gate=ACCEPTED).name)
    assert served(tmp_path) == kept
    # Nor does the next one.
    withdraw(tmp_path, export(tmp_path, 3.0, gate=ACCEPTED).name)
    assert served(tmp_path) == kept


def test_a_withdrawal_brings_back_what_was_promoted_with_force(tmp_path):
    chosen = export(tmp_path, 0.0, gate=ACCEPTED).name
    demote(tmp_path, SYMBOL, TIMEFRAME, chosen, "its skill did not last")
    promote(market(tmp_path), chosen, "I know better", force=True)
    withdraw(tmp_path, export(tmp_path, 1.0, gate=ACCEPTED).name)
    assert served(tmp_path) == chosen


def test_a_withdrawal_does_not_bring_back_a_promoted_model_that_was_left(tmp_path):
    first = export(tmp_path, 0.0, gate=ACCEPTED).name
    rejected = export(tmp_path, 1.0, gate=REJECTED).name
    promote(market(tmp_path), rejected, "to look at it", force=True)
    rollback(market(tmp_path), "it is no good")
    withdraw(tmp_path, export(tmp_path, 2.0, gate=ACCEPTED).name)
    assert served(tmp_path) == first

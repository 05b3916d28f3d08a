import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hostile_files import trapped_pickle, trapped_weights, vouch_for
from trained_registry import add_version, market, served

from percoin.cli import EXIT_USAGE, help_text
from percoin.config import RegistryAction
from percoin.evaluation.blend import PartSkill, PartSkills
from percoin.evaluation.regression import Regression
from percoin.registry.artifact import load_version
from percoin.registry.catalogue import version_ids
from percoin.registry.command.actions import EXIT_FOUND
from percoin.registry.layout import MANIFEST_FILE, MarketFolder
from percoin.registry.manifest import BLEND_PARTS, Blend, Gate, StoredVerdict
from percoin.registry.parts import Calibration

MARKET = ("symbol=BTCUSDT", "tf=1h")
ACCEPTED = Gate(StoredVerdict.ACCEPTED, ("made for a test",))
REJECTED = Gate(StoredVerdict.REJECTED, ("no skill",))


def damage(folder: Path, version_id: str, name: str = "scaler.pkl") -> None:
    path = market(folder).version(version_id) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def only_error(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_each_market_has_its_line(call, trained, capsys):
    first = served(trained)
    second = add_version(trained, gate=ACCEPTED)
    assert call(trained) == 0
    heading, row, count = capsys.readouterr().out.splitlines()
    assert heading.split() == [
        *("market", "version", "model", "age", "data", "skill", "[95", "%]", "verdict", "others")
    ]
    skill = r"[+-]0\.\d{4} \[[+-]0\.\d{4}, [+-]0\.\d{4}\]"
    assert re.fullmatch(
        rf"BTCUSDT 1h +{second} +cnn_lstm_v1 +0 h +2025-07-03 to 2025-08-29 +{skill} +accepted +1",
        row,
    )
    assert count == "1 market: 1 accepted"
    assert first != second


def test_programs_get_the_same_as_json(call, trained, capsys):
    name = add_version(trained, gate=REJECTED)
    assert call(trained, "list", "output=json", "tf=1h") == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["symbol"], line["tf"], line["version"]) == ("BTCUSDT", "1h", name)
    assert (line["verdict"], line["reasons"], line["n_others"]) == ("rejected", ["no skill"], 1)
    assert (line["model_version"], line["network_weight"]) == ("cnn_lstm_v1", None)
    assert line["data"]["first"] == "2025-07-03T00:00:00Z"
    assert line["data"]["origin"].startswith("simulated")
    assert line["skill"]["lower"] < line["skill"]["value"] < line["skill"]["upper"]
    assert line["problem"] is None


def test_a_market_that_cannot_be_trusted_is_listed_with_the_reason(call, trained, capsys):
    name = served(trained)
    damage(trained, name)
    assert call(trained, "list") == 0
    _, row, problem, count = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"BTCUSDT 1h +- +- +- +- +- +broken +1", row)
    assert problem == "BTCUSDT 1h: scaler.pkl was changed after the export"
    assert count == "1 market: 1 broken"


def test_a_market_of_which_nothing_is_served_is_listed(call, trained, capsys):
    market(trained).link.unlink()
    assert call(trained, "list", "output=json") == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["version"], line["n_others"]) == (None, 1)
    assert line["problem"].startswith("no model exported in models")


def test_an_empty_registry_is_no_error_unless_a_market_was_named(call, tmp_path, capsys):
    assert call(tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no market"
    assert call(tmp_path, "prune") == 0
    capsys.readouterr()
    assert call(tmp_path, "list", "symbol=ETHUSDT") == EXIT_USAGE
    assert "models_dir=models holds no model of ETHUSDT" in only_error(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", [".", "absent", "a-file"])
def test_a_verification_that_saw_nothing_is_an_error(call, tmp_path, capsys, folder):
    (tmp_path / "a-file").write_text("")
    assert call(tmp_path, "verify", f"models_dir={folder}") == EXIT_USAGE
    assert only_error(capsys) == (
        f"error: models_dir={folder} holds no model, so nothing was verified; name the folder that "
        "does"
    )


def test_a_models_folder_that_may_not_be_read_is_an_error_of_every_action(
    call, trained, capsys, monkeypatch
):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    for action in ("verify", "list", "prune"):
        assert call(trained, action) == EXIT_USAGE
        said = "models_dir=models cannot be read: Permission denied; check its permissions"
        assert only_error(capsys) == f"error: {said}"


HOSTILE = "calm\n2026-01-01 ERROR forged\x1b[2J\x1b]0;owned\x07\u202e"


def test_no_text_of_a_manifest_or_history_is_obeyed_by_a_terminal(call, trained, capsys):
    plain = load_version(market(trained), served(trained)).manifest
    name = add_version(
        trained,
        gate=Gate(StoredVerdict.REJECTED, (HOSTILE, "x" * 60_000)),
        bars=replace(plain.bars, origin=HOSTILE),
        label_rule={"kind": HOSTILE, HOSTILE: HOSTILE},
        libraries={HOSTILE: HOSTILE},
        machine={HOSTILE: HOSTILE},
        code_version=HOSTILE,
        config={HOSTILE: {HOSTILE: HOSTILE}},
    )
    assert call(trained, "promote", *MARKET, f"version={name}", "force=true") == 1
    first = next(v for v in version_ids(market(trained)) if v != name)
    assert call(trained, "promote", *MARKET, f"version={first}", "force=true") == 0
    damage(trained, first, "metrics.json")
    for arguments in (["list"], ["show", *MARKET, f"version={name}"], ["show", *MARKET]):
        assert call(trained, *arguments) == 0
    assert call(trained, "verify") == EXIT_FOUND
    captured = capsys.readouterr()
    for line in [*captured.out.splitlines(), *captured.err.splitlines()]:
        assert line.isprintable()
        assert not line.startswith("2026")
        assert len(line) <= 5_000
    assert r"calm\n2026-01-01 ERROR forged\x1b[2J" in captured.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lst"], "action=lst must be one of list, show, verify"),
        (["show"], "show needs symbol=BTCUSDT tf=15m"),
        (["promote", *MARKET], "promote needs version=ID, as show lists them"),
        (["rollback", *MARKET, "version=2025"], "version is no setting of rollback"),
        (["list", "dry_run=true"], "dry_run is no setting of list"),
        (["list", "source=sample"], "source is no setting of list"),
        (["list", "tf=1h", "tf.threshold=1"], "tf.threshold is a setting of trainings"),
        (["list", "tf.threshold=1"], "tf.threshold is a setting of trainings"),
        (["list", "symbols=BTCUSDT"], "symbols is not a setting; did you mean symbol?"),
        (["list", "BTCUSDT"], "BTCUSDT"),
        (["prune", "keep=-1"], "keep=-1 must be at least 0"),
        (["prune", "older_than_days=-1"], "older_than_days=-1 must be at least 0"),
        (["prune", "keep=some"], "keep=some"),
        (["show", "symbol=../BTCUSDT", "tf=1h"], "is not a market"),
        (["show", "symbol=BTCUSDT", "tf=2w"], "tf=2w is not an option"),
        (["list", "output=xml"], "output=xml must be one of text, json"),
    ],
)
def test_a_command_that_cannot_be_meant_is_one_line(call, trained, capsys, arguments, said):
    assert call(trained, *arguments) == EXIT_USAGE
    assert said in only_error(capsys)


def test_an_action_may_be_named_by_its_key(call, trained, capsys):
    assert call(trained, "action=verify") == 0
    assert capsys.readouterr().out == "1 version looked at, no problems\n"


def test_one_version_is_shown_in_full(call, trained, capsys):
    first = served(trained)
    second = add_version(trained, gate=ACCEPTED)
    assert call(trained, "show", *MARKET) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"BTCUSDT 1h {second} (served)"
    meta = json.loads((market(trained).link / MANIFEST_FILE).read_text())
    text = "\n".join(lines)
    for fact in (
        "accepted: made for a test",
        meta["bars"]["sha256"],
        meta["code_version"],
        "1,390 of simulated",
        "fixed_horizon, horizon 3",
        "threads 1",
        *meta["files"].values(),
    ):
        assert fact in text
    versions = lines[lines.index("versions, oldest first") + 1 :][:2]
    assert versions[0].startswith(f"    {first}  the gate says ")
    assert versions[1] == f"  * {second}  accepted"
    history = lines[lines.index("history, oldest first") + 1 :]
    assert len(history) == 2
    assert history[1].endswith(f"export {second}; served {second}, before {first}; by a test")


def test_a_blend_is_listed_as_one_and_shows_the_skill_of_its_parts(call, trained, capsys):
    skills = PartSkills(PartSkill(0.02, 0.01, 0.03), PartSkill(-0.01))
    add_version(
        trained,
        regression=Regression(((0.5,) * 15,) * 3, (0.0, 0.1, 0.2)),
        blend=Blend(0.25, Calibration(), dict.fromkeys(BLEND_PARTS, skills)),
    )
    assert call(trained, "list") == 0
    assert "  cnn_lstm_v1 blend  " in capsys.readouterr().out
    assert call(trained, "list", "output=json") == 0
    [listed] = json.loads(capsys.readouterr().out)
    assert listed["network_weight"] == 0.25
    assert listed["weights"] == {"network": 0.25, "logistic": 0.75}
    assert call(trained, "show", *MARKET) == 0
    out = capsys.readouterr().out
    assert re.search(r"^blend +0\.2500 network \+ 0\.7500 logistic regression$", out, re.MULTILINE)
    for name in ("network", "logistic", "blend"):
        skill = r"skill \+0\.0200 \[\+0\.0100, \+0\.0300\] on validation, -0\.0100 on test"
        assert re.search(rf"^  {name} +{skill}$", out, re.MULTILINE)


def test_another_version_is_shown_by_how_its_name_begins(call, trained, capsys):
    first = served(trained)
    second = add_version(trained, gate=ACCEPTED)
    assert call(trained, "show", *MARKET, f"version={first[:-2]}", "output=json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["version"], shown["served"]) == (first, second)
    assert shown["manifest"] == json.loads(
        (market(trained).version(first) / MANIFEST_FILE).read_text()
    )
    assert [entry["version"] for entry in shown["versions"]] == [first, second]
    assert [entry["after"] for entry in shown["history"]] == [first, second]
    assert call(trained, "show", *MARKET, "version=20") == 1
    assert "2 versions begin with '20'" in only_error(capsys)


def test_a_broken_version_is_shown_with_its_problem_and_its_history(call, trained, capsys):
    name = served(trained)
    damage(trained, name, MANIFEST_FILE)
    history = market(trained).history
    history.write_text(history.read_text() + "what?\n")
    assert call(trained, "show", *MARKET) == 0
    out = capsys.readouterr().out
    assert re.search(r"problem +meta\.json: ", out)
    assert f"export {name}" in out
    assert "line 2 cannot be read" in out


def test_verify_names_each_broken_version_and_ends_with_a_code(call, trained, capsys):
    names = [served(trained), add_version(trained), add_version(trained)]
    damage(trained, names[0], "cnn_lstm_v1.pth")
    damage(trained, names[1], "metrics.json")
    assert call(trained, "verify") == EXIT_FOUND
    assert capsys.readouterr().out.splitlines() == [
        f"BROKEN BTCUSDT 1h {names[0]}: cnn_lstm_v1.pth was changed after the export",
        f"BROKEN BTCUSDT 1h {names[1]}: metrics.json was changed after the export",
        "3 versions looked at, 2 problems",
    ]
    assert call(trained, "verify", *MARKET, "output=json") == EXIT_FOUND
    found = json.loads(capsys.readouterr().out)
    assert found["n_versions"] == 3
    assert [problem["subject"] for problem in found["problems"]] == names[:2]


def test_a_version_is_promoted_and_rolled_back(call, trained, capsys):
    first = add_version(trained, gate=ACCEPTED)
    second = add_version(trained, gate=ACCEPTED)
    arguments = (*MARKET, f"version={first}", "why='it, the older, loses less'")
    assert call(trained, "promote", *arguments) == 0
    assert capsys.readouterr().out == f"BTCUSDT 1h: serves {first}, before {second}\n"
    assert served(trained) == first
    assert call(trained, "rollback", *MARKET, "output=json") == 0
    event = json.loads(capsys.readouterr().out)
    assert (event["action"], event["before"], event["after"]) == ("rollback", first, second)
    assert call(trained, "show", *MARKET) == 0
    assert "it, the older, loses less" in capsys.readouterr().out


def test_what_the_gate_did_not_accept_is_promoted_with_force_alone(call, trained, capsys):
    rejected = add_version(trained, gate=REJECTED)
    accepted = add_version(trained, gate=ACCEPTED)
    assert call(trained, "promote", *MARKET, f"version={rejected}") == 1
    line = only_error(capsys)
    assert line.startswith(f"error: BTCUSDT 1h: {rejected}: the gate says rejected: no skill; ")
    assert served(trained) == accepted
    assert call(trained, "promote", *MARKET, f"version={rejected}", "force=true") == 0
    assert served(trained) == rejected


def test_a_broken_version_is_promoted_by_nothing(call, trained, capsys):
    first = add_version(trained, gate=ACCEPTED)
    second = add_version(trained, gate=ACCEPTED)
    damage(trained, first)
    assert call(trained, "promote", *MARKET, f"version={first}", "force=true") == 1
    assert "scaler.pkl was changed after the export" in only_error(capsys)
    assert served(trained) == second


def test_no_action_runs_what_was_planted(call, trained, tmp_path, capsys):
    hit = tmp_path / "hit"
    first = served(trained)
    accepted = add_version(trained, gate=ACCEPTED)
    planted = {"scaler.pkl": trapped_pickle(hit), "cnn_lstm_v1.pth": trapped_weights(hit)}
    forged = vouch_for(market(trained), market(trained).version(first), planted).name
    for arguments in (["list"], ["show", *MARKET, f"version={forged}"], ["verify"]):
        assert call(trained, *arguments) == 0
    capsys.readouterr()
    for action in ("promote", "reproduce"):
        force = ["force=true"] if action == "promote" else []
        assert call(trained, action, *MARKET, f"version={forged}", *force) == 1
        assert "holds no weights that are safe to load" in only_error(capsys)
    assert call(trained, "rollback", *MARKET, "force=true") == 1
    assert "holds no weights that are safe to load" in only_error(capsys)
    assert served(trained) == accepted
    assert not hit.exists()


def test_a_dry_run_says_what_would_go_and_leaves_it(call, trained, capsys):
    names = [served(trained), *(add_version(trained, gate=ACCEPTED) for _ in range(3))]
    before = sorted(trained.rglob("*"))
    assert call(trained, "prune", "keep=1", "dry_run=true") == 0
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"BTCUSDT 1h: would remove 2 of 4 versions, 0\.\d MB", said[0])
    assert said[1:] == [f"  {name}" for name in names[:2]]
    assert sorted(trained.rglob("*")) == before

    assert call(trained, "prune", "keep=1", "output=json") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["versions"], entry["dry_run"]) == (names[:2], False)
    assert entry["n_bytes"] > 10_000
    assert version_ids(market(trained)) == names[2:]
    assert call(trained, "verify") == 0


def test_a_copy_with_its_links_followed_is_looked_at_and_left_alone(call, trained, capsys):
    copy = MarketFolder(trained / "copy", "BTCUSDT", "1h").link
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"")
    copy.unlink()
    shutil.copytree(market(trained).link, copy)
    for arguments in (["list"], ["verify"], ["prune"], ["show", *MARKET]):
        assert call(trained, *arguments, "models_dir=copy") == 0
    assert "(served)" in capsys.readouterr().out
    assert call(trained, "rollback", *MARKET, "models_dir=copy") == 1
    assert "no versions in copy" in only_error(capsys)


def test_the_help_names_every_action_and_key(call, trained, capsys):
    assert call(trained, "--help") == 0
    text = capsys.readouterr().out
    assert text.strip() == help_text("registry").strip()
    for action in RegistryAction:
        assert action.value in text
    for key in ("symbol", "version", "force", "keep", "older_than_days", "dry_run", "why"):
        assert re.search(rf"^  {key}\b", text, re.MULTILINE)


def test_a_real_process_lists_and_verifies_without_torch(trained):
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "percoin.registry", "verify"],
        cwd=trained,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (0, "1 version looked at, no problems\n")
    imported = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    assert "percoin.registry.command.actions" in imported
    assert not {"torch", "lightning", "sklearn", "matplotlib"} & imported
